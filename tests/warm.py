"""Runs the command line from a process that has imported it already, once for each person.

A command of the suite costs a fork then, and not the start of a Python: there are some ten
thousand. So does the process that becomes a lab. What they do is the same, but for what ps(1) shows
of a command. `Person.start` and the README's commands start them as users do.
"""

import array
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

_SERVER: Final = """
import importlib, array, atexit, gc, json, os, signal, socket, subprocess, sys, traceback
from hostagent import zygote
from netemu.supervisor.boot import pid1

zygote.import_daemons()
for name in sys.argv[2].split():
    importlib.import_module(name)
requests = socket.socket(fileno=int(sys.argv[1]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def command():
    '''In the process of each command, its words; this process does not come back.'''
    while True:
        message, control, *_ = requests.recvmsg(1 << 20, socket.CMSG_SPACE(16))
        if not message:
            os._exit(0)
        streams = array.array('i')
        streams.frombytes(control[0][2])
        if os.fork() == 0:
            break
        for stream in streams:
            os.close(stream)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told = json.loads(message)
    process = os.fork()
    if process:
        for stream in streams[:3]:
            os.close(stream)
        os.write(streams[3], b'%d ' % process)
        os.write(streams[3], b'%d' % os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        os._exit(0)
    os.close(streams[3])
    for number, stream in enumerate(streams[:3]):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(told['cwd'])
    os.environ.clear()
    os.environ.update(told['environment'])
    return told['arguments']


class Popen(subprocess.Popen):
    '''What becomes a lab is a fork of the command, and not a Python that starts.'''

    def __init__(self, words, **how):
        if pid1.__name__ in words:
            how['preexec_fn'] = lambda: become(words, sorted(how['pass_fds']), how['env'])
        super().__init__(words, **how)


def become(words, kept, environment):
    for low, high in zip([2, *kept], [*kept, 1 << 30]):
        os.closerange(low + 1, high)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    sys.orig_argv[:], sys.argv[:] = words, words[3:]
    run(pid1.main)


def run(what):
    '''Run it, and end as Python does, but without taking its modules apart one by one.'''
    code = 1
    try:
        code = what()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


subprocess.Popen = Popen
gc.freeze()
sys.argv[1:] = command()
from netemu.cli import main
run(main)
"""

_IMPORTED: Final = (
    "netemu.cli.labs netemu.cli.exec netemu.cli.events netemu.cli.maintenance "
    "netemu.cli.nodes netemu.cli.properties netemu.cli.clock netemu.cli.files "
    "netemu.cli.options netemu.cli.progress netemu.client.labs netemu.client.maintenance "
    "netemu.client.exec_foreground netemu.client.failures netemu.client.launch "
    "netemu.client.machines netemu.client.relay netemu.client.signing_key netemu.topology "
    "netemu.wire.control netemu.wire.lab_file hostagent.properties hostagent.terminal.table "
    "rich.cells subprocess"
)

# What of an environment Python reads as it starts.
_OF_PYTHON: Final = ("PYTHON", "LC_", "LANG")

_started: dict[tuple[object, ...], "Warm"] = {}


def warm(prefix: tuple[str, ...], environment: Mapping[str, str]) -> "Warm":
    """The process for such a person and environment; it ends with this one."""
    read = {name: text for name, text in environment.items() if name.startswith(_OF_PYTHON)}
    key = prefix, *sorted(read.items())
    if key not in _started:
        # Nothing else: by their environments some tests find what their commands have left.
        _started[key] = Warm(prefix, {"PATH": environment["PATH"], **read})
    return _started[key]


class Warm:
    """A process that has imported the command line, and forks for each command."""

    def __init__(self, prefix: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = "-P", "-c", _SERVER, str(theirs.fileno()), _IMPORTED
            self._process = subprocess.Popen(
                [*prefix, sys.executable, *words],
                env=dict(environment),
                cwd="/tmp",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # as a command's: Python asks of what kind they are
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )

    def run(
        self,
        arguments: tuple[str, ...],
        environment: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        """As subprocess.run() with captured output and text; raises TimeoutExpired as it does."""
        end = time.monotonic() + timeout
        asked = {"arguments": arguments, "environment": dict(environment), "cwd": "/tmp"}
        with ExitStack() as stack:
            pipes = {name: _pipe(stack) for name in ("out", "err", "code")}
            nothing = stack.enter_context(open(os.devnull, "rb"))
            streams = [nothing.fileno(), *(there for _, there in pipes.values())]
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))
            self._socket.sendmsg([json.dumps(asked).encode()], [rights])
            for _, there in pipes.values():
                os.close(there)
            heard = _read({name: here for name, (here, _) in pipes.items()}, end)
        process, _, code = heard["code"].decode().partition(" ")
        if not code:
            os.kill(int(process), signal.SIGKILL)
            raise subprocess.TimeoutExpired(["netemu", *arguments], timeout, heard["out"])
        out, err = heard["out"].decode(), heard["err"].decode()
        return subprocess.CompletedProcess(["netemu", *arguments], int(code), out, err)


def _pipe(stack: ExitStack) -> tuple[int, int]:
    here, there = os.pipe()
    stack.callback(os.close, here)
    return here, there


def _read(pipes: dict[str, int], end: float) -> dict[str, bytes]:
    """What comes from each until nobody holds its other end, or the time is over."""
    heard = dict.fromkeys(pipes, b"")
    with selectors.DefaultSelector() as selector:
        for name, pipe in pipes.items():
            selector.register(pipe, selectors.EVENT_READ, name)
        while selector.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if read := os.read(key.fd, 1 << 16):
                    heard[key.data] += read
                else:
                    selector.unregister(key.fd)
    return heard
