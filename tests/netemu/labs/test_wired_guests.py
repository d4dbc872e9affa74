"""Descriptors of guests' namespaces: held here, or elsewhere and opened when they are used."""

import asyncio
import os
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from netemu.kernel.factory import FIRST_HELD
from netemu.kernel.factory_client import Factory
from netemu.supervisor.nodes import wiring
from netemu.supervisor.nodes.wiring import WiredGuest


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[WiredGuest]]:
    """Four guests whose namespaces (files will do) are held elsewhere; two may be open here."""
    monkeypatch.setattr(wiring, "NAMES", tmp_path)
    monkeypatch.setattr(wiring, "MOST_OPENED", 2)
    held = []
    made = []
    for number in range(4):
        path = tmp_path / f"file{number}"
        path.write_text(str(number))
        held.append(os.open(path, os.O_RDONLY))
        guest = types.SimpleNamespace(name=f"web{number}", mark=number)
        made.append(WiredGuest(guest, os.dup(held[-1])))  # type: ignore[arg-type]
    for one, descriptor in zip(made, held, strict=True):
        one.leave_to(os.getpid(), descriptor)
    yield made
    while WiredGuest._opened:
        os.close(WiredGuest._opened.popleft().net)
    for descriptor in held:
        os.close(descriptor)


def _says(descriptor: int) -> str:
    return os.pread(descriptor, 9, 0).decode()


def test_a_namespace_held_elsewhere_is_opened_when_it_is_used(guests: list[WiredGuest]) -> None:
    """A user of a lab of 10,000 guests finds each of them as in a small one."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for number, one in enumerate(guests):
            assert _says(one.net) == str(number)
            assert _says(one.net) == str(number)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    assert (wiring.NAMES / "web3").read_text() == "3"  # as `ip netns` finds it


def test_a_new_namespace_takes_the_place_of_the_one_before(guests: list[WiredGuest]) -> None:
    """A guest boots: what it had is its caller's to close, whoever else is used meanwhile."""
    old = guests[0].net
    new = os.dup(guests[1].net)
    guests[0].net = new
    assert guests[2].net != guests[3].net
    assert (_says(old), _says(guests[0].net)) == ("0", "1")
    os.close(old)
    os.close(new)


def test_a_guest_that_moves_takes_its_namespace_along(guests: list[WiredGuest]) -> None:
    """A guest moves to another node: its namespace stays open until it has booted there."""
    moved = guests[0].taken_over(types.SimpleNamespace(name="web0", mark=0))  # type: ignore[arg-type]
    assert guests[1].net != guests[2].net != guests[3].net
    assert _says(moved.net) == "0"
    os.close(moved.net)


def test_descriptors_left_to_another_process_are_found_there(tmp_path: Path) -> None:
    """What the lab's process does not hold itself is where it is said to be."""
    files = [tmp_path / name for name in "abc"]
    for path in files:
        path.touch()
    descriptors = [os.open(path, os.O_RDONLY) for path in files]
    made = Factory()
    try:
        process = asyncio.run(made.hold(descriptors))
        for place, path in enumerate(files, start=FIRST_HELD):
            assert os.readlink(f"/proc/{process}/fd/{place}") == str(path)
        os.kill(process, 9)
    finally:
        made.close()
        for descriptor in descriptors:
            os.close(descriptor)
