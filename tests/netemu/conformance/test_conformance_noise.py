"""A busy machine turns no verdict: what it delays is waited for, or tried again."""

from types import SimpleNamespace
from typing import Any

import pytest

from netemu.conformance.row import ALLOWED, LIMITED, Frame, Observed
from netemu.conformance.rows import claims, tcp


class FewPass:
    """A stage whose victim hears nothing until others have left some to be let by."""

    time_scale = 0.0

    def __init__(self, heard: list[list[Frame]]) -> None:
        self.heard = heard
        self.done: list[str] = []
        self.one, self.two = SimpleNamespace(name="attacker"), SimpleNamespace(name="victim")
        self.attacker = self

    def send(self, _frames: Any) -> None:
        self.done.append("sends")

    def signed(self, frame: Any) -> Any:
        return frame

    def bound(self, _name: str) -> None:
        """It has given its address up by probing for another."""

    def reboot(self, _name: str) -> None:
        self.done.append("claims")

    def await_bound(self, _name: str) -> None:
        """It is."""

    def sightings(self) -> list[Frame]:
        return self.heard.pop(0)


def test_a_probe_that_others_have_used_up_the_room_for_is_sent_again() -> None:
    seen = [Frame("victim", b"probe")]
    stage = FewPass([[], seen])
    assert claims._until_heard(stage, [b""]) == seen  # type: ignore[arg-type, list-item]
    # Its own claims take up the room as well: it is sent before each.
    assert stage.done == ["sends", "claims"] * 2


def test_a_victim_that_hears_nothing_is_not_waited_for_without_end() -> None:
    stage = FewPass([[]] * 3)
    assert claims._until_heard(stage, [b""]) == []  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize(
    ("floods", "verdict"),
    [
        ([(LIMITED, 0.1)], LIMITED),
        ([(LIMITED, 2.0), (LIMITED, 3.0), (LIMITED, 0.4)], LIMITED),
        ([(LIMITED, 2.0)] * 4, ALLOWED),
        ([(ALLOWED, 0.1)], ALLOWED),
        ([(LIMITED, 2.0), (ALLOWED, 2.0)], ALLOWED),
    ],
)
def test_a_victim_that_waits_in_each_flood_waits_because_of_it(
    floods: list[tuple[str, float]], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = iter(floods)

    def flood(_stage: Any) -> tuple[Observed, float]:
        seen, worst = next(played)
        return Observed(seen), worst

    monkeypatch.setattr(tcp, "_one_syn_flood", flood)
    assert tcp._syn_flood(None).verdict == verdict  # type: ignore[arg-type]
    assert next(played, None) is None
