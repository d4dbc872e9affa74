"""What the tests of the lab's control share."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netemu.supervisor.control import store
from tests.netemu.supervisor.fake_store import FakeStore

_MEMORY = Path("/dev/shm")


@pytest.fixture
def fake_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeStore]]:
    """Makes a store of the nodes that it is told, in memory and with short pauses."""
    monkeypatch.setattr(store, "_FIRST_PAUSE", 0.001)
    memory = _MEMORY if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="netemu-store-", dir=memory) as directory:

        def make(*nodes: str) -> FakeStore:
            return FakeStore({node: Path(directory) / f"{node}.sqlite" for node in nodes})

        yield make
