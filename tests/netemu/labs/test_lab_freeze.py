"""A frozen guest takes no step and says nothing, whatever its root has prepared."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from netemu.bench.processes import descendants
from tests.conftest import RunningLab
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

# Counts aloud: as a process that a timer sends SIGCONT, with a handler; as one in a PID
# namespace below; as one that another process of the guest traces; and with many threads.
STUBBORN = """
import ctypes, itertools, os, signal, sys, threading, time
libc = ctypes.CDLL(None)
def count(name):
    for number in itertools.count():
        os.write(1, f'{name}\\n'.encode())
        time.sleep(0.02)
def timed():
    signal.signal(signal.SIGCONT, lambda *_: None)
    class Event(ctypes.Structure):
        _fields_ = [('value', ctypes.c_void_p), ('signo', ctypes.c_int), ('notify', ctypes.c_int),
                    ('rest', ctypes.c_char * 48)]
    event, timer = Event(None, signal.SIGCONT, 0), ctypes.c_void_p()
    assert libc.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) == 0
    every = (ctypes.c_long * 4)(0, 10_000_000, 0, 10_000_000)
    assert libc.timer_settime(timer, 0, every, None) == 0
    count('timed')
def below():
    assert libc.unshare(0x20000000) == 0
    if os.fork() == 0:
        count('below')
    os.wait()
def traced():
    child = os.fork()
    if child == 0:
        count('traced')
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    libc.ptrace(0x4206, child, 0, 0)
    while True:
        _, status = os.waitpid(child, 0x40000000)
        libc.ptrace(7, child, 0, os.WSTOPSIG(status) if os.WIFSTOPPED(status) else 0)
def threads():
    for number in range(20):
        threading.Thread(target=count, args=(f'thread{number}',)).start()
    signal.pause()
for one in (timed, below, traced, threads):
    if os.fork() == 0:
        one()
        os._exit(0)
count('first')
"""
NAMES = {"first", "timed", "below", "traced", *(f"thread{number}" for number in range(20))}
HOLD = """
import socket, sys, time
link = socket.create_connection((sys.argv[1], 5555))
while True:
    link.sendall(b'x')
    assert link.recv(1) == b'x'
    print('alive', flush=True)
    time.sleep(0.05)
"""
ECHO = """
import socket
server = socket.create_server(('', 5555))
link, _ = server.accept()
while data := link.recv(1):
    link.sendall(data)
"""


@pytest.fixture(scope="module")
def frosty(person: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    text = "nodes: {n: {guests: [a, b]}}\n"
    file = Path("/tmp") / f"nt-frosty-{os.getpid()}.yaml"
    file.write_text(text)
    try:
        person.netemu("up", str(file), "--name", "frosty", "--time-scale", "0.02")  # type: ignore[attr-defined]
        yield RunningLab(person, "frosty")  # type: ignore[arg-type]
    finally:
        file.unlink()
        person.netemu("down", "frosty", check=None)  # type: ignore[attr-defined]


class Frozen:
    """A guest that is frozen for as long as the `with` block."""

    def __init__(self, lab: RunningLab, guest: str) -> None:
        self._lab, self._guest = lab, guest

    def __enter__(self) -> None:
        freeze = (self._guest, "--type", "freeze", "--now", "--duration", "1h")
        self._event = self._lab.maintenance("schedule", *freeze)["id"]
        wait_until(lambda: self._lab.guests()[self._guest]["power"] == "frozen", 20)

    def __exit__(self, *_: object) -> None:
        self._lab.maintenance("complete", self._event)
        wait_until(lambda: self._lab.guests()[self._guest]["power"] == "running", 20)


def lines(stream: IO[bytes]) -> list[str]:
    """What has been said since the last look."""
    os.set_blocking(stream.fileno(), False)
    return (stream.read() or b"").decode().split()


def start(lab: RunningLab, guest: str, script: str, *arguments: str) -> "subprocess.Popen[bytes]":
    words = ("exec", "--name", lab.name, guest, "--", sys.executable, "-c", script, *arguments)
    return subprocess.Popen(
        lab.person.command(*words), env=lab.person.environment, stdout=subprocess.PIPE, cwd="/tmp"
    )


def test_no_process_takes_a_step(frosty: RunningLab) -> None:
    """A user freezes a hostile guest: none of its processes runs, until it is thawed: then all do.

    Neither does one whose tracer has been killed by somebody outside: it is held again.
    """
    ran = start(frosty, "a", STUBBORN)
    assert ran.stdout is not None
    stream = ran.stdout
    said: set[str] = set()

    def all_go_on() -> bool:
        said.update(lines(stream))
        return said == NAMES

    try:
        wait_until(all_go_on, 20)
        with Frozen(frosty, "a"):
            lines(stream)
            time.sleep(0.5)
            assert set(lines(stream)) == set()
        said.clear()
        wait_until(all_go_on, 20)
        with Frozen(frosty, "a"):
            for tracer in _tracers(frosty):
                os.kill(tracer, signal.SIGKILL)
            wait_until(lambda: "held again" in _log(frosty), 20)
            wait_until(lambda: _tracers(frosty), 20)
            time.sleep(0.2)
            lines(stream)
            time.sleep(0.5)
            assert set(lines(stream)) == set()
        said.clear()
        wait_until(all_go_on, 20)
    finally:
        ran.kill()
        ran.wait()
        stream.close()


def _log(lab: RunningLab) -> str:
    return (lab.person.labs / lab.name / "lab.log").read_text()


def _tracers(lab: RunningLab) -> set[int]:
    """The processes that trace others of the lab."""
    found = set()
    for process in descendants(lab.status()["supervisor"]):
        try:
            text = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        found.add(int(text.split("TracerPid:")[1].split()[0]))
    return {one for one in found if one and _is_ours(one)}


def _is_ours(process: int) -> bool:
    return b"netemu.kernel.factory" in Path(f"/proc/{process}/cmdline").read_bytes()


def test_a_first_process_obeys_nobody_inside(frosty: RunningLab) -> None:
    """A guest's root sends its first process signals, traces it and reads it: to no effect."""
    script = """
import ctypes, os, signal
for number in range(1, 32):
    os.kill(1, number)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(0x4206, 1, 0, 0))
for name in ('environ', 'mem', 'maps', 'fd/0', 'cwd/etc/passwd'):
    try:
        print(open(f'/proc/1/{name}', 'rb').read(1))
    except OSError:
        print('refused')
"""
    assert frosty.python("b", script).stdout.split() == ["-1", *["refused"] * 5]
    frosty.exec("b", "true")


def test_a_guests_program_has_none_of_its_owners_secrets(
    fresh_lab: Callable[..., RunningLab], monkeypatch: pytest.MonkeyPatch, person: object
) -> None:
    """A secret in the environment of who ran `netemu up` is not in that of a guest's program."""
    monkeypatch.setitem(person.environment, "SECRET_TOKEN", "hunter2")  # type: ignore[attr-defined]
    lab = fresh_lab("nodes: {n: {guests: [{name: a, run: env}]}}")
    wait_until(lambda: "NETEMU_GUEST=a" in lab.netemu("logs", "a").stdout)
    assert "hunter2" not in lab.netemu("logs", "a").stdout


def test_a_connection_to_the_metadata_service_lives_through_it(frosty: RunningLab) -> None:
    """A user freezes a guest between two requests of one connection: the second is answered."""
    script = """
import http.client, sys, time
link = http.client.HTTPConnection('169.254.169.254', timeout=60)
for _ in range(2):
    link.request('GET', '/metadata/v1/InstanceInfo')
    answer = link.getresponse()
    answer.read()
    print(answer.status, link.sock.getsockname()[1], flush=True)
    sys.stdin.readline()
"""
    words = ("exec", "--name", frosty.name, "b", "--", sys.executable, "-c", script)
    asking = subprocess.Popen(
        frosty.person.command(*words),
        env=frosty.person.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/tmp",
        text=True,
    )
    with asking:
        assert asking.stdin is not None
        assert asking.stdout is not None
        first = asking.stdout.readline()
        with Frozen(frosty, "b"):
            asking.stdin.write("\n")
            asking.stdin.flush()
            time.sleep(0.5)
        assert asking.stdout.readline() == first != ""
        asking.stdin.close()


def test_connections_live_through_it(fresh_lab: Callable[..., RunningLab]) -> None:
    """A user freezes a guest in the middle of a TCP connection: it goes on after the thaw."""
    lab = fresh_lab("nodes: {n: {guests: [{name: a, tenant: true}, {name: b, tenant: true}]}}")
    server = start(lab, "a", ECHO)
    client = None
    try:
        wait_until(lambda: ":5555" in lab.exec("a", "ss", "-ltn").stdout, 20)
        client = start(lab, "b", HOLD, lab.guests()["a"]["tenant"][0])
        assert client.stdout is not None
        stream = client.stdout
        wait_until(lambda: "alive" in lines(stream), 20)
        with Frozen(lab, "a"):
            lines(stream)
            time.sleep(0.5)
            assert lines(stream) == []
        wait_until(lambda: "alive" in lines(stream), 30)
    finally:
        for one in (server, client):
            if one is not None:
                one.kill()
                one.wait()
                if one.stdout:
                    one.stdout.close()
