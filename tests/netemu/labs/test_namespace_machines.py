"""Descriptors of guests' namespaces: held here, or elsewhere and opened when they are used."""

import asyncio
import os
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.kernel import namespaces
from netemu.kernel.factory import FIRST_HELD
from netemu.kernel.factory_client import Factory
from netemu.supervisor.guests import namespace_machine
from netemu.supervisor.guests.namespace_machine import NamespaceMachine


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[NamespaceMachine]]:
    """Four guests whose namespaces (files will do) are held elsewhere; two may be open here."""
    monkeypatch.setattr(namespaces, "NAMES", tmp_path)
    monkeypatch.setattr(namespace_machine, "MOST_OPENED", 2)

    async def guests(_count: int) -> list[int]:
        (tmp_path / "new").write_text("new")
        return [os.open(tmp_path / "new", os.O_RDONLY)]

    factory: Any = types.SimpleNamespace(guests=guests)
    held = []
    made = []
    for number in range(4):
        path = tmp_path / f"file{number}"
        path.write_text(str(number))
        held.append(os.open(path, os.O_RDONLY))
        made.append(NamespaceMachine(f"web{number}", os.dup(held[-1]), factory))
    for one, descriptor in zip(made, held, strict=True):
        one.leave_to(os.getpid(), descriptor)
    yield made
    while NamespaceMachine._opened:
        os.close(NamespaceMachine._opened.popleft().net)
    for descriptor in held:
        os.close(descriptor)


def _says(descriptor: int) -> str:
    return os.pread(descriptor, 9, 0).decode()


def test_a_namespace_held_elsewhere_is_opened_when_it_is_used(
    guests: list[NamespaceMachine],
) -> None:
    """A user of a lab of 10,000 guests finds each of them as in a small one."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for number, one in enumerate(guests):
            assert _says(one.net) == str(number)
            assert _says(one.net) == str(number)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    assert (namespaces.NAMES / "web3").read_text() == "3"  # as `ip netns` finds it


def test_a_new_namespace_takes_the_place_of_the_one_before(guests: list[NamespaceMachine]) -> None:
    """A guest boots: what it had is given back, whatever other guests are used meanwhile."""
    for one in guests:
        assert one.net >= 0
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(guests[0].renew())
    assert _says(guests[0].net) == "new"
    assert guests[2].net != guests[3].net
    assert _says(guests[0].net) == "new"
    guests[0].remove()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not (namespaces.NAMES / "web0").is_symlink()


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
