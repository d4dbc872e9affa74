"""One seed's run of a lab on three machines, under faults of machines and of the store's servers.

`python -m netemu.simulation.machine_run FIRST COUNT [MUTANT]` prints a line of JSON for each seed.
"""

import asyncio
import hashlib
import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

FAULTS: Final = 150.0
"""Virtual seconds under faults; then so many without."""
QUIET: Final = 90.0
_POLLED_EVERY: Final = 0.1
# How long a user repeats a command that nobody has answered.
_REPEATED_FOR: Final = 60.0


class Judge:
    """What may never happen. Checkers are told apart by their names."""

    def __init__(self, lab: Any) -> None:
        self.breaches: list[tuple[str, str]] = []
        self.acknowledged: dict[str, str] = {}  # events and their guests
        self._lab = lab
        self._seen: dict[str, int] = {}  # the last incarnation that a guest was told
        self._as_of: dict[str, tuple[str, int]] = {}  # by guest: on which machine, what it knew

    def look(self) -> None:
        for guest in self._lab.guests:
            found = self._lab.on(guest)
            if len(found) > 1:
                told = ", ".join(one.name for one in found)
                self._breach("AnsweredOnce", f"{guest} is answered on {told}")
            for one in found:
                repository = one.agents.repository
                state = one.name, repository.sequence
                if self._as_of.get(guest) == state:
                    continue
                self._as_of[guest] = state
                placed = repository.placed(guest)
                if placed is None:
                    continue
                if placed.incarnation < self._seen.get(guest, 0):
                    self._breach("NeverBack", f"{guest} is told {placed.incarnation} after more")
                self._seen[guest] = placed.incarnation

    def end(self) -> None:
        for guest in self._lab.guests:
            found = self._lab.on(guest)
            if len(found) != 1:
                self._breach("Lively", f"{guest} is answered on {[one.name for one in found]}")
        events = {
            machine: {one.id for one in machine.agents.repository.events()}
            for machine in {one for guest in self._lab.guests for one in self._lab.on(guest)}
        }
        for event, guest in self.acknowledged.items():
            for machine in self._lab.on(guest):
                if event not in events[machine]:
                    self._breach("Acknowledged", f"{event} of {guest} is not on {machine.name}")
        for problem in self._lab.loop.problems:
            told = f"{problem.get('message')}: {problem.get('exception')!r}"
            self._breach("NothingHidden", told)

    def _breach(self, checker: str, text: str) -> None:
        if len(self.breaches) < 20:
            self.breaches.append((checker, f"at {self._lab.loop.time():.1f}: {text}"))


class Striker:
    """Draws faults from the seed, and lets each end by itself."""

    def __init__(self, lab: Any, seed: int) -> None:
        self.done: list[str] = []
        self._lab = lab
        self._draw = random.Random(f"{seed}/faults")
        self._struck: set[str] = set()

    async def run(self, seconds: float) -> None:
        loop = self._lab.loop
        end = loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            while loop.time() < end:
                await asyncio.sleep(self._draw.uniform(2.0, 18.0))
                whole = [one for one in self._lab.machines if one not in self._struck]
                if len(whole) > 1 and self._draw.random() < 0.8:
                    group.create_task(self._strike(self._draw.choice(whole)))
                else:
                    self._note("no leader")
                    self._lab.servers.elect(self._draw.uniform(0.5, 4.0))

    async def _strike(self, name: str) -> None:
        from netemu.simulation.servers import Link

        machine, how = (
            self._lab.machines[name],
            self._draw.choice(
                ("cut", "cut", "deaf", "losing", "lied to", "pause", "slow", "slow", "kill")
            ),
        )
        self._struck.add(name)
        self._note(f"{how} {name}")
        seconds = self._draw.choice((self._draw.uniform(1, 8), self._draw.uniform(10, 40)))
        if how == "kill":
            machine.kill()
            await asyncio.sleep(seconds)
            machine.begin()
        elif how == "pause":
            machine.process.pause()
            await asyncio.sleep(seconds)
            machine.process.go_on()
        elif how == "lied to":
            machine.client.lied_to = True
            await asyncio.sleep(seconds)
            machine.client.lied_to = False
        elif how == "slow":  # and stopped, most likely while it waits for an answer
            machine.client.link = Link.SLOW
            await asyncio.sleep(self._draw.uniform(1.0, 5.0))
            machine.process.pause()
            await asyncio.sleep(seconds)
            machine.process.go_on()
            machine.client.link = Link.WHOLE
        else:
            machine.client.link = Link[how.upper()]
            await asyncio.sleep(seconds)
            machine.client.link = Link.WHOLE
        self._note(f"{name} is whole")
        self._struck.discard(name)

    def _note(self, what: str) -> None:
        self.done.append(f"{self._lab.loop.time():.1f} {what}")


class Users:
    """Plan events on whichever machine they are, and repeat what nobody has answered."""

    def __init__(self, lab: Any, judge: Judge, seed: int) -> None:
        self.commands = 0
        self._lab, self._judge = lab, judge
        self._draw = random.Random(f"{seed}/users")

    async def run(self) -> None:
        from netemu.simulation import seams

        while True:
            await asyncio.sleep(self._draw.uniform(0.2, 1.5))
            machine = self._draw.choice(list(self._lab.machines.values()))
            if machine.guests is not None:
                self.commands += 1
                guest = self._draw.choice(self._lab.guests)
                machine.soon(self._plan(machine, guest, str(seams.uuid(self._draw))))

    async def _plan(self, machine: Any, guest: str, event: str) -> None:
        from hostagent.controller import calls
        from hostagent.model import EventType
        from netemu.errors import NotSo
        from netemu.simulation.machines import HOMES
        from netemu.supervisor.control.store import AgentRefuses

        loop = self._lab.loop
        node, end = HOMES[self._lab.place_of(guest)], loop.time() + _REPEATED_FOR
        plan = calls.schedule(
            [guest], EventType.FREEZE, notice=3600.0, event_id=event, command_id=event
        )
        while loop.time() < end:
            try:
                await machine.store.append(node, plan)
            except AgentRefuses as error:
                if not error.in_doubt:
                    return
            except NotSo:
                pass
            else:
                self._judge.acknowledged[event] = guest
                return
            await asyncio.sleep(0.5)


async def story(loop: Any, seed: int, directory: Path, began: float) -> Any:
    """A lab comes up, is struck for a while, and is left in peace until it is judged."""
    from netemu.simulation import seams
    from netemu.simulation.machines import Machines
    from netemu.simulation.run import Outcome

    lab = Machines(loop, seed, directory)
    seams.install(loop, lab.wall, seed)
    judge, striker = Judge(lab), Striker(lab, seed)
    users = Users(lab, judge, seed)
    first = loop.time()
    lab.machines["a"].begin()
    await asyncio.sleep(2.0)
    for name in ("b", "c"):
        lab.machines[name].begin()
    await asyncio.sleep(5.0)

    async def poll() -> None:
        while True:
            judge.look()
            await asyncio.sleep(_POLLED_EVERY)

    polling = asyncio.create_task(poll())
    planning = asyncio.create_task(users.run())
    await striker.run(FAULTS)
    planning.cancel()
    await asyncio.sleep(QUIET)
    polling.cancel()
    judge.end()
    trace = json.dumps([lab.event_log.entries(), striker.done], default=str)
    return Outcome(
        seed=seed,
        breaches=judge.breaches,
        virtual=loop.time() - first,
        real=time.process_time() - began,
        commands=len(judge.acknowledged),
        polls=int(FAULTS / _POLLED_EVERY),
        faults=striker.done,
        digest=hashlib.sha256(trace.encode()).hexdigest(),
    )


def main() -> None:
    """Run seeds one after the other, until nobody reads the output any more."""
    from netemu.simulation import machine_mutants, mutants

    first, count, *planted = sys.argv[1:]
    for name in planted:
        mutants.plant(machine_mutants.BY_NAME[name])
    from netemu.simulation.run import forked

    for seed in range(int(first), int(first) + int(count)):
        try:
            told = json.dumps(asdict(forked(seed, story)))
            print(told, flush=True)  # noqa: T201  to the caller
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
