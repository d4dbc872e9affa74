"""Which node takes a guest that has to leave its own."""

from hypothesis import given
from hypothesis import strategies as st

from netemu.supervisor.control.healing import Candidate, choose, spread
from netemu.topology import MAX_GUESTS_PER_NODE, Guest


def guest(name: str, availability_set: str | None = None) -> Guest:
    return Guest(
        name=name,
        mark=1,
        mac="02:00:00:00:00:01",
        update_domain=0,
        fault_domain=0,
        availability_set=availability_set,
    )


def node(name: str, domain: int, *guests: Guest) -> Candidate:
    return Candidate(name, domain, list(guests))


def many(count: int) -> list[Guest]:
    return [guest(f"g{number}") for number in range(count)]


def test_another_fault_domain_goes_before_all_else() -> None:
    crowded = node("far", 1, guest("x", "set"), *many(20))
    assert choose(guest("a", "set"), 0, [node("near", 0), crowded]) == "far"
    assert choose(guest("a", "set"), 1, [node("near", 0), crowded]) == "near"


def test_its_own_fault_domain_is_better_than_nothing() -> None:
    assert choose(guest("a"), 0, [node("near", 0)]) == "near"


def test_the_availability_set_is_kept_apart() -> None:
    candidates = [node("one", 1, guest("x", "set")), node("two", 2, *many(5))]
    assert choose(guest("a", "set"), 0, candidates) == "two"
    assert choose(guest("a", "other"), 0, candidates) == "one"
    assert choose(guest("a"), 0, candidates) == "one"


def test_the_fewest_companions_if_there_are_some_everywhere() -> None:
    both = [guest("x", "set"), guest("y", "set")]
    candidates = [node("one", 1, *both), node("two", 2, both[0], *many(5))]
    assert choose(guest("a", "set"), 0, candidates) == "two"


def test_then_the_node_with_the_fewest_guests_and_then_the_first() -> None:
    assert choose(guest("a"), 0, [node("one", 1, *many(2)), node("two", 2, *many(1))]) == "two"
    assert choose(guest("a"), 0, [node("z", 1), node("a", 2)]) == "z"


def test_a_full_node_takes_nobody() -> None:
    full = node("far", 1, *many(MAX_GUESTS_PER_NODE))
    assert MAX_GUESTS_PER_NODE == 1023
    assert choose(guest("a"), 0, [full]) is None
    assert choose(guest("a"), 0, [full, node("near", 0)]) == "near"
    assert choose(guest("a"), 0, [node("far", 1, *many(MAX_GUESTS_PER_NODE - 1))]) == "far"
    assert choose(guest("a"), 0, []) is None


def test_those_who_leave_together_are_spread() -> None:
    leaving = [guest(name, "set") for name in "abcd"]
    moves = spread(leaving, 0, [node("one", 1), node("two", 2)])
    assert {name: len(guests) for name, guests in moves.items()} == {"one": 2, "two": 2}


def test_those_for_whom_there_is_no_room_are_left_out() -> None:
    almost = node("far", 1, *many(MAX_GUESTS_PER_NODE - 1))
    assert spread([guest("a"), guest("b")], 0, [almost]) == {"far": [guest("a")]}
    assert spread([guest("a")], 0, []) == {}


@given(
    st.lists(st.sampled_from([None, "s", "t"]), max_size=12),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), max_size=5),
)
def test_everybody_who_leaves_is_at_one_place_and_nobody_else_is_touched(
    sets: list[str | None], nodes: list[tuple[int, int]]
) -> None:
    leaving = [guest(f"x{number}", one) for number, one in enumerate(sets)]
    candidates = [
        node(f"n{place}", domain, *many(count)) for place, (domain, count) in enumerate(nodes)
    ]
    moves = spread(leaving, 0, candidates)
    moved = [one for guests in moves.values() for one in guests]
    assert sorted(one.name for one in moved) == sorted(
        one.name for one in (leaving if candidates else [])
    )
    domains = {one.name: one.fault_domain for one in candidates}
    if any(domain != 0 for domain in domains.values()):
        assert all(domains[name] != 0 for name in moves)
    assert [len(one.guests) for one in candidates] == [count for _, count in nodes]
