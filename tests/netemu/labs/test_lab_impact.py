"""What events do to guests: they really happen, and end by themselves."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import Person, RunningLab
from tests.netemu.labs.following import Story
from tests.netemu.labs.frames import SEND, arp
from tests.netemu.labs.test_lab_isolation import METADATA, bridge_mac, listening, wait_until

pytestmark = pytest.mark.lab

# Each test has guests of its own here, and leaves the others alone.
LAB = """
properties: {tags.team: x}
nodes:
  n1:
    fault_domain: 0
    run: 'echo "boot of $NETEMU_GUEST"; exec sleep 1000'
    guests:
      - {name: rebooted, last_address: 169.254.66.6}
      - frozen
      - {name: dotted, run: 'while sleep 0.02; do echo .; done'}
      - redeployed
      - {name: settled, last_address: 169.254.77.7}
      - preempted
      - terminated
      - noticed
      - leaping
      - pressed
      - approving
      - bystander
  n2: {fault_domain: 7, guests: [{name: held, last_address: 169.254.77.7}, concerned]}
  n3: {fault_domain: 0, guests: [v1, v2, v3, v4, v5, v6]}
"""
# Counts aloud: who stands still says nothing.
COUNT = """
import itertools, time
for number in itertools.count():
    print(number, flush=True)
    time.sleep(0.02)
"""
TIME_SCALE = 0.04


@dataclass
class Watched:
    """A lab whose events are followed."""

    lab: RunningLab
    story: Story

    def now(self, *guests: str, kind: str = "reboot", **options: str) -> str:
        """Have an event start at once. Returns its ID."""
        return now(self.lab, *guests, kind=kind, **options)

    def ends(self, event_id: str, patience: float = 60.0) -> None:
        """Wait until the event has been completed."""
        self.story.until(lambda: "Completed" in self.story.statuses(event_id), patience)

    def passes(self, guest: str, *powers: str, patience: float = 60.0) -> None:
        """Wait until the guest has gone through these powers, and no others."""
        self.story.until(lambda: len(self.story.powers(guest)) >= len(powers), patience)
        assert self.story.powers(guest) == list(powers)


@pytest.fixture(scope="module")
def watched(person: Person) -> Iterator[Watched]:
    path = person.labs.with_suffix(".impact.yaml")
    path.write_text(LAB)
    try:
        person.netemu("up", str(path), "--name", "impact", "--time-scale", str(TIME_SCALE))
    finally:
        path.unlink()
    lab = RunningLab(person, "impact")
    with Story(lab) as story:
        yield Watched(lab, story)
    person.netemu("down", "impact")


def power(lab: RunningLab, guest: str) -> str:
    return str(lab.guests()[guest]["power"])


def node_of(lab: RunningLab, guest: str) -> str:
    return next(
        str(node["name"])
        for node in lab.status()["nodes"]
        for one in node["guests"]
        if one["name"] == guest
    )


def now(lab: RunningLab, *guests: str, kind: str = "reboot", **options: str) -> str:
    """Have an event start at once. Returns its ID."""
    given = [word for key, value in options.items() for word in (f"--{key}", value)]
    event = lab.maintenance("schedule", *guests, "--type", kind, "--now", *given)
    return str(event["id"])


def status_of(lab: RunningLab, event_id: str) -> str:
    listed = {one["id"]: one for one in lab.maintenance("list", "--history")}
    return str(listed[event_id]["status"])


def imds(lab: RunningLab, guest: str, path: str) -> Any:
    """What Azure's service says in the guest; None if nobody answers."""
    url = f"http://169.254.169.254/metadata/{path}"
    done = lab.exec(
        guest, "curl", "-sf", "--max-time", "2", "-H", "Metadata: true", url, check=None
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def compute(lab: RunningLab, guest: str) -> dict[str, Any]:
    told = imds(lab, guest, "instance/compute?api-version=2021-02-01")
    assert isinstance(told, dict)
    return told


def scheduled(lab: RunningLab, guest: str) -> dict[str, Any]:
    told = imds(lab, guest, "scheduledevents?api-version=2020-07-01")
    return told if isinstance(told, dict) else {"DocumentIncarnation": -1, "Events": []}


def is_silent(lab: RunningLab, guest: str) -> bool:
    """Whether the guard lets nothing pass at the guest's port."""
    port = f"p{lab.guests()[guest]['port_mark']}"
    rules = ("nft", "list", "set", "netdev", "guard", "frozen")
    return f'"{port}"' in lab.exec(node_of(lab, guest), *rules).stdout


def log_of(lab: RunningLab, guest: str) -> str:
    """What the guest's program has said so far."""
    return lab.netemu("logs", guest).stdout


def test_a_reboot_of_some_seconds(watched: Watched) -> None:
    """A user reboots a guest for 2 s: it is off, then boots with its address and program."""
    lab = watched.lab
    assert lab.address("rebooted") == "169.254.66.6"
    wait_until(lambda: log_of(lab, "rebooted") == "boot of rebooted\n")
    inside = lab.person.start("exec", "--name", lab.name, "rebooted", "--", "sleep", "1000")
    wait_until(lambda: lab.exec("rebooted", "pgrep", "-c", "sleep", check=None).stdout == "2\n")
    began = time.monotonic()
    event = watched.now("rebooted", duration="2s")
    assert inside.wait(60) != 0
    inside.communicate()
    watched.passes("rebooted", "off", "running")
    assert time.monotonic() - began > 2
    watched.ends(event)
    watched.story.until(lambda: watched.story.boots("rebooted") == 1)
    assert lab.address("rebooted") == "169.254.66.6"
    event = watched.now("rebooted", duration="1h")
    watched.passes("rebooted", "off", "running", "off")
    refused = lab.exec("rebooted", "true", check=1)
    assert refused.stderr == "netemu: rebooted is off: nothing can be run in it\n"
    lab.maintenance("complete", event)
    watched.passes("rebooted", "off", "running", "off", "running")
    watched.story.until(lambda: watched.story.boots("rebooted") == 2)
    wait_until(lambda: log_of(lab, "rebooted") == "boot of rebooted\n" * 3)
    assert '"_rebooted"' in lab.get("rebooted")
    assert watched.story.powers("bystander") == []


def test_a_frozen_guest_stands_still_and_goes_on(watched: Watched) -> None:
    """A user freezes a guest: its program halts, and its wire is silent; then both go on."""
    lab = watched.lab
    address, mac = lab.address("frozen"), lab.mac("frozen")
    counter = lab.start_python("frozen", COUNT)
    assert counter.stdout is not None
    try:
        assert counter.stdout.readline() == "0\n"
        with listening(lab, "n1", "br0") as heard:
            event = watched.now("frozen", kind="freeze", duration="1h")
            watched.passes("frozen", "frozen")
            # Somebody asks for its address: who is frozen does not answer.
            ask = arp(bridge_mac(lab, "n1"), sender_ip=METADATA, target_ip=address)
            before = len(heard)
            lab.python("n1", SEND, "br0", ask)
            assert is_silent(lab, "frozen")
            assert "frozen" in lab.exec("frozen", "true", check=1).stderr
        source = mac.replace(":", "")
        from_guest = [one for one in heard[before:] if one.split()[1][12:24] == source]
        assert from_guest == []
        lab.maintenance("complete", event)
        watched.passes("frozen", "frozen", "running")
        assert not is_silent(lab, "frozen")
        assert lab.address("frozen") == address
        assert '"_frozen"' in lab.get("frozen")
    finally:
        lab.exec("frozen", "pkill", "-f", "itertools", check=None)
        numbers = [int(line) for line in counter.communicate(timeout=60)[0].split()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_frozen_program_says_nothing_meanwhile(watched: Watched) -> None:
    """A user watches a guest's log while the guest is frozen: not a line comes."""
    lab = watched.lab
    wait_until(lambda: log_of(lab, "dotted") != "")
    event = watched.now("dotted", kind="freeze", duration="1h")
    watched.passes("dotted", "frozen")
    said = [""]

    def stands_still() -> bool:  # what it had said before may still be on its way
        said.append(log_of(lab, "dotted"))
        return said[-1] == said[-2]

    wait_until(stands_still)
    time.sleep(0.3)
    still = log_of(lab, "dotted")
    assert still == said[-1]
    lab.maintenance("complete", event)
    watched.passes("dotted", "frozen", "running")
    wait_until(lambda: len(log_of(lab, "dotted")) > len(still))


def test_a_redeployed_guest_is_the_same_one_elsewhere(watched: Watched) -> None:
    """A user redeploys a guest: another node and fault domain, the same MAC, address and IDs."""
    lab, story = watched.lab, watched.story
    before = compute(lab, "redeployed")
    incarnation = scheduled(lab, "redeployed")["DocumentIncarnation"]
    mac, address = lab.mac("redeployed"), lab.address("redeployed")
    assert before["platformFaultDomain"] == "0"
    event = watched.now("redeployed", kind="redeploy")
    watched.passes("redeployed", "off", "running")
    story.until(lambda: story.boots("redeployed") == 1)
    assert story.moves("redeployed") == [("n1", "n2")]
    assert node_of(lab, "redeployed") == "n2"
    after = compute(lab, "redeployed")
    assert after["platformFaultDomain"] == "7"
    assert (after["vmId"], after["tags"]) == (before["vmId"], before["tags"])
    assert (lab.mac("redeployed"), lab.address("redeployed")) == (mac, address)
    told = scheduled(lab, "redeployed")
    assert [(one["EventId"].lower(), one["EventStatus"]) for one in told["Events"]] == [
        (event, "Started")
    ]
    assert told["DocumentIncarnation"] > incarnation
    lab.person.netemu("clock", "advance", "--name", lab.name, "61s")
    watched.ends(event)
    wait_until(lambda: scheduled(lab, "redeployed")["Events"] == [])
    later = scheduled(lab, "redeployed")
    assert later["DocumentIncarnation"] > told["DocumentIncarnation"]
    assert log_of(lab, "redeployed") == "boot of redeployed\n" * 2


def test_an_address_that_is_taken_there_is_not_kept(watched: Watched) -> None:
    """A user redeploys a guest to where another has its address: each has its own there."""
    lab, story = watched.lab, watched.story
    assert lab.address("settled") == lab.address("held") == "169.254.77.7"
    watched.now("settled", kind="redeploy")
    story.until(lambda: story.boots("settled") == 1)
    assert story.moves("settled") == [("n1", "n2")]
    assert lab.address("settled") != lab.address("held") == "169.254.77.7"
    assert '"_settled"' in lab.get("settled")
    assert '"_held"' in lab.get("held")


def test_who_is_gone_stays_gone(watched: Watched) -> None:
    """A user has guests preempted and terminated: they are gone, and every command says so."""
    lab = watched.lab
    marks = {guest: lab.guests()[f"{guest}d"]["port_mark"] for guest in ("preempte", "terminate")}
    for kind, guest in (("preempt", "preempted"), ("terminate", "terminated")):
        event = watched.now(guest, kind=kind, duration="1s")
        watched.passes(guest, "off", "gone")
        assert lab.exec(guest, "true", check=1).stderr == (
            f"netemu: {guest} is gone: nothing can be run in it\n"
        )
        watched.ends(event)
        assert power(lab, guest) == "gone"
        port = f"p{marks[guest[:-1]]}"
        assert lab.exec("n1", "ip", "link", "show", port, check=None).returncode != 0
    gone = "preempted"
    said = lab.netemu("set", gone, "tags.a=b", check=1).stderr
    assert said == f"netemu: {gone} is gone: it was preempted or terminated\n"
    assert lab.netemu("reboot", gone, check=1).stderr == said
    refused = lab.maintenance("schedule", gone, "--in", "1m", check=1)
    assert f"not on this node: {gone}" in refused.stderr
    assert watched.story.powers(gone) == ["off", "gone"]
    assert '"_bystander"' in lab.get("bystander")


def test_a_notice_alone_does_nothing(watched: Watched) -> None:
    """A user gives notices with --no-impact: the guest is told, and runs on."""
    lab = watched.lab
    events = []
    for kind in ("reboot", "freeze", "redeploy", "terminate"):
        event = lab.maintenance(
            "schedule", "noticed", "--type", kind, "--now", "--duration", "2s", "--no-impact"
        )
        assert event["notice_only"]
        events.append(event["id"])
    told = {one["EventId"].lower() for one in scheduled(lab, "noticed")["Events"]}
    assert events[-1] in told
    for event_id in events:
        watched.ends(event_id)
    assert watched.story.of("noticed") == []
    assert node_of(lab, "noticed") == "n1"
    assert log_of(lab, "noticed") == "boot of noticed\n"


def test_a_whole_life_in_one_leap_of_the_clock(watched: Watched) -> None:
    """A user moves the clock past an event's start and end at once: the guest has been rebooted."""
    lab = watched.lab
    event = lab.maintenance("schedule", "leaping", "--in", "1h", "--duration", "1m")["id"]
    lab.person.netemu("clock", "advance", "--name", lab.name, "2h")
    watched.passes("leaping", "off", "running")
    watched.ends(event)
    assert status_of(lab, event) == "Completed"
    assert watched.story.statuses(event) == ["Scheduled", "Started", "Completed"]
    ended = "netemu: the guest's program has ended with signal 15\n"
    wait_until(lambda: log_of(lab, "leaping") == ended.join(["boot of leaping\n"] * 2))


def test_two_events_at_once(watched: Watched) -> None:
    """A user freezes a guest for long and reboots it meanwhile: it boots, and is frozen again."""
    freeze = watched.now("pressed", kind="freeze", duration="4s")
    watched.passes("pressed", "frozen")
    reboot = watched.now("pressed", duration="1s")
    watched.ends(reboot)
    watched.ends(freeze)
    watched.passes("pressed", "frozen", "off", "running", "frozen", "running")
    # It was frozen before it had an address, and claims it now.
    wait_until(lambda: watched.lab.guests()["pressed"]["state"] == "bound", 10)
    assert '"_pressed"' in watched.lab.get("pressed")


def test_one_guests_approval_starts_it_for_all(watched: Watched) -> None:
    """A guest approves an event that is another node's as well: both are rebooted at once."""
    lab, story = watched.lab, watched.story
    event = lab.maintenance("schedule", "approving", "concerned", "--in", "1h")["id"]
    body = json.dumps({"StartRequests": [{"EventId": event}]})
    url = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
    words = ("curl", "-sf", "-H", "Metadata: true", "-d", body, url)
    # On a busy machine curl may still be ending when it is rebooted.
    done = lab.exec("approving", *words, check=None)
    assert done.returncode in (0, 128 + signal.SIGKILL)
    for guest in ("approving", "concerned"):
        watched.passes(guest, "off", "running")
        wait_until(lambda guest=guest: story.boots(guest) == 1, 15)
    lab.person.netemu("clock", "advance", "--name", lab.name, "61s")
    watched.ends(event)
    assert status_of(lab, event) == "Completed"
    assert story.powers("bystander") == story.powers("held") == []


def test_events_are_told_as_they_happen_until_the_lab_ends(fresh_lab: Any) -> None:
    """A user follows the events as NDJSON: in order, at once, and it ends with the lab."""
    lab = fresh_lab("nodes: {n1: {guests: [a]}}")
    following = lab.person.start("events", lab.name, "--follow", "--json")
    with Story(lab) as beside:
        event = now(lab, "a", duration="1s")
        beside.until(lambda: beside.boots("a") == 1 and "Completed" in beside.statuses(event))
        kept = lab.netemu("events", "--json").stdout
        lab.person.netemu("down", lab.name)
    out, err = following.communicate(timeout=60)
    assert (following.returncode, err) == (0, "")
    assert out == kept
    told = [json.loads(line) for line in out.splitlines()]
    assert told == beside.entries
    assert [one["time"] for one in told] == sorted(one["time"] for one in told)
    own = [one.get("status") or one.get("power") or one.get("state") for one in told]
    assert [one for one in own if one != "Completed"] == [
        "Scheduled",
        "Started",
        "off",
        "running",
        "bound",
    ]
    assert own.index("Completed") > own.index("off")
    (off,) = [one for one in told if one.get("power") == "off"]
    assert (off["guest"], off["node"], off["events"]) == ("a", "n1", [event])


VANDALISMS = {
    "deletes eth0": "ip link delete eth0",
    "renames eth0": "ip link set eth0 down; ip link set eth0 name lan7",
    "changes its MAC": "ip link set eth0 down; ip link set eth0 address 02:00:00:00:be:ef",
    "has eth0 down": "ip link set eth0 down",
    "gives eth0 another's address": "ip address flush dev eth0; "
    "ip address add 169.254.9.9/16 dev eth0",
    "moves eth0 to a namespace of its own": "unshare -n sleep 1000 & "
    "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; ip link set eth0 netns $! && exit; done",
}


def test_who_has_done_away_with_its_interface_is_whole_after_a_reboot(watched: Watched) -> None:
    """A guest's root breaks eth0 in every way; `netemu reboot` brings it back as it was."""
    lab, story = watched.lab, watched.story
    macs = {name: one["mac"] for name, one in lab.guests().items()}

    def break_and_mend(guest: str, what: str) -> None:
        lab.exec(guest, "sh", "-c", f"({VANDALISMS[what]}) >/dev/null 2>&1", check=None)
        assert f'"_{guest}"' not in lab.get(guest), what
        lab.netemu("reboot", guest)
        story.until(lambda: story.boots(guest) == 1)
        (link,) = json.loads(lab.exec(guest, "ip", "-j", "link", "show", "eth0").stdout)
        assert link["address"] == macs[guest], what
        wait_until(lambda: f'"_{guest}"' in lab.get(guest))

    with ThreadPoolExecutor(len(VANDALISMS)) as all_at_once:
        guests = (f"v{number}" for number in range(1, len(VANDALISMS) + 1))
        list(all_at_once.map(break_and_mend, guests, VANDALISMS))
    assert '"_bystander"' in lab.get("bystander")
