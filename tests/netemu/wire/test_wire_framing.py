"""One framing for what our processes say to each other: whole messages, whatever the pieces."""

import socket
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.channel.frames import FrameError
from netemu.wire import framing
from netemu.wire.framing import Link, Reader, framed


class Said(msgspec.Struct, tag=True):
    text: str


class Counted(msgspec.Struct, tag=True):
    number: int


MESSAGES = st.lists(st.builds(Said, st.text()) | st.builds(Counted, st.integers(0, 2**63)))


@given(MESSAGES, st.integers(1, 7))
def test_a_stream_gives_the_messages_whatever_pieces_it_comes_in(messages, size):
    data = b"".join(map(framed, messages))
    reader = Reader(Said | Counted)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [one for piece in pieces for one in reader.feed(piece)] == messages


def test_a_link_gives_one_message_at_a_time_and_none_at_the_end():
    here, there = socket.socketpair()
    with here, there:
        for number in (1, 2):
            Link(there).send(Counted(number))
        there.shutdown(socket.SHUT_WR)
        assert [Link(here).receive(Counted) for _ in range(3)] == [Counted(1), Counted(2), None]


@pytest.mark.parametrize("body", [b"\xc1", msgspec.msgpack.encode({"type": "Lost"}), b"\x93"])
def test_what_is_no_message_is_an_error_of_the_frame(body):
    with pytest.raises(FrameError, match="not a message"):
        list(Reader(Said | Counted).feed(len(body).to_bytes(4, "big") + body))


def test_a_length_beyond_the_bound_is_refused_before_it_is_waited_for():
    with pytest.raises(FrameError, match="the bound is"):
        list(Reader(Said).feed((framing.BOUND + 1).to_bytes(4, "big")))


RACE = """
import os, sys, threading
import msgspec
from netemu.wire.questions import Status
from netemu.wire.status import LabStatus

sys.setswitchinterval(1e-6)
told = LabStatus(name="a", policy="", state="", time_scale=1.0, fingerprint="", access_log=False,
                 services=[], nodes=[])
body = msgspec.msgpack.encode(told)

def meet(together):
    together.wait()
    Status.answer(body)

for _ in range(80):
    if os.fork() == 0:
        together = threading.Barrier(8)
        threads = [threading.Thread(target=meet, args=(together,)) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        os._exit(0)
    if os.wait()[1]:
        sys.exit("a process has crashed")
"""


@pytest.mark.processes
def test_threads_may_meet_a_type_for_the_first_time_at_once():
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
