"""A lab is asked: whatever it does, the asker waits no longer than it says."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from netemu.errors import BadInput
from netemu.wire import control, runtime_dir
from netemu.wire.control import PENDING, Hangs, NoAnswer, Told, ask, listen
from netemu.wire.framing import framed
from netemu.wire.progress import Failed
from netemu.wire.questions import Enter, Follow, Reboot, SetProperties, Status

Serve = Callable[[socket.socket], None]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SILENCE", 0.2)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[[Serve], Path]]:
    """A lab called `web` that answers its one connection in this way."""
    directory = tmp_path / "web"
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(runtime_dir.address(directory, runtime_dir.CONTROL))

        def start(serve: Serve) -> Path:
            listener.listen()
            threading.Thread(target=lambda: serve(listener.accept()[0]), daemon=True).start()
            return directory

        yield start


def frames(link: socket.socket, *sent: bytes) -> None:
    with link:
        link.recv(1000)
        for frame in sent:
            link.sendall(frame)


def told(answer: object) -> bytes:
    return framed(Told(msgspec.Raw(msgspec.msgpack.encode(answer))))


def test_an_answer_comes_behind_heartbeats(lab: Callable[[Serve], Path]) -> None:
    web = lab(lambda link: frames(link, PENDING, PENDING, told({"a": "1"})))
    assert ask(web, SetProperties("x", {})) == ({"a": "1"}, [])


def test_an_answer_of_another_type_is_not_believed(lab: Callable[[Serve], Path]) -> None:
    web = lab(lambda link: frames(link, told({"a": 1})))
    with pytest.raises(NoAnswer, match="Expected `str`, got `int`"):
        ask(web, SetProperties("x", {}))


def test_descriptors_come_beside_the_answer(lab: Callable[[Serve], Path]) -> None:
    def serve(link: socket.socket) -> None:
        with link, open(os.devnull) as file:
            link.recv(1000)
            link.sendall(PENDING)
            rights = struct.pack("i", file.fileno())
            link.sendmsg([told(["net"])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    (kinds, (descriptor,)) = ask(lab(serve), Enter(target="a"))
    os.close(descriptor)
    assert kinds == ["net"]


def test_a_lab_that_answers_nothing_hangs(lab: Callable[[Serve], Path]) -> None:
    wait = threading.Event()
    web = lab(lambda link: wait.wait(10) and link.close())
    with pytest.raises(Hangs, match=r"^web: .*'netemu down web' ends it in any case"):
        ask(web, Status())
    wait.set()


def test_a_lab_that_only_ever_beats_is_given_up(lab: Callable[[Serve], Path]) -> None:
    def serve(link: socket.socket) -> None:
        with closing(link):
            try:
                while True:
                    link.sendall(PENDING)
                    time.sleep(0.02)
            except OSError:
                return

    with pytest.raises(Hangs):
        ask(lab(serve), Reboot(guest="x"), within=0.5)


def test_a_stream_that_falls_silent_hangs(lab: Callable[[Serve], Path]) -> None:
    wait = threading.Event()

    def serve(link: socket.socket) -> None:
        with link:
            link.recv(1000)
            link.sendall(told({"what": "node"}))
            wait.wait(10)

    news = listen(lab(serve), Follow())
    assert next(news) == {"what": "node"}
    with pytest.raises(Hangs):
        next(news)
    wait.set()


def test_a_lab_that_takes_nobody_hangs(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    address = runtime_dir.address(full, runtime_dir.CONTROL)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waits:
        listener.bind(address)
        listener.listen(0)
        waits.connect(address)
        for question in (ask, listen):
            with pytest.raises(Hangs):
                list(question(full, Status()))
        with pytest.raises(Hangs):
            control.supervisor(full, within=0.1)


def test_a_lab_that_is_gone_does_not_answer(tmp_path: Path, lab: Callable[[Serve], Path]) -> None:
    for question in (ask, listen):
        with pytest.raises(NoAnswer):
            list(question(tmp_path / "gone", Status()))
    with pytest.raises(NoAnswer, match="web: the lab ended before it had answered"):
        ask(lab(frames), Status())


@pytest.mark.parametrize("garbage", [b"\xff" * 8, b"\0\0\0\1\xc1", b"\0\0\0\1\xa0"])
def test_what_is_not_an_answer_is_said(lab: Callable[[Serve], Path], garbage: bytes) -> None:
    with pytest.raises(NoAnswer):
        ask(lab(lambda link: frames(link, garbage)), Status())


def test_what_the_lab_raised_is_raised(lab: Callable[[Serve], Path]) -> None:
    web = lab(lambda link: frames(link, PENDING, framed(Failed("no such guest", 2))))
    with pytest.raises(BadInput, match="no such guest"):
        ask(web, Reboot(guest="x"))
