"""What the load has seen, counted and judged."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.errors import NotSo
from netemu.scenario.requests import Reboot, Request, Run, moves, per_second, read, unprovoked


def asked(time: float, client: str, server: str | None, took: float = 0.1) -> Request:
    why = None if server else "timeout"
    return Request(time, took, client, server, server is not None, why)


# web1 is announced at 10, goes at 11 and is back at 20.
REBOOT = Reboot("web1", 10.0, 11.0, 20.0)
WELL = (
    asked(9, "a", "web1"),
    asked(9, "b", "web2"),
    asked(12, "a", "web2"),
    asked(12, "b", "web2"),
)


def run(*requests: Request, drained: bool = True) -> Run:
    return Run(drained, tuple(requests), (REBOOT,))


def test_masked_is_when_nothing_fails_and_clients_move_with_their_guest_only() -> None:
    assert run(*WELL).problems() == []
    told = run(*WELL).summary()
    assert (told["requests"], told["failed"], told["clients"]) == (4, 0, 2)
    assert (told["moved"], told["moves"], told["unprovoked"]) == (1, 1, 0)
    assert told["slowest"] == 0.1
    json.dumps(told)


def test_a_request_that_failed_is_a_problem() -> None:
    assert run(*WELL, asked(13, "a", None)).problems() == ["with agents: 1 requests failed"]
    told = run(*WELL, asked(13, "a", None)).summary()
    assert told["why"] == {"timeout": 1}
    assert run(asked(1, "a", None)).summary()["slowest"] is None


def test_a_client_that_leaves_a_guest_which_is_there_is_a_problem() -> None:
    (said,) = run(*WELL, asked(14, "b", "web3")).problems()
    assert said == "with agents: b left web2, which was there"


def test_where_frames_are_lost_the_load_balancer_may_move_clients_and_fail_nothing() -> None:
    lossy = Run(True, (*WELL, asked(14, "b", "web3")), (REBOOT,), impaired=True)
    assert lossy.problems() == []
    lossy = Run(True, (*WELL, asked(13, "a", None)), (REBOOT,), impaired=True)
    assert lossy.problems() == ["with agents: 1 requests failed"]


def test_a_guest_that_keeps_its_clients_while_it_is_away_is_a_problem() -> None:
    (said,) = run(asked(9, "a", "web1"), asked(12, "a", "web1")).problems()
    assert said == "with agents: nobody left web1, which was rebooted"


def test_without_agents_it_is_a_problem_if_nothing_fails() -> None:
    assert run(*WELL, drained=False).problems() == ["without agents: no request failed"]
    assert run(*WELL, asked(13, "a", None), drained=False).problems() == []


@pytest.mark.parametrize(
    ("sent", "took", "provoked"),
    [(9.8, 0.1, False), (9.8, 0.3, True), (15, 0.1, True), (20, 0.1, True), (20.1, 0.1, False)],
)
def test_a_move_is_provoked_from_the_announcement_until_the_guest_is_back(
    sent: float, took: float, provoked: bool
) -> None:
    moved = moves([asked(5, "a", "web1"), asked(sent, "a", "web2", took)])
    assert [move.now for move in moved] == ["web2"]
    assert (unprovoked(moved, [REBOOT]) == []) is provoked
    assert unprovoked(moved, [Reboot("web2", 10, 11, 20)]) == moved


def test_what_failed_says_nothing_of_where_a_client_is() -> None:
    assert moves([asked(1, "a", "web1"), asked(2, "a", None), asked(3, "a", "web1")]) == []
    (one,) = moves([asked(1, "a", "web1"), asked(2, "a", None), asked(3, "a", "web2")])
    assert (one.was, one.now, one.time) == ("web1", "web2", 3)


def test_the_loads_lines_are_read_by_time() -> None:
    lines = [json.dumps(msgspec.to_builtins(one)) for one in reversed(WELL)]
    assert sorted(read(lines), key=repr) == sorted(WELL, key=repr)
    assert [one.time for one in read(lines)] == [9, 9, 12, 12]


@pytest.mark.parametrize("line", ["", "no", "[]", '{"time": 1}', '{"time": "x"}'])
def test_a_line_that_is_no_request_is_named(line: str) -> None:
    good = json.dumps(msgspec.to_builtins(WELL[0]))
    with pytest.raises(NotSo, match="the load's line 2 is not a request"):
        read([good, line])


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), min_size=1))
def test_each_request_is_counted_in_its_second(seen: list[tuple[float, bool]]) -> None:
    requests = [asked(1000 + time, "a", "web1" if ok else None) for time, ok in sorted(seen)]
    every, failed = per_second(requests, 1000)
    assert sum(every) == len(seen)
    assert sum(failed) == sum(not ok for _, ok in seen)
    assert all(most >= some for most, some in zip(every, failed, strict=True))
    assert every[int(requests[0].time - 1000)] > 0


def test_of_nothing_there_are_no_seconds() -> None:
    assert per_second([], 0.0) == ([], [])
