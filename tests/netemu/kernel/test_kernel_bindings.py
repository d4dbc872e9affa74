"""Bindings that are gone already keep no others from being removed."""

import errno
from typing import Any

import pytest

from netemu.kernel import bindings
from netemu.kernel.bindings import Binding, Bindings


class Kernel:
    """Stands in for nf_tables: removes all elements of a transaction, or none."""

    def __init__(self, *held: bytes) -> None:
        self.held = set(held)

    def exchange(self, _: object, request: bytes) -> int:
        asked = {key for key in map(bindings.key, ALL) if key in request}
        if not asked <= self.held:
            return errno.ENOENT
        self.held -= asked
        return 0


ALL = [Binding(f"p{number}", "02:00:00:00:00:01", f"169.254.1.{number}") for number in range(1, 6)]


def test_what_is_gone_keeps_no_other_from_going(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(*(bindings.key(one) for one in ALL if one.port != "p3"))
    monkeypatch.setattr(bindings, "exchange", kernel.exchange)
    table: Any = Bindings.__new__(Bindings)
    table._bridge, table._netfilter = 2, None
    table._route = type("Route", (), {"run": staticmethod(list)})()
    table.remove(ALL)
    assert kernel.held == set()
