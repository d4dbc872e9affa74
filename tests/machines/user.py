"""Uses the lab on one machine: polls its guests, and plans events of any guest, until it is killed.

`python -m tests.machines.user OUT MACHINE`: each line that it writes is what happened, in JSON. It
is told nothing of faults.
"""

import json
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from netemu.client import labs
from netemu.client.dialler import Dialler, request
from netemu.client.maintenance import Maintenance, schedule
from netemu.errors import NetemuError

LAB = "machines"
_AT_ONCE = 8
# Of one guest, and between commands.
_POLLED_EVERY, _PLANNED_EVERY = 0.25, 0.3
_PATIENCE = 0.3


class User:
    def __init__(self, out: str, machine: str) -> None:
        self._machine = machine
        self._file = Path(out).open("a")  # noqa: SIM115  as long as this process
        self._lock = threading.Lock()
        self._guests: dict[str, int] = {}  # by name: a descriptor of its namespace
        self._all: list[str] = []
        self._dialler: Dialler | None = None

    def write(self, what: str, **details: Any) -> None:
        with self._lock:
            told = {"what": what, "machine": self._machine, **details}
            self._file.write(json.dumps(told) + "\n")
            self._file.flush()

    def look(self) -> None:
        """Know the guests that are here, as the lab says; while it does not, those it said last."""
        while True:
            try:
                told = labs.status(LAB)
                if self._dialler is None:
                    self._dialler = Dialler().start(labs.enter(LAB, None)["user"])
                here = {
                    guest["name"]
                    for node in told["nodes"]
                    for guest in node["guests"]
                    if guest["power"] == "running"
                }
                elsewhere = [one for node in told.get("elsewhere", ()) for one in node["guests"]]
                self._all = sorted({*here, *elsewhere})
                for name in here - self._guests.keys():
                    namespaces = labs.enter(LAB, name)
                    self._guests[name] = namespaces.pop("net")
                    for one in namespaces.values():
                        os.close(one)
                for name in self._guests.keys() - here:
                    os.close(self._guests.pop(name))
            except (NetemuError, OSError):
                if LAB not in labs.running():  # it may come again
                    self._guests.clear()
                    self._dialler = None
            time.sleep(0.5)

    def poll(self) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while True:
                begun = time.monotonic()
                list(pool.map(self._ask, list(self._guests)))
                time.sleep(max(0.02, begun + _POLLED_EVERY - time.monotonic()))

    def _ask(self, guest: str) -> None:
        dialler, net = self._dialler, self._guests.get(guest)
        if dialler is None or net is None:
            return
        asked = time.monotonic()
        try:
            answer = request(
                dialler.socket(net), "GET", "/metadata/v1/InstanceInfo",
                headers={"Metadata": "true"}, body=None, timeout=_PATIENCE,
            )  # fmt: skip
        except (NetemuError, OSError):
            return
        if answer.status == 200:
            self.write("answered", guest=guest, asked=asked, told=time.monotonic())

    def plan(self) -> None:
        draw, number = random.Random(self._machine), 0
        while True:
            time.sleep(_PLANNED_EVERY)
            if not self._all:
                continue
            guest, number = draw.choice(self._all), number + 1
            call = schedule(
                guest, "freeze", notice=36_000, duration=1.0, impact=False,
                description=f"{self._machine}-{number}",
            )  # fmt: skip
            try:
                event = Maintenance(LAB).make(call)
            except NetemuError as error:
                self.write("refused", guest=guest, why=str(error)[:200])
            else:
                self.write("acknowledged", guest=guest, id=event.id, name=event.description)


def main() -> None:
    user = User(*sys.argv[1:])
    for duty in (user.look, user.poll):
        threading.Thread(target=duty, daemon=True).start()
    user.plan()


if __name__ == "__main__":
    main()
