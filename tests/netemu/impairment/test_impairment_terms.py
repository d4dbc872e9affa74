"""Terms and plans as their authors write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.impairment import plan, terms
from netemu.impairment.terms import TermError, Terms


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("delay", "50ms", 0.05),
        ("delay", "1.5s", 1.5),
        ("delay", "200us", 0.0002),
        ("delay", 2, 2.0),
        ("delay", 0.25, 0.25),
        ("loss", "5%", 0.05),
        ("loss", "0.1%", 0.001),
        ("loss", 0, 0.0),
        ("loss", "100%", 1.0),
        ("rate", "1mbit", 1e6),
        ("rate", "64kbit", 64e3),
        ("rate", 0, 0.0),
        ("limit", "10", 10),
        ("down", True, True),
        ("gemodel", ["1%", "10%"], (0.01, 0.1, 1.0, 0.0)),
        ("gemodel", "1% 10% 90% 0.1%", (0.01, 0.1, 0.9, 0.001)),
        ("gemodel", {"p": "1%", "r": "10%", "1-h": "50%"}, (0.01, 0.1, 0.5, 0.0)),
    ],
)
def test_terms_are_read(key: str, text: Any, value: Any) -> None:
    assert terms.read({key: text})[key] == pytest.approx(value)


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("delay", "fast", "not a length of time"),
        ("delay", "-1s", "not a length of time"),
        ("delay", "2h", "longer than 60s"),
        ("delay", True, "not a length of time"),
        ("delay", float("nan"), "not a length of time"),
        ("loss", "101%", "more than 100%"),
        ("loss", 5, "has no unit"),
        ("loss", "five", "not a percentage"),
        ("loss", None, "not a percentage"),
        ("rate", "1", "has no unit"),
        ("rate", "1bit", "not from 1kbit"),
        ("limit", 0, "not from 1"),
        ("limit", 2.5, "not a whole number"),
        ("down", "yes", "not true or false"),
        ("distribution", "pareto", "not uniform or normal"),
        ("gemodel", "1%", "has p and r"),
        ("gemodel", {"p": "1%", "q": "2%"}, "not one of p, r"),
        ("latency", "1s", "unknown key; known here are blackhole"),
    ],
)
def test_what_is_wrong_with_a_term_is_said(key: str, text: Any, words: str) -> None:
    with pytest.raises(TermError, match=words) as refused:
        terms.read({key: text})
    assert refused.value.place == key


@pytest.mark.parametrize(
    ("given", "place", "words"),
    [
        ({"reorder": "1%"}, "reorder", "needs a delay"),
        ({"jitter": "1ms"}, "jitter", "more than the delay"),
        ({"loss": "1%", "gemodel": "1% 2%"}, "gemodel", "not both"),
        ({"rate": "1mbit", "trace": "x"}, "trace", "not both"),
        ({"to": {"down": True}}, "to.down", "in both directions"),
        ({"from": {"loss": "x"}}, "from.loss", "not a percentage"),
        ({"to": 5}, "to", "a mapping"),
        ({"seed": -1}, "seed", "not a whole number"),
        ({"schedule": {}}, "schedule", "a list"),
        ({"schedule": [5]}, "schedule[0]", "a mapping"),
        ({"schedule": [{"loss": "1%"}]}, "schedule[0].at", "missing"),
        ({"schedule": [{"at": "1s"}]}, "schedule[0].at", "nothing is to change"),
        ({"schedule": [{"at": "1s", "loss": "x"}]}, "schedule[0].loss", "percentage"),
        ({"schedule": [{"at": "1s", "down": True, "every": "2s"}]}, "schedule[0].every", "for"),
        ({"schedule": [{"at": "1s", "down": True, "times": 2}]}, "schedule[0].times", "every"),
        ({"schedule": [{"at": 1, "for": "1us", "loss": "1%"}]}, "schedule[0].for", "shorter"),
        ({"schedule": [{"at": 1, "reorder": "1%"}]}, "schedule[0].reorder", "needs a delay"),
        ({"schedule": [{"at": "99d", "loss": "1%"}]}, "schedule[0].at", "not a length"),
        ({"schedule": [{"at": "999h", "loss": "1%"}]}, "schedule[0].at", "30 days"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_with_its_place(
    given: dict[str, Any], place: str, words: str
) -> None:
    with pytest.raises(TermError, match=words) as refused:
        plan.read(given)
    assert refused.value.place == place


def test_a_direction_goes_before_both() -> None:
    made = plan.read({"delay": "10ms", "to": {"loss": "1%"}, "from": {"delay": "20ms"}})
    assert made.to == Terms(delay=0.01, loss=0.01)
    assert made.from_ == Terms(delay=0.02)


def test_a_schedule_changes_terms_for_a_while_and_flaps_come_back() -> None:
    made = plan.read(
        {
            "delay": "5ms",
            "schedule": [
                {"at": "10s", "for": "5s", "loss": "30%"},
                {"at": "1s", "for": "100ms", "every": "1s", "times": 3, "down": True},
            ],
        }
    )
    edges, now = [], 0.0
    while (after := made.next_change(now)) is not None:
        now = after
        to, from_ = made.at(now)
        assert to == from_
        edges.append((now, to.down, to.loss))
    assert edges == [
        (1.0, True, 0.0), (1.1, False, 0.0), (2.0, True, 0.0), (2.1, False, 0.0),
        (3.0, True, 0.0), (3.1, False, 0.0), (10.0, False, 0.3), (15.0, False, 0.0),
    ]  # fmt: skip
    assert made.at(12.0)[0] == Terms(delay=0.005, loss=0.3)


@given(
    at=st.floats(0, 1e3), lasts=st.floats(0.01, 1), pause=st.floats(0.01, 1),
    times=st.none() | st.integers(1, 9),
)  # fmt: skip
def test_at_every_edge_the_terms_change(
    at: float, lasts: float, pause: float, times: int | None
) -> None:
    """A timer set for each next change misses none of them."""
    timed = plan.Timed(at=at, lasts=lasts, every=lasts + pause, times=times, to={"loss": 1.0})
    now, held = -1.0, False
    for _ in range(2 * times + 1 if times else 12):
        after = timed.next_after(now)
        if after is None:
            break
        assert after > now
        now, held = after, not held
        assert timed.holds(now) is held
    assert times is None or (after is None and not held)


def test_a_plan_survives_its_way_to_the_lab() -> None:
    import msgspec

    made = plan.read({"loss": "5%", "gemodel": None, "schedule": [{"at": 1, "rate": "1mbit"}]})
    assert msgspec.convert(msgspec.to_builtins(made), plan.Plan) == made
