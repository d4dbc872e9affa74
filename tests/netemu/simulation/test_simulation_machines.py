"""Labs on three machines in virtual time: seeds hold, and planted defects are caught."""

import pytest

from netemu.simulation import machine_mutants, mutants
from netemu.simulation.campaign import MACHINES, hunt, outcomes

# Caught by seed 3.
QUICK = ("heals-before-the-fence", "no-epoch-of-answers")


def test_a_few_seeds_hold_every_invariant() -> None:
    for outcome in outcomes(101, 2, story=MACHINES):
        assert outcome["breaches"] == [], outcome["seed"]
        assert outcome["commands"] > 50
        assert len(outcome["faults"]) > 10


@pytest.mark.parametrize("name", QUICK)
def test_a_planted_defect_is_caught(name: str) -> None:
    caught = hunt(machine_mutants.BY_NAME[name], 3, 6, story=MACHINES)
    assert caught.seed is not None


@pytest.mark.parametrize("mutant", machine_mutants.ALL, ids=lambda mutant: mutant.name)
def test_every_mutant_has_its_place(mutant: mutants.Mutant) -> None:
    compile(mutants.planted(mutant), mutant.module, "exec")
