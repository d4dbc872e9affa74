"""All verbs of a command, and the least that each has to be given."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click


def commands(root: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every command that has no commands below it."""
    if not isinstance(root, click.Group):
        yield path
        return
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        yield from commands(command, *path, name)


def found(root: click.Command, path: tuple[str, ...]) -> click.Command:
    """The command that these words name."""
    for name in path:
        assert isinstance(root, click.Group)
        command = root.get_command(click.Context(root), name)
        assert command is not None
        root = command
    return root


def least(command: click.Command, text: str = "x") -> list[str]:
    """What a command cannot do without; names are `text`."""
    words = []
    for one in command.params:
        if isinstance(one, click.Argument) and one.required:
            if isinstance(one.type, click.Choice):
                words.append(str(one.type.choices[0]))
            elif one.type.name == "duration":
                words.append("1s")
            elif isinstance(one.type, click.Path):
                words.append("/no/such/file")
            else:
                words.append(text)
    return words


# Forks for each call: importing the command line again would take half a second each time.
_ZYGOTE = """
import os, sys, json, tempfile, warnings
import click, netemu.cli, hostagent.cli
import hostagent.controller, hostagent.terminal.table
import netemu.client.labs, netemu.client.maintenance, netemu.client.traffic, netemu.drawing
import netemu.wire.lab_file, netemu.client.exec_foreground, netemu.client.recording
context = click.Context(netemu.cli.cli)
for verb in netemu.cli.cli.list_commands(context): netemu.cli.cli.get_command(context, verb)
for line in sys.stdin:
    asked = json.loads(line)
    said = tempfile.TemporaryFile(); shown = tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        null = os.open("/dev/null", os.O_RDONLY); os.dup2(null, 0); sys.stdin = open(0)
        out = shown.fileno()
        if asked["out"] == "full": out = os.open("/dev/full", os.O_WRONLY)
        if asked["out"] == "unread": reader, out = os.pipe(); os.close(reader)
        os.dup2(out, 1)
        os.dup2(os.open("/dev/full", os.O_WRONLY) if asked["err"] == "full" else said.fileno(), 2)
        if asked["out"] == "closed":
            os.close(0); os.close(1); os.close(2); sys.stdin = sys.stdout = sys.stderr = None
        else:
            sys.stdout = open(1, "w", closefd=False); sys.stderr = open(2, "w", closefd=False)
        if asked["gone"]:
            gone = tempfile.mkdtemp(); os.chdir(gone); os.rmdir(gone)
        words = [os.fsdecode(bytes.fromhex(word)) for word in asked["words"]]
        sys.argv = [asked["program"], *words]
        code = 0
        try:
            (netemu if asked["program"] == "netemu" else hostagent).cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            os.write(2, traceback.format_exc().encode())
            code = 99
        for stream in (sys.stdout, sys.stderr):
            try: stream.flush()
            except OSError: code = 120
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said.seek(0); shown.seek(0)
    print(json.dumps([code, shown.read().hex(), said.read().hex()]), flush=True)
"""


class Done(NamedTuple):
    """How a call ended, and what it wrote."""

    code: int
    out: bytes
    err: bytes


class CommandLine:
    """Calls the commands, each in a process of its own with streams of its own."""

    def __init__(self, directory: Path) -> None:
        self._zygote = subprocess.Popen(
            [sys.executable, "-P", "-c", _ZYGOTE],
            env={**os.environ, "NETEMU_RUNTIME_DIR": str(directory / "labs")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        self._zygote.communicate()

    def __call__(
        self, *words: str | bytes, program: str = "netemu", out: str = "", err: str = "",
        gone: bool = False,
    ) -> Done:  # fmt: skip
        """`out` is full, unread or closed (as are all streams then); `gone` is the directory."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        told = [os.fsencode(word).hex() for word in words]
        asked = {"words": told, "program": program, "out": out, "err": err, "gone": gone}
        print(json.dumps(asked), file=self._zygote.stdin, flush=True)
        code, shown, said = json.loads(self._zygote.stdout.readline())
        done = Done(code, bytes.fromhex(shown), bytes.fromhex(said))
        for wrong in (b"Traceback", b"Exception ignored", b"\x1b"):
            assert wrong not in done.err, done.err
        assert code not in (99, 120), done
        return done
