"""The metadata service misbehaves on command, and behaves again."""

import json
from typing import Any

import pytest

from tests.conftest import RunningLab
from tests.netemu.labs.test_lab_handle import run
from tests.netemu.labs.test_lab_isolation import wait_until

pytestmark = pytest.mark.lab

CURL = ("curl", "-s", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{exitcode}")
INFO = "http://169.254.169.254/metadata/v1/InstanceInfo"


def heard(lab: RunningLab, guest: str, url: str = INFO) -> tuple[int, int]:
    """The status, and curl's exit code."""
    status, code = lab.exec(guest, *CURL, url, check=None).stdout.split()
    return int(status), int(code)


def faults(lab: RunningLab) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(
        lab.person.netemu("fault", "list", "--name", lab.name, "--json").stdout
    )
    return told


def fault(lab: RunningLab, verb: str, *arguments: str, **how: Any) -> str:
    return lab.person.netemu("fault", verb, "--name", lab.name, *arguments, **how).stdout


def test_a_guest_meets_a_fault_and_its_neighbour_does_not(lab: RunningLab) -> None:
    """Two requests fail, the third is well; list and events say so, and it is gone."""
    added = fault(lab, "add", "web1", "--status", "503", "--times", "2").strip()
    assert [(one["guest"], one["id"], one["status"]) for one in faults(lab)] == [
        ("web1", added, 503)
    ]
    assert heard(lab, "web2") == (200, 0)
    assert [heard(lab, "web1")[0] for _ in range(3)] == [503, 503, 200]
    wait_until(lambda: faults(lab) == [])
    told = [json.loads(line) for line in lab.netemu("events", "--json").stdout.splitlines()]
    states = [one["state"] for one in told if one["what"] == "fault" and one["id"] == added]
    assert states == ["added", "over"]


def test_a_fault_outlives_the_agent_and_the_responder(lab: RunningLab) -> None:
    """Both are killed, and start again: the guest still meets what it met."""
    added = fault(lab, "add", "db1", "--truncate", "4").strip()
    assert heard(lab, "db1") == (200, 18)
    node = next(n["name"] for n in lab.status()["nodes"] for g in n["guests"] if g["name"] == "db1")
    before = {one["name"]: one["pid"] for one in lab.status()["services"] if node in one["name"]}
    # The numbers are those of the lab's own PID namespace.
    lab.exec(node, "kill", "-KILL", *map(str, before.values()))

    def again() -> bool:
        now = {one["name"]: one["pid"] for one in lab.status()["services"]}
        return all(now[name] not in (None, pid) for name, pid in before.items())

    wait_until(again)
    wait_until(lambda: heard(lab, "db1") == (200, 18))
    fault(lab, "clear", "--id", added[:4])
    wait_until(lambda: heard(lab, "db1") == (200, 0))


def test_bad_input_is_refused_and_changes_nothing(lab: RunningLab) -> None:
    """A guest that is not there, nothing to do, an unknown ID: exit code 2 or 1, and why."""
    for arguments, code, told in (
        (("add", "nobody", "--status", "500"), 2, "no such guest"),
        (("add", "web1"), 2, "say what it does"),
        (("add", "web1", "--status", "200"), 2, "200"),
        (("add", "web1", "--playbook", "--hang"), 2, "playbook"),
        (("clear", "--id", "ffffffff"), 1, "no faults"),
    ):
        done = lab.person.netemu("fault", arguments[0], "--name", lab.name, *arguments[1:],
                                 check=code)  # fmt: skip
        assert told in done.stderr
    assert faults(lab) == []


def test_a_program_and_a_lab_file_have_faults(person: Any) -> None:
    """A file's fault begins on the metadata clock; a program adds others, blocking and awaited."""
    script = """
import asyncio
FILE = {**ONE, "faults": [{"guests": "web1", "path": "*/InstanceInfo", "status": 500,
                           "at": "1h", "for": "1h"}]}
with new(FILE) as lab:
    def status():
        return lab.request("web1", "GET", "/metadata/v1/InstanceInfo").status
    seen = [status()]
    lab.down()
with new({**ONE, "faults": [{"hang": True}]}) as lab:  # from the start on, and it comes up
    print(len(lab.faults()))
with new(FILE) as lab:
    lab.advance("3601s")
    lab.until(lambda: status() == 500)
    lab.advance("1h")
    lab.until(lambda: status() == 200)
    lab.until(lambda: lab.faults() == [])
    lab.add_fault("web1", method="GET", status=429, lasting="1h")
    lab.until(lambda: status() == 429)
    lab.clear_faults("web1")
    lab.until(lambda: status() == 200)
    async def awaited():
        async with netemu.AsyncMaintenance(lab.name) as plan:
            (added,) = await plan.add_fault(["web1"], hang=True, delay=1)
            print([(guest, one.id == added, one.hang) for guest, one in await plan.faults()])
            await plan.clear_faults(ids=added)
    asyncio.run(awaited())
    lab.until(lambda: status() == 200)
    print(raised(lambda: lab.add_fault("web1", status=1), BadInput))
"""
    assert run(person, script) == [
        "1",
        "[('web1', True, True)]",
        "a fault: Expected `int` >= 400 - at `$.status`",
    ]


def test_what_a_guest_asks_is_recorded_and_who_approves(lab: RunningLab) -> None:
    """`netemu polls` shows each answer, with the events that it told; events say who approved."""
    url = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
    event = lab.maintenance("schedule", "web3", "--in", "1h", "--no-impact")["id"]

    def rows() -> list[dict[str, Any]]:
        said = lab.netemu("polls", "web3", "--json").stdout
        return [json.loads(line) for line in said.splitlines()]

    def told() -> bool:
        lab.exec("web3", "curl", "-s", "-H", "Metadata: true", url)
        return rows()[-1]["told"] == [event]

    wait_until(told)
    last = rows()[-1]
    assert (last["guest"], last["method"], last["status"], last["fault"]) == (
        "web3",
        "GET",
        200,
        None,
    )
    assert last["target"] == url.removeprefix("http://169.254.169.254")
    assert "scheduledevents" in lab.netemu("polls", "web3").stdout
    body = json.dumps({"StartRequests": [{"EventId": event}]})
    lab.exec("web3", "curl", "-s", "-H", "Metadata: true", "-d", body, url)
    (known,) = [one for one in lab.maintenance("list", "--history") if one["id"] == event]
    assert known["approved_by"] == "web3"
    assert known["approved"] == known["started"]
    said = [json.loads(line) for line in lab.netemu("events", "--json").stdout.splitlines()]
    assert [one.get("approved_by") for one in said if one.get("id") == event] == [None, "web3"]
    lab.maintenance("complete", event)
