"""Defects to plant in the code, one at a time, each of which its checker has to catch.

A mutant is a text in a module and what takes its place. The module is changed as it is imported,
in a process that runs nothing else; no file changes. A mutant whose text is no longer there is an
error: the table would claim what is not tried.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

from netemu.errors import BadInput


class Mutant(NamedTuple):
    """A defect: in `module` (a dotted name) `old` becomes `new`; `caught_by` names checkers."""

    name: str
    module: str
    old: str
    new: str
    caught_by: tuple[str, ...]


_AGENT, _REPOSITORY = "hostagent.agent", "hostagent.repository"
_COMMANDS, _REPLICA = "hostagent.commands", "hostagent.channel.replica"
_RELOCATION = "netemu.supervisor.control.relocation"
_MOVES = "netemu.supervisor.control.moves"
_PLACEMENT = "netemu.supervisor.control.placement"
_IMPACT, _FEEDS = "netemu.supervisor.control.impact", "netemu.supervisor.control.agent_feeds"

ALL: Final[Sequence[Mutant]] = (
    Mutant(
        "acknowledged-before-the-commit",
        "hostagent.database",
        'self._db.execute("RELEASE one" if inner else "COMMIT")',
        "lost = self._db.total_changes > 60\n"
        '            last = "ROLLBACK" if lost else "COMMIT"\n'
        '            self._db.execute("RELEASE one" if inner else last)',
        ("Acknowledged", "Feed", "OnOneNode", "Lively"),
    ),
    Mutant(
        "incarnation-not-carried",
        _REPOSITORY,
        "incarnation = max(one.incarnation, self._floor(one.guest.name)) + 1",
        "incarnation = self._floor(one.guest.name) + 1",
        ("NeverBack",),
    ),
    Mutant(
        "no-floor-for-a-guest-that-returns",
        _REPOSITORY,
        "incarnation = max(one.incarnation, self._floor(one.guest.name)) + 1",
        "incarnation = one.incarnation",
        ("NeverBack", "SameBytes"),
    ),
    Mutant(
        "same-incarnation-for-another-document",
        _REPOSITORY,
        "                counts[name] += 1\n",
        "                counts[name] += 0\n",
        ("SameBytes",),
    ),
    Mutant(
        "events-not-carried-to-the-new-node",
        _COMMANDS,
        "        deltas += repository.join(event, here)\n",
        "        pass\n",
        ("Acknowledged",),
    ),
    Mutant(
        "starts-before-its-time",
        "hostagent.model",
        "        return event.not_before\n    if event.status",
        "        return event.not_before - 5\n    if event.status",
        ("NotEarly",),
    ),
    Mutant(
        "approval-answered-before-it-is-stored",
        "hostagent.responder.approvals",
        "        batch = _Batch(guest, result)\n",
        '        result("done")\n        batch = _Batch(guest, lambda _: None)\n',
        ("NotEarly",),
    ),
    Mutant(
        "advance-is-relative",
        _COMMANDS,
        "            _check_clock(to)\n",
        "            to += repository.clock_offset if command.to is not None else 0\n"
        "            _check_clock(to)\n",
        ("OneClock", "NotEarly", "Acknowledged"),
    ),
    Mutant(
        "clock-not-moved-on-restore",
        _RELOCATION,
        "        await self._store.settle(node, calls.advance_to(self._watching.clock_offset))\n",
        "",
        ("OneClock",),
    ),
    Mutant(
        "gap-not-noticed",
        _REPLICA,
        "if self._parts or message.sequence != self.sequence + 1:",
        "if self._parts:",
        ("Feed", "Acknowledged", "NeverBack", "SameBytes", "OnOneNode", "Lively"),
    ),
    Mutant(
        "heartbeat-gap-not-noticed",
        _REPLICA,
        "if self._parts or message.sequence != self.sequence:",
        "if self._parts:",
        ("Feed", "Acknowledged", "Lively", "NotEarly"),
    ),
    Mutant(
        "feed-never-joined-again",
        "hostagent.subscription",
        "        await asyncio.sleep(delay)\n",
        "        await asyncio.sleep(3600)\n",
        ("Lively", "Acknowledged"),
    ),
    Mutant(
        "healed-before-the-old-node-is-dead",
        "netemu.supervisor.nodes.node_services",
        "                while any(service.pid is not None for service in self.services):\n",
        "                while False:\n",
        ("Acknowledged", "NothingHidden", "NeverBack", "Lively", "Feed", "SameBytes"),
    ),
    Mutant(
        "evacuation-tried-once",
        _RELOCATION,
        "        return waiting and now >= self._retries.get(host.name, (0.0, 0.0))[0]",
        "        return waiting and host.name not in self._retries",
        ("Lively",),
    ),
    Mutant(
        "silent-node-not-noticed",
        _RELOCATION,
        "                if silent < SILENCE:\n",
        "                if not host.failed or silent < SILENCE:\n",
        ("Lively", "NothingHidden"),
    ),
    Mutant(
        "guest-answered-as-its-neighbour",
        "hostagent.responder.knowledge",
        "return self._view(self._by_port.get(mark))",
        "return self._view(self._by_port.get(mark + 1) or self._by_port.get(mark))",
        ("Itself",),
    ),
    Mutant(
        "event-told-in-part",
        "hostagent.dialects.azure_events",
        '"Resources": [prefix + name for name in event.guests],',
        '"Resources": [prefix + name for name in event.guests[:1]],',
        ("Whole",),
    ),
    Mutant(
        "setting-acknowledged-and-not-told",
        _PLACEMENT,
        "            await self._store.settle(node, calls.place([placed]), patient=False)\n"
        "            self._told[node][guest] = placed\n",
        "            self._told[node][guest] = placed\n",
        ("Acknowledged",),
    ),
    Mutant(
        "old-agent-keeps-the-guest",
        _MOVES,
        "            left = await self._placement.withdraw(host.name, (name,), command_id)\n",
        "",
        ("OnOneNode",),
    ),
    Mutant(
        "late-events-do-not-follow",
        _MOVES,
        "            if left is not None:\n",
        "            if False:\n",
        ("Acknowledged", "NeverBack", "FaultsKept"),
    ),
    Mutant(
        "late-faults-do-not-follow",
        _MOVES,
        ", faults=left.faults)",
        ")",
        ("FaultsKept",),
    ),
    Mutant(
        "faults-that-were-cleared-come-back",
        "hostagent.guest_rows",
        "if one.id in both or one.id not in before:",
        "if True:",
        ("FaultsKept",),
    ),
    Mutant(
        "event-goes-back-when-it-is-forgotten",
        "netemu.supervisor.control.lab_events",
        "        if before is not None:",
        "        if False:",
        ("Once",),
    ),
    Mutant(
        "told-before-it-can-be-moved",
        _RELOCATION,
        """                await self._moves.rewire(moved, node)
                await self._explain(cause, node, [guest.name for guest in moved])
""",
        """                await self._explain(cause, node, [guest.name for guest in moved])
                await self._moves.rewire(moved, node)
""",
        ("Once", "Acknowledged"),
    ),
    Mutant(
        "boots-before-the-responder-knows",
        _MOVES,
        "        await self._placement.applied(node, sequence, self._hosts[node].responders)\n",
        "        return\n",
        ("NeverBack",),
    ),
    Mutant(
        "restored-node-keeps-strangers",
        _RELOCATION,
        "            self._withdraw_strangers(host)\n",
        "            pass\n",
        ("OnOneNode",),
    ),
    Mutant(
        "agents-refusal-ends-a-duty",
        _PLACEMENT,
        "            except NotSo as error:\n                if str(error) != problem:",
        "            except NodeFailed as error:\n                if str(error) != problem:",
        ("NothingHidden", "Lively"),
    ),
    Mutant(
        "event-written-down-twice",
        _FEEDS,
        "if event.status in FINAL and (before is None or before.status not in FINAL):",
        "if event.status in FINAL:",
        ("Once",),
    ),
    Mutant(
        "events-that-moved-wait-for-the-feed",
        _FEEDS,
        "            feed.expect(events)\n",
        "            pass\n",
        ("Acknowledged", "Once"),
    ),
    Mutant(
        "guest-not-booted-after-its-event",
        _IMPACT,
        "        if not fresh and self._hardware.power(name) in (wanted, Power.GONE):\n",
        "        if not fresh:\n",
        ("Lively",),
    ),
    Mutant(
        "command-ids-forgotten",
        _COMMANDS,
        "    if known is not None:\n        return known, []\n",
        "",
        ("NeverBack", "Acknowledged", "NothingHidden", "SameBytes"),
    ),
)
BY_NAME: Final = {one.name: one for one in ALL}


def text_of(module: str) -> str:
    """A module's source, without importing it."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise BadInput(f"{module}: the module does not exist")
    return Path(found.origin).read_text()


def planted(mutant: Mutant) -> str:
    """The module's source with the defect in it. Raises BadInput if its text is not there."""
    text = text_of(mutant.module)
    if text.count(mutant.old) != 1:
        raise BadInput(f"{mutant.name}: its text is {text.count(mutant.old)} times in the module")
    return text.replace(mutant.old, mutant.new)


class _Loader(importlib.abc.Loader):
    def __init__(self, source: str, origin: str) -> None:
        self._source = source
        self._origin = origin

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._source, self._origin, "exec"), module.__dict__)  # noqa: S102


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(fullname)
        assert found is not None
        assert found.origin is not None
        return importlib.util.spec_from_file_location(
            fullname, found.origin, loader=_Loader(planted(self._mutant), found.origin)
        )


def plant(mutant: Mutant) -> None:
    """Have this process import the module with the defect. Raises BadInput if it is imported
    already.
    """
    if mutant.module in sys.modules:
        raise BadInput(f"{mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))
