"""Packet sockets, tried in a network namespace of the test's own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab

SCRIPT = """
import subprocess, time
from netemu.kernel import packet
from netemu.linklocal import bpf

def soon():  # before Linux 6.8 it takes the kernel up to a second
    end = time.monotonic() + 3
    while not packet.can_send(guest) and time.monotonic() < end:
        time.sleep(0.01)
    return packet.can_send(guest)

def ip(line):
    subprocess.run(["ip", "link", *line.split()], check=True)

ip("add eth0 type veth peer name p1")
ip("set eth0 up")
guest = packet.on_guest(bpf.nothing())
told = [packet.can_send(guest)]
ip("set p1 up")
told.append(soon())
ip("set eth0 down")
told.append(packet.can_send(guest))
ip("set eth0 name lan7")
ip("set lan7 up")
told.append(soon())
ip("delete lan7")
told.append(packet.can_send(guest))
print(told)
"""


def test_an_interface_sends_if_both_ends_of_its_wire_are_up_whatever_it_is_called() -> None:
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout == "[False, True, False, True, False]\n", done.stderr
