"""What goes over the factory's link comes out as it was written, text or not."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.kernel.descriptor_link import receive, send
from netemu.kernel.factory_messages import (
    Boot,
    Done,
    Failed,
    Freeze,
    Guests,
    Hold,
    Nodes,
    read,
    written,
)

paths = st.binary(max_size=30).map(os.fsdecode)
messages = (
    st.builds(Nodes, st.integers(0, 200))
    | st.builds(Guests, st.integers(0, 200))
    | st.builds(
        Boot,
        st.text(max_size=20),
        st.text(max_size=20),
        st.text(max_size=20),
        st.lists(paths, max_size=3),
        st.lists(paths, max_size=3),
        st.lists(paths, max_size=3),
        paths,
        st.dictionaries(paths, paths, max_size=3),
        st.integers(0, 2**40),
        st.lists(paths, max_size=3),
    )
    | st.just(Freeze())
    | st.just(Hold())
    | st.builds(Done, st.integers(0, 2**31))
    | st.builds(Failed, st.text(max_size=100))
)


@given(messages)
def test_a_message_arrives_as_it_was_sent(message):
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        send(there, written(message), [])
        told, descriptors, lost = receive(here)
    arrived = read(told)
    assert (type(arrived), arrived) == (type(message), message)
    assert (descriptors, lost) == ([], False)


@pytest.mark.parametrize("told", [[], ["Nodes"], ["Nodes", 1, 2], ["Reboot"], [["Hold"]]])
def test_anything_else_is_an_error(told):
    with pytest.raises(ValueError, match="not a message"):
        read(told)
