"""A lab whose nodes fail at random moments while commands stream in. A program, run by a test.

argv: seed, moments, seconds. Prints as JSON what was acknowledged, and what there is afterwards; on
standard error, what it does when.
"""

import json
import random
import sys
import threading
import time
from typing import Any
from uuid import UUID

import msgspec

import netemu
from hostagent.controller import ControllerError, SyncController
from hostagent.model import Event, EventType
from netemu.client import labs
from netemu.client.maintenance import Maintenance
from netemu.errors import NetemuError, NotSo

NODES, WORKERS = 16, 4
FEWEST_RUNNING = 3
LOOKS = 20
SHAPE = {
    "nodes": {
        f"n{number}": {"fault_domain": number % 3, "guests": [f"g{number}"]}
        for number in range(NODES)
    }
}
EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"


class Worker(threading.Thread):
    """One who commands: schedules events, and cancels or approves those that were acknowledged.

    `orders` are the events by ID: their guest, and what was acknowledged, or only tried, last.
    """

    def __init__(self, lab: netemu.Lab, seed: str, until: float) -> None:
        super().__init__()
        self._lab = lab
        self._chance = random.Random(seed)
        self._until = until
        self.orders: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        while time.monotonic() < self._until:
            time.sleep(self._chance.expovariate(10))
            open_ones = [
                event_id for event_id, one in self.orders.items() if one["told"] == "schedule"
            ]
            if len(open_ones) > 3 and self._chance.random() < 0.5:
                verb = self._chance.choice(["cancel", "approve"])
                self._order(self._chance.choice(open_ones), verb)
            else:
                event_id = str(UUID(int=self._chance.getrandbits(128)))
                guest = self._chance.choice(self._lab.guests)
                self.orders[event_id] = {"guest": guest, "told": None, "tried": None}
                self._order(event_id, "schedule")

    def _order(self, event_id: str, verb: str) -> None:
        order = self.orders[event_id]
        order["tried"] = verb
        try:
            (node,) = (
                node["name"]
                for node in self._lab.status()["nodes"]
                for guest in node["guests"]
                if guest["name"] == order["guest"]
            )
            path = labs.agents(self._lab.name)[node]
            with SyncController.connect(path, timeout=1.0) as agent:
                if verb == "schedule":
                    kind = self._chance.choice([EventType.REBOOT, EventType.REDEPLOY])
                    agent.schedule([order["guest"]], kind, notice=3600.0, event_id=event_id)
                elif verb == "cancel":
                    agent.cancel(event_id)
                else:
                    agent.approve(event_id)
        except (ControllerError, NetemuError):
            return
        order["told"] = verb


def strike(lab: netemu.Lab, chance: random.Random, moments: int, seconds: float) -> None:
    """Have nodes fail at random moments, and some come back, sooner or later."""
    began = time.monotonic()
    failed: list[str] = []
    for moment in sorted(chance.uniform(0.3, seconds) for _ in range(moments)):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        if len(failed) >= NODES - FEWEST_RUNNING:
            bring_back(lab, failed.pop(0))
        elif failed and chance.random() < 0.15:  # perhaps before it is healed, or meanwhile
            bring_back(lab, failed.pop())
        # Those that have guests sooner than others.
        homes = [
            node["name"]
            for node in lab.status()["nodes"]
            if node["state"] == "running"
            for _ in range(1 + 2 * len(node["guests"]))
        ]
        node = chance.choice(homes)
        say(f"{moment:.3f} s: {node} fails")
        labs.fail_node(lab.name, node)
        failed.append(node)
    for node in failed:
        bring_back(lab, node)


def bring_back(lab: netemu.Lab, node: str) -> None:
    say(f"{node} comes back")
    labs.restore_node(lab.name, node)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def guests_of(lab: netemu.Lab) -> list[dict[str, Any]]:
    return [guest for node in lab.status()["nodes"] for guest in node["guests"]]


def answered(lab: netemu.Lab, guest: str) -> list[str] | None:
    """The IDs of the events that a guest is told of, as often as it is; None: it has no answer."""
    try:
        answer = lab.request(guest, "GET", EVENTS, headers={"Metadata": "true"}, timeout=1.0)
        return [one["EventId"].lower() for one in answer.json()["Events"]]
    except (NetemuError, KeyError):
        return None


def known(events: tuple[Event, ...] | list[Event]) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = msgspec.to_builtins(list(events))
    return told


def found(lab: netemu.Lab) -> dict[str, Any]:
    """What each agent knows, what the commands show, and what the guests are told."""
    agents = {}
    for node, path in labs.agents(lab.name).items():
        with SyncController.connect(path) as agent:
            agents[node] = {
                "guests": [one.guest.name for one in agent.guests()],
                "events": known(agent.events(history=True)),
            }
    events = known(Maintenance(lab.name).events(history=True))
    return {
        "status": lab.status(),
        "agents": agents,
        "events": events,
        "told": {guest: answered(lab, guest) for guest in lab.guests},
        "story": labs.happened(lab.name),
    }


def settled(lab: netemu.Lab) -> dict[str, Any]:
    """What there is, once two looks at it agree.

    What was approved late begins to have its effect a second later, and a guest on its way to
    another node would be seen at neither, or at both.
    """
    last: object = None
    for _ in range(LOOKS):
        look = found(lab)
        homes = [[one["name"], one["guests"]] for one in look["status"]["nodes"]]
        names = [[node, [one["name"] for one in guests]] for node, guests in homes]
        seen = names, look["agents"], look["events"], look["told"]
        if seen == last:
            return look
        last = seen
        time.sleep(1.5)
    raise NotSo(f"it does not come to rest: {json.dumps(look)}")


def main(seed: str, moments: int, seconds: float) -> None:
    with netemu.Lab(SHAPE, time_scale=0.02) as lab:
        until = time.monotonic() + seconds + 0.5
        workers = [Worker(lab, f"{seed}/{number}", until) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        strike(lab, random.Random(seed), moments, seconds)
        for worker in workers:
            worker.join()
        try:
            lab.until(lambda: all(one["state"] == "bound" for one in guests_of(lab)), timeout=30.0)
            lab.until(lambda: all(answered(lab, one) is not None for one in lab.guests))
        except NetemuError:
            say(f"{json.dumps(lab.status())}\n{lab.log()}")
            raise
        there = settled(lab)
        orders = {key: one for worker in workers for key, one in worker.orders.items()}
        json.dump({"orders": orders, **there}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
