"""Labs whose commands are kept in a store outside their machine."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netemu.bench import machines_of_a_lab
from netemu.wire.store_address import parse
from tests.conftest import Person, RunningLab
from tests.netemu.etcd.conftest import Servers, open_servers
from tests.netemu.labs.frames import SEND
from tests.netemu.labs.test_lab_isolation import listening, wait_until
from tests.netemu.labs.test_lab_tenant import in_others_names, link, link_local

__all__ = ["open_servers"]
pytestmark = pytest.mark.lab

# web2 serves its interpreter, a file of some megabytes, to tenants.
SERVED = Path(os.path.realpath(sys.executable))
SERVE = [sys.executable, "-m", "http.server", "8080", "--directory", str(SERVED.parent)]
WEB = {"availability_set": "s", "tenant": True}
TWO_MACHINES = json.dumps(
    {
        "nodes": {
            "n1": {"guests": [{"name": "web1", **WEB}]},
            "n2": {"machine": "other", "guests": [{"name": "web2", **WEB, "run": SERVE}]},
        }
    }
)
FAST = ("--time-scale", "0.02")


@pytest.fixture
def other(person: Person, place: Path) -> Iterator[Person]:
    """The same person, on another machine: labs are not seen from one to the other."""
    there = replace(person, environment={**person.environment, "NETEMU_RUNTIME_DIR": str(place)})
    yield there
    there.netemu("down", "--all", check=None)


def address(servers: Servers) -> str:
    return f"etcd://{','.join(map(str, servers.endpoints))}"


def elsewhere(lab: RunningLab) -> tuple[str, list[str]]:
    """The state and the guests of the node that the lab has on its other machine."""
    (node,) = lab.status()["elsewhere"]
    return node["state"], node["guests"]


def here(lab: RunningLab) -> dict[str, str]:
    """The guests on this machine, and the states of their claims."""
    nodes = lab.status()["nodes"]
    return {guest["name"]: guest["state"] for node in nodes for guest in node["guests"]}


def acts_on_the_whole_lab(lab: RunningLab, theirs: RunningLab) -> None:
    """Faults and links of guests on both machines, by one command, and who is seen by `top`."""
    person, other, named = lab.person, theirs.person, ("--name", lab.name)

    def listed(where: Person, what: str) -> list[str]:
        told = json.loads(where.netemu(what, "list", "--json", *named).stdout)
        return sorted(one["guest"] for one in told)

    person.netemu("fault", "add", "web1", "web2", "--status", "500", *named)
    wait_until(lambda: listed(person, "fault") == ["web1", "web2"])
    answer = theirs.exec("web2", "curl", "-sw%{http_code}", "169.254.169.254/")
    assert "500" in answer.stdout
    person.netemu("fault", "clear", *named)
    wait_until(lambda: listed(other, "fault") == [])
    person.netemu("link", "n1", "n2", "--delay", "1ms", *named)
    assert listed(other, "link") == ["web1", "web2"]
    nodes = json.loads(other.netemu("top", "--json", *named).stdout)["nodes"]
    (seen,) = (node for node in nodes if node["name"] == "n1")
    assert (seen["machine"], seen["guests"][0]["state"]) == ("first", "bound")
    person.netemu("link", "--clear", *named)
    assert listed(other, "link") == []


def is_served(lab: RunningLab) -> bool:
    """Whether web1 is served by web2, on the tenant network, all of a large file."""
    url = f"http://web2:8080/{SERVED.name}"
    got = lab.exec("web1", "curl", "-so/dev/null", "-w%{size_download}", "-m20", url, check=None)
    return got.stdout == str(SERVED.stat().st_size)


def nothing_forged_crosses(lab: RunningLab, theirs: RunningLab) -> None:
    """web1 speaks as others, and link-local, by eth1: web2 hears only what it may say."""
    source, target = link(lab, "web1")["address"], link(theirs, "web2")["address"]
    honest, forged = in_others_names(source, target)
    forged += link_local(source, target, lab.address("web1"), theirs.address("web2"))
    with listening(theirs, "web2", "eth1") as heard:
        lab.python("web1", SEND, "eth1", *forged, *honest)
        wait_until(lambda: {f"in {one}" for one in honest} <= set(heard))
    assert not [one for one in forged if f"in {one}" in heard]


def test_a_lab_is_one_on_two_machines(person: Person, other: Person, open_servers: Servers) -> None:
    """A user begins a lab on one machine and joins it on another, which is lost: its guest boots
    on the other, with its events, and stays there when the machine comes back."""
    store = ("--store", address(open_servers))
    joining = ("join", "spread", *store, "--machine", "other")
    refused = other.netemu(*joining, check=1)
    assert "spread: no such lab has begun in etcd://127.0.0.1:" in refused.stderr
    up = ("up", "-", "--name", "spread", *FAST, *store, "--machine", "first")
    begun = person.netemu(*up, stdin=TWO_MACHINES)
    assert begun.stdout == "spread: up (1 node, 1 guest of 2 nodes, on machine first)\n"
    lab, theirs = RunningLab(person, "spread"), RunningLab(other, "spread")
    try:
        assert elsewhere(lab)[0] == "away"
        assert other.netemu(*joining[:-1], "nobody", check=2).stderr == (
            "netemu: spread: has no nodes for machine nobody; it has for other, the first\n"
        )
        other.netemu(*joining)
        wait_until(lambda: elsewhere(lab) == ("there", ["web2"]))
        wait_until(lambda: elsewhere(theirs) == ("there", ["web1"]))
        events = "/metadata/scheduledevents?api-version=2020-07-01"
        planned = lab.maintenance("schedule", "web2", "--in", "1h", "--duration", "1s")
        for one, guest in ((lab, "web1"), (theirs, "web2")):
            told = one.exec(guest, "curl", "-s", "-HMetadata:true", f"169.254.169.254{events}")
            assert planned["id"] in told.stdout.lower()
        theirs.maintenance("start", planned["id"])
        wait_until(lambda: lab.maintenance("list", "--history")[0]["status"] == "Completed")
        wait_until(lambda: '"_web2"' in theirs.get("web2"))
        wait_until(lambda: is_served(lab))
        refused = lab.exec("web2", "true", check=1)
        where = "web2: is on machine other, node n2: that can only be done there"
        assert where in refused.stderr
        person.netemu("set", "web2", "tags.a=b", "--name", "spread")
        assert "tags.a" in theirs.person.netemu("set", "web2", "--name", "spread").stdout
        refused = person.netemu("set", "web2", "tags.a=b", "nothing=1", "--name", "spread", check=2)
        assert "nothing" in refused.stderr
        person.netemu("node", "fail", "n2", "--name", "spread")
        assert theirs.status()["nodes"][0]["state"] == "failed"
        person.netemu("node", "restore", "n2", "--name", "spread")
        wait_until(lambda: here(theirs) == {"web2": "bound"})
        person.netemu("reboot", "web2", "--name", "spread")
        refused = person.netemu("logs", "web2", "--name", "spread", check=1)
        assert "web2: is on machine other, node n2: that can only be done there" in refused.stderr
        theirs.person.netemu("clock", "advance", "1h", "--name", "spread")
        wait_until(
            lambda: "3600 s ahead" in person.netemu("clock", "show", "--name", "spread").stdout
        )
        if person.kind == "root":  # of the two, each shows a half: both would take as long again
            acts_on_the_whole_lab(lab, theirs)
            nothing_forged_crosses(lab, theirs)
            return
        planned = lab.maintenance("schedule", "web2", "--in", "5h", "--duration", "1s")
        os.kill(theirs.status()["supervisor"], signal.SIGKILL)
        wait_until(lambda: elsewhere(lab)[0] == "away")
        refused = person.netemu("maintenance", "schedule", "web2", "--name", "spread", check=1)
        assert "web2: its node n2 is on another machine, which is away" in refused.stderr
        wait_until(lambda: here(lab) == {"web1": "bound", "web2": "bound"})
        told = person.netemu("events", "--name", "spread")
        assert "machine other: lost; elsewhere: web2" in told.stdout
        wait_until(lambda: is_served(lab))
        told = lab.exec("web2", "curl", "-s", "-HMetadata:true", f"169.254.169.254{events}")
        assert planned["id"] in told.stdout.lower()
        other.netemu(*joining)
        wait_until(lambda: elsewhere(lab) == ("there", []))
        refused = theirs.exec("web2", "true", check=1)
        assert "web2: is on machine first, node n1: that" in refused.stderr
        lab.maintenance("cancel", planned["id"])
        assert other.netemu("leave", "spread").stdout == "spread: left\n"
        wait_until(lambda: elsewhere(lab)[0] == "away")
    finally:
        person.netemu("down", "spread")


def test_a_lab_goes_on_while_its_store_is_away(person: Person, open_servers: Servers) -> None:
    """A user's store is away: guests are answered, commands refused, and later taken again."""
    store = address(open_servers)
    person.netemu("up", "--name", "stored", *FAST, "--store", store)
    lab = RunningLab(person, "stored")
    try:
        event = lab.maintenance("schedule", "web1", "--type", "freeze", "--in", "1h", "--no-impact")
        assert lab.status()["store"] == {"servers": store, "state": "there"}
        for number in range(3):
            open_servers.signal(number, signal.SIGSTOP)
        try:
            wait_until(lambda: lab.status()["store"]["state"] == "away")
            refused = person.netemu("maintenance", "schedule", "web1", "--name", "stored", check=1)
            assert "no command is taken: the store does not answer: 127.0.0.1:" in refused.stderr
            refused = person.netemu("set", "--name", "stored", "web1", "tags.a=b", check=1)
            assert "web1: no command is taken" in refused.stderr
            assert '"_web1"' in lab.get("web1")
            shown = person.netemu("status", "stored").stdout
            assert "store: away, so no command is taken: " in shown
        finally:
            for number in range(3):
                open_servers.signal(number, signal.SIGCONT)
        wait_until(lambda: lab.status()["store"]["state"] == "there")
        assert lab.maintenance("cancel", event["id"])["status"] == "Cancelled"
        told = person.netemu("events", "--name", "stored").stdout
        assert told.index("store: away (") < told.index("store: back")
        assert all(node["state"] == "running" for node in lab.status()["nodes"])
    finally:
        person.netemu("down", "stored")


def test_commands_are_measured_on_one_machine_and_on_three(open_servers: Servers) -> None:
    """A user measures a store of servers that run already; no command is refused."""
    job = machines_of_a_lab.Job(rounds=1, warm_up=0, alone=3, at_once=9, places=20)
    report = machines_of_a_lab.run(job, parse(address(open_servers), machine="here"))
    assert set(report.samples) == {"1 machine", "3 machines"}
    assert all(value > 0 for (sample,) in report.samples.values() for value in sample.values())
    (told,) = report.notes
    assert told.startswith("20 guests' places: kept in")
