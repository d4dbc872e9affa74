"""What `netemu check` says of a machine's limits, for labs of one size or another."""

import resource

import pytest

from netemu.lab import machine


def findings(guests: int) -> dict[str, machine.Finding]:
    return {one.what: one for one in machine.limits(guests)}


def test_a_limit_is_enough_or_it_is_said_what_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a hard limit of 1,000 files is told what 500 guests would take."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    monkeypatch.setattr(machine, "_may_raise", lambda: False)
    assert findings(272)["open files"].ok
    short = findings(273)["open files"]
    assert not short.ok
    assert short.seen == "1000, enough for 272 guests"
    assert "ulimit -Hn 1002" in short.remedy


def test_the_common_limit_is_enough_for_ten_thousand_guests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user with a hard limit of 20,000 files may have 10,000 guests, and half as many more."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20_000, 20_000))
    monkeypatch.setattr(machine, "_may_raise", lambda: False)
    assert findings(10_000)["open files"].ok
    assert not findings(20_000)["open files"].ok


def test_who_may_raise_a_limit_need_not_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's own labs raise the limit themselves."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1000, 1000))
    monkeypatch.setattr(machine, "_may_raise", lambda: True)
    assert findings(500)["open files"].ok


def test_no_limit_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a limit has room for every lab."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (-1, -1))
    assert findings(60_000)["open files"].ok


def test_the_kernels_own_limits_are_looked_at() -> None:
    """Nobody's machine has a million namespaces to give."""
    found = findings(10**6)
    assert not found["user namespaces"].ok
    assert "sysctl -w user.max_user_namespaces=2000000" in found["user namespaces"].remedy
