"""Faults as people write them, in a lab file or a program."""

import pytest

from hostagent.faults import PLAYBOOK
from netemu.errors import BadInput
from netemu.wire import lab_file
from netemu.wire.faults import planned


def test_times_are_seconds_from_now() -> None:
    (one,) = planned(status=500, at="10s", **{"for": "1m"}, clock="-1h", method="get")
    assert (one.at, one.until, one.clock, one.methods) == (10.0, 70.0, -3600.0, ("GET",))


@pytest.mark.parametrize(("rate", "second"), [("1/s", 1.0), ("30/m", 0.5), ("2", 2.0), (2.5, 2.5)])
def test_a_rate_is_of_seconds_or_minutes(rate: str | float, second: float) -> None:
    (one,) = planned(throttle=rate)
    assert one.throttle == second


def test_the_playbook_is_one_fault_after_another() -> None:
    faults = planned(playbook=True, path="/metadata/*")
    assert [one.times for one in faults] == [step.times for step in PLAYBOOK]
    assert {one.path for one in faults} == {"/metadata/*"}
    assert len({one.id for one in faults}) == len(faults)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "say what it does"),
        ({"status": 200}, "status"),
        ({"status": 500, "for": 0}, "longer than nothing"),
        ({"status": 500, "at": "soon"}, "'soon' is not a duration"),
        ({"status": 500, "playbook": True}, "the playbook says itself"),
        ({"status": 500, "path": ""}, "path"),
        ({"delay": "2h"}, "delay"),
        ({"truncate": -1}, "truncate"),
        ({"status": 500, "color": "red"}, "color"),
        ({"hang": True, "times": 0}, "times"),
        ({"clock": float("nan")}, "clock"),
        ({"throttle": "often"}, "'often' is not a rate"),
        ({"throttle": "1/h"}, "is not a rate"),
        ({"throttle": "nan/s"}, "throttle"),
        ({"throttle": "0/s"}, "throttle"),
        ({"delay": float("nan")}, "delay"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, object], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        planned(**given)


def parse(faults: str) -> tuple[dict[str, object], ...]:
    text = f"nodes: {{n: {{guests: [a, b]}}}}\nfaults: {faults}"
    return lab_file.parse(text, source="lab.yaml").faults


def test_a_lab_file_has_faults_of_some_guests_or_of_all() -> None:
    assert parse("[{guests: a, status: 500, at: 10s, for: 5}, {hang: true}]") == (
        {"guests": ["a"], "status": 500, "at": "10s", "for": 5.0},
        {"guests": [], "hang": True},
    )


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ("[{guests: c, status: 500}]", r"faults\[0\].guests.*no guest c"),
        ("[{hang: true}, {status: 99}]", r"lab.yaml: faults\[1\]: .*status"),
        ("[{guests: a}]", "say what it does"),
        ("[{sttaus: 500}]", "sttaus"),
        ("{status: 500}", "faults"),
        (
            "[{playbook: true}, {guests: b, playbook: true}, {playbook: true}]",
            r"faults\[2\]: b has",
        ),
    ],
)
def test_what_is_wrong_in_a_lab_file_is_said_with_its_place(faults: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse(faults)
