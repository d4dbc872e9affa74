"""Labs in virtual time: seeds hold, a seed gives its run again, and planted defects are caught."""

import json

import pytest
from click.testing import CliRunner

from netemu.cli.simulate import simulate
from netemu.errors import BadInput
from netemu.simulation import checkers, mutants
from netemu.simulation.campaign import hunt, outcomes
from tests.thorough import cases

# One for each of the checkers that see most, all caught by one of the first seeds.
QUICK = (
    "same-incarnation-for-another-document",
    "guest-answered-as-its-neighbour",
    "starts-before-its-time",
    "event-written-down-twice",
    "feed-never-joined-again",
)


def test_a_few_seeds_hold_every_invariant_and_a_seed_gives_its_run_again() -> None:
    found = list(outcomes(101, cases(2, 6)))
    for outcome in found:
        assert outcome["breaches"] == [], outcome["seed"]
        assert outcome["commands"] > 50
        assert len(outcome["faults"]) > 10
    again = list(outcomes(101, 2))
    assert [one["faults"] for one in again] == [one["faults"] for one in found[:2]]
    assert [one["digest"] for one in again] == [one["digest"] for one in found[:2]]
    assert again[0]["digest"] != again[1]["digest"]


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_defect_is_caught(name: str) -> None:
    caught = hunt(mutants.BY_NAME[name], 1, 10)
    assert caught.seed is not None


@pytest.mark.parametrize("mutant", mutants.ALL, ids=lambda mutant: mutant.name)
def test_every_mutant_has_its_place_and_its_checker(mutant: mutants.Mutant) -> None:
    """A defect whose text is no longer in the code would be caught by nobody, unnoticed."""
    compile(mutants.planted(mutant), mutant.module, "exec")
    known = {one.__name__ for one in checkers.ALL}
    assert set(mutant.caught_by) <= known


def test_there_are_mutants_enough() -> None:
    assert len(mutants.ALL) >= 20
    assert len(mutants.BY_NAME) == len(mutants.ALL)


def test_a_mutant_that_is_not_there_is_refused() -> None:
    gone = mutants.ALL[0]._replace(old="no such text")
    with pytest.raises(BadInput, match="0 times"):
        mutants.planted(gone)


def test_the_command_names_the_seed_and_prints_json() -> None:
    done = CliRunner().invoke(
        simulate, ["faults", "--seeds", "1", "--from", "5", "--jobs", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["seeds"] == 1
    assert told["breaches"] == []
    unknown = CliRunner().invoke(simulate, ["faults", "--mutant", "none"], standalone_mode=False)
    assert isinstance(unknown.exception, BadInput)
