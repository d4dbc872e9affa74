"""What a lab file and `netemu set` make guests be told of themselves, and a clock that is moved."""

import json
from typing import Any

import msgspec
import pytest

from hostagent.channel.requests import Placed
from netemu.wire import runtime_dir
from tests.conftest import Person, RunningLab
from tests.netemu.labs.frames import SEND
from tests.netemu.labs.test_lab_isolation import wait_until
from tests.netemu.labs.test_lab_maintenance import greps
from tests.netemu.labs.test_lab_rfc3927 import conflict

pytestmark = pytest.mark.lab

TOLD = """
properties: {region: northeurope, tags.team: web}
nodes:
  n1:
    fault_domain: 7
    availability_set: front
    properties: {zone: "2"}
    guests:
      - {name: a, update_domain: 3, properties: {vm_size: Standard_F2, tags.team: }}
      - {name: b, availability_set: back}
  n2: {guests: 1}
"""


GUESTS = """
import sys, msgspec
from hostagent.controller import SyncController
with SyncController.connect(sys.argv[1].replace("@", "\\0")) as agent:
    print(msgspec.json.encode(agent.guests()).decode())
"""


def placed(lab: RunningLab, node: int = 0) -> dict[str, Placed]:
    """What a node's agent knows of its guests."""
    address = runtime_dir.address(lab.person.labs / lab.name, runtime_dir.agent_socket(node))
    # As this person: an agent answers nobody else.
    asking = lab.person.start_python("-c", GUESTS, address.replace("\0", "@"))
    told, error = asking.communicate(timeout=30)
    assert asking.returncode == 0, error
    return {one.guest.name: one for one in msgspec.json.decode(told, type=list[Placed])}


def test_a_lab_file_says_what_guests_are_told_of_themselves(fresh_lab: Any) -> None:
    """A user writes properties for a lab, a node and a guest: agents know them, and addresses."""
    lab: RunningLab = fresh_lab(TOLD)
    held = {name: guest["address"] for name, guest in lab.guests().items()}
    a, b = (placed(lab)[name].guest for name in ("a", "b"))
    assert (a.update_domain, a.fault_domain, a.availability_set) == (3, 7, "front")
    assert (b.update_domain, b.fault_domain, b.availability_set) == (1, 7, "back")
    assert a.properties == {
        "region": "northeurope",
        "zone": "2",
        "vm_size": "Standard_F2",
        "mac": lab.mac("a"),
        "address": held["a"],
    }
    (c,) = (one.guest for one in placed(lab, 1).values())
    assert c.properties["tags.team"] == "web"
    assert c.properties["address"] == held[c.name]
    assert json.loads(lab.get("a")) == {"ID": "_a", "UD": "3", "FD": "7"}


def test_an_address_that_changes_is_told(fresh_lab: Any) -> None:
    """A user's guest loses its address to a stranger on its link, and is told its next one."""
    lab: RunningLab = fresh_lab("nodes: {n: {guests: [a]}}")
    before = lab.address("a")
    assert placed(lab)["a"].guest.properties["address"] == before
    # Somebody claims the address, and again: the guest gives it up (RFC 3927 section 2.5).
    claim = conflict(lab, "a")
    lab.python("n", SEND, "p1", claim, claim)
    wait_until(lambda: lab.guests()["a"]["state"] == "bound" and lab.address("a") != before)
    wait_until(lambda: placed(lab)["a"].guest.properties["address"] == lab.address("a"))


def test_properties_can_be_set_while_the_lab_runs(lab: RunningLab) -> None:
    """A user sets, looks at and takes back a guest's properties; a typing error changes nothing."""
    assert json.loads(lab.netemu("set", "web2", "--json").stdout) == {}
    before = placed(lab)["web2"].guest.properties
    done = lab.netemu("set", "web2", "tags.team=a=b", "vm_size=Standard_F2")
    assert done.stdout == "tags.team=a=b\nvm_size=Standard_F2\n"
    assert placed(lab)["web2"].guest.properties == {
        **before,
        "tags.team": "a=b",
        "vm_size": "Standard_F2",
    }
    assert placed(lab)["web1"].guest.properties.keys() == {"mac", "address"}
    for arguments, said in (
        (("web2", "vm_sise=x"), "did you mean vm_size"),
        (("web2", "vm_size=a b", "region=x"), "not possible"),
        (("web2", "vm_size"), "KEY=VALUE"),
        (("web2", "=x"), "KEY=VALUE"),
        (("web2", "region=x", "region=y"), "twice"),
        (("web2", "mac=02:00:00:00:00:01"), "the lab says this itself"),
        (("web9", "region=westus"), "no such guest"),
        (("web2", "tags.a=\udcff"), "UTF-8"),
        (("web2", "tags.a=" + "x" * 300), "not possible"),
    ):
        assert said in lab.netemu("set", *arguments, check=2).stderr
    assert lab.netemu("set", "web2").stdout == "tags.team=a=b\nvm_size=Standard_F2\n"
    lab.netemu("set", "web2", "tags.team=", "vm_size=", "region=")
    assert placed(lab)["web2"].guest.properties == before


def test_the_lab_file_is_checked_for_properties_that_there_are(
    person: Person, tmp_path: Any
) -> None:
    """A user misspells a property: `validate` and `up` say where, and what was meant."""
    path = person.labs / "wrong.yaml"
    path.write_text("nodes:\n  n:\n    guests:\n    - name: a\n      properties: {vm_sise: x}\n")
    try:
        for verb in ("validate", "up"):
            said = person.netemu(verb, str(path), check=2).stderr
            assert "line 5: nodes.n.guests[0].properties.vm_sise" in said
            assert "did you mean vm_size" in said
    finally:
        path.unlink()


def test_a_clock_that_is_moved_makes_a_notice_begin_start_and_end(fresh_lab: Any) -> None:
    """A user moves the clock, on all nodes, and sees a whole event without waiting for it."""
    lab: RunningLab = fresh_lab("nodes: {n1: {guests: [a]}, n2: {guests: [b]}}")

    def status() -> str:
        (event,) = lab.maintenance("list", "--history")
        return str(event["status"])

    event = lab.maintenance(
        "schedule", "a", "b", "--type", "reboot", "--duration", "2m", "--no-impact"
    )
    assert event["source"] == "Platform"
    assert not greps(lab, "a")
    for length, expected in (("10m30s", "Scheduled"), ("5m", "Started"), ("3m", "Completed")):
        done = lab.person.netemu("clock", "advance", length, "--name", lab.name)
        assert "s ahead" in done.stdout
        wait_until(lambda expected=expected: status() == expected)  # type: ignore[misc]
        for guest in ("a", "b"):
            wait_until(
                lambda guest=guest, expected=expected: (  # type: ignore[misc]
                    greps(lab, guest) is (expected != "Completed")
                )
            )
    shown = lab.person.netemu("clock", "show", "--name", lab.name, "--json")
    assert 1110 - 1 < json.loads(shown.stdout)["ahead"] < 1110 + 1
    lab.person.netemu("clock", "advance", "0", "--name", lab.name, check=2)
    lab.person.netemu("clock", "advance", "soon", "--name", lab.name, check=2)
    for length in ("11000d", "3660d", "9" * 400):  # ten years are the most
        said = lab.person.netemu("clock", "advance", length, "--name", lab.name, check=2).stderr
        assert "Traceback" not in said
    shown = lab.person.netemu("clock", "show", "--name", lab.name, "--json")
    assert json.loads(shown.stdout)["ahead"] < 1110 + 1


def test_hardware_that_fails_gives_no_notice(lab: RunningLab) -> None:
    """A user has hardware fail under guests of two nodes: the event has started at once."""
    event = lab.maintenance("schedule", "web1", "db1", "--type", "reboot", "--now", "--no-impact")
    assert event["status"] == "Started"
    assert sorted(event["guests"]) == ["db1", "web1"]
    wait_until(lambda: greps(lab, "web1") and greps(lab, "db1"))
    lab.maintenance("complete", event["id"])
    said = lab.maintenance("schedule", "web1", "--now", "--in", "1m", check=2).stderr
    assert "one or the other" in said


def test_an_event_of_the_users_own_can_be_approved(lab: RunningLab) -> None:
    """A user plans an event of his own with the least notice, and approves it for the guest."""
    event = lab.maintenance(
        "schedule", "web1", "--type", "preempt", "--source", "user", "--no-impact"
    )
    assert event["source"] == "User"
    assert event["status"] == "Scheduled"
    for _ in range(2):
        assert lab.maintenance("approve", event["id"])["status"] == "Started"
    lab.maintenance("complete", event["id"])
