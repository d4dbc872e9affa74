"""Plans of faults: repeatable, within their bounds, and never more than a lab can bear."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.chaos import kit
from netemu.chaos.plan import Fault, Kind, Shape, plan

SHAPE = Shape(["n1", "n2", "n3"], [f"g{number}" for number in range(9)])


def test_a_seed_gives_its_plan_again() -> None:
    assert plan(SHAPE, seed=7, duration=60) == plan(SHAPE, seed=7, duration=60)
    assert plan(SHAPE, seed=7, duration=60) != plan(SHAPE, seed=8, duration=60)


def test_a_long_run_strikes_every_kind_of_thing() -> None:
    faults = plan(SHAPE, seed=1, duration=600)
    assert 300 < len(faults) < 700
    assert set(Counter(one.kind for one in faults)) == set(Kind)
    struck = {one.target.split("/")[-1].split()[0] for one in faults}
    assert {"agent", "responder", "factory", "zygote", "init"} <= struck


@given(seed=st.integers(0, 1 << 31), duration=st.floats(1, 120))
def test_faults_are_in_order_end_in_time_and_spare_one_node(seed: int, duration: float) -> None:
    faults = plan(SHAPE, seed=seed, duration=duration)
    assert [one.at for one in faults] == sorted(one.at for one in faults)
    assert all(one.ends < duration for one in faults)
    for fault in faults:
        now = [one for one in faults if one.at <= fault.at <= one.ends]
        assert len({one.target for one in now}) == len(now)
        assert sum(one.kind is Kind.FAIL for one in now) < len(SHAPE.nodes)


@pytest.mark.parametrize("kind", Kind)
def test_only_what_is_asked_for_strikes(kind: Kind) -> None:
    faults = plan(SHAPE, seed=3, duration=100, kinds=[kind])
    assert {one.kind for one in faults} == {kind}


def test_a_lab_of_one_node_never_loses_it() -> None:
    alone = Shape(["n1"], ["g1"])
    assert not [one for one in plan(alone, seed=1, duration=600) if one.kind is Kind.FAIL]


def test_a_fault_without_length_ends_when_it_strikes() -> None:
    assert Fault(1.5, Kind.KILL, "factory").ends == 1.5


def test_attacks_are_drawn_from_the_seed_and_each_kind_as_often() -> None:
    attacks = kit.draw(["a", "b"], seed=5, duration=120)
    assert attacks == kit.draw(["a", "b"], seed=5, duration=120)
    assert attacks != kit.draw(["a", "b"], seed=6, duration=120)
    assert [one.at for one in attacks] == sorted(one.at for one in attacks)
    assert attacks[-1].at < 120
    times = Counter(one.name for one in attacks)
    assert set(times) == set(kit.ATTACKS)
    assert max(times.values()) - min(times.values()) <= 1


@pytest.mark.parametrize("name", [*kit.ATTACKS, "listen"])
def test_each_attack_is_a_program(name: str) -> None:
    compile(kit.ATTACKS.get(name, kit.LISTEN), name, "exec")
