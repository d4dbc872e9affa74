"""Each invariant has a checker, and each checker can find its breach."""

from netemu.chaos import invariants
from netemu.chaos.invariants import FLAT, Judge, prompt, slowest


def broken(judge: Judge) -> set[str]:
    return set(judge.broken())


def test_what_is_well_breaks_nothing() -> None:
    judge = Judge()
    judge.answered("web1", "_web1")
    judge.told("web1", 1, b"a")
    judge.told("web1", 1, b"a")
    judge.told("web1", 2, b"b")
    judge.events({"e": ["web1", "web2"]}, {"e": ["web2", "web1"], "healing": ["web3"]})
    judge.log([{"what": "event", "id": "e", "status": status} for status in ("a", "b")])
    judge.settings("web1", {"1", "2"}, "2")
    assert not judge.breaches


def test_another_guests_answer_is_found() -> None:
    judge = Judge()
    judge.answered("web1", "_web2")
    assert broken(judge) == {invariants.OWN_ANSWER}


def test_an_incarnation_that_goes_back_is_found() -> None:
    judge = Judge()
    judge.told("web1", 5, b"a")
    judge.told("web1", 4, b"b")
    assert broken(judge) == {invariants.NEVER_BACK}


def test_other_bytes_of_one_incarnation_are_found() -> None:
    judge = Judge()
    judge.told("web1", 5, b"a")
    judge.told("web1", 5, b"b")
    assert broken(judge) == {invariants.SAME_BYTES}


def test_a_lost_command_and_one_that_is_there_twice_are_found() -> None:
    judge = Judge()
    judge.events({"lost": ["web1"], "twice": ["web1"]}, {"twice": ["web1", "web1"]})
    assert judge.broken()[invariants.ACKNOWLEDGED] == 2


def test_an_event_that_starts_twice_is_found() -> None:
    judge = Judge()
    judge.log([{"what": "event", "id": "e", "status": "Started"}] * 2)
    assert broken(judge) == {invariants.ONCE}


def test_a_setting_that_was_never_acknowledged_is_found() -> None:
    judge = Judge()
    judge.settings("web1", {"2"}, "1")
    judge.settings("web2", {"2"}, None)
    assert judge.broken()[invariants.SETTINGS] == 2


def test_growth_is_found_and_a_start_is_none() -> None:
    starting = [(30_000 + 500 * second, 20 + second) for second in range(20)]
    flat = starting + [(40_000, 40)] * 140
    judge = Judge()
    judge.sizes(flat)
    judge.sizes([(30_000 + 1000 * second, 40) for second in range(30)])  # too short to tell
    assert not judge.breaches
    judge.sizes([(40_000 + 200 * second, 40) for second in range(160)])
    judge.sizes([(40_000, 40 + second) for second in range(160)])
    assert judge.broken()[invariants.FLAT] == 2


def test_answers_are_prompt_that_take_as_long_as_before_or_a_moment() -> None:
    assert slowest([]) == 0.0
    assert slowest([0.1] * 98 + [5.0] * 2) == 5.0
    assert prompt([0.01] * 100, [0.19] * 100)
    assert prompt([0.5] * 100, [1.4] * 100)
    assert not prompt([0.5] * 100, [1.6] * 100)


def test_a_supervisor_that_has_grown_is_a_breach() -> None:
    judge = Judge()
    judge.grown((50_000, 100), (60_000, 120))
    assert judge.breaches == []
    judge.grown((50_000, 100), (80_000, 140))
    assert [invariant for invariant, _ in judge.breaches] == [FLAT, FLAT]
