"""What guests are told: each is answered as itself, in time, and never goes back."""

from typing import TYPE_CHECKING, Any

from hostagent.model import Event, EventStatus
from netemu.simulation.checkers.checker import Checker

if TYPE_CHECKING:
    from netemu.simulation.cluster import Cluster


class NeverBack(Checker):
    """An incarnation never goes back."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._last: dict[str, int] = {}

    def document(self, guest: str, document: bytes, told: dict[str, Any]) -> None:
        now, before = told["DocumentIncarnation"], self._last.get(guest, 0)
        if now < before:
            self.breach(f"{guest}: {before}, then {now}")
        self._last[guest] = now


class SameBytes(Checker):
    """The same incarnation has the same bytes."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._last: dict[str, tuple[int, bytes]] = {}

    def document(self, guest: str, document: bytes, told: dict[str, Any]) -> None:
        now = told["DocumentIncarnation"]
        before, bytes_before = self._last.get(guest, (-1, b""))
        if now == before and document != bytes_before:
            self.breach(f"{guest}: {bytes_before!r}, then {document!r}")
        self._last[guest] = now, document


class Whole(Checker):
    """An event of several guests is seen whole or not at all."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._guests: dict[str, set[str]] = {}

    def acknowledged(self, event: Event) -> None:
        self._guests[event.id] = set(event.guests)

    def document(self, guest: str, document: bytes, told: dict[str, Any]) -> None:
        for event in told["Events"]:
            resources = set(event["Resources"])
            if self._guests.get(event["EventId"], resources) != resources:
                self.breach(f"{guest} is told {event}")


class NotEarly(Checker):
    """No event starts early, and an approval that was answered is kept."""

    def __init__(self, cluster: "Cluster") -> None:
        super().__init__(cluster)
        self._begins: dict[str, float] = {}
        self._let: set[str] = set()
        self._approved: set[str] = set()

    def acknowledged(self, event: Event) -> None:
        self._begins[event.id] = event.not_before

    def approved(self, event_id: str) -> None:
        self._approved.add(event_id)
        for host in self.cluster.hosts.values():
            with host.disk() as disk:
                event = None if disk is None else disk.event(event_id)
            if event is not None and event.status is not EventStatus.SCHEDULED:
                return
        self.breach(f"{event_id} was approved, and no disk has it")

    def started(self, event_id: str) -> None:
        self._let.add(event_id)

    def document(self, guest: str, document: bytes, told: dict[str, Any]) -> None:
        now = self.cluster.latest()
        for event in told["Events"]:
            begins = self._begins.get(event["EventId"], 0.0)
            early = event["EventStatus"] == "Started" and now < begins - 0.5
            if early and event["EventId"] not in self._let:
                self.breach(f"{guest} is told that {event['EventId']} has started, {begins - now}")

    def end(self) -> None:
        for host in self.cluster.hosts.values():
            if host.mind is None:
                continue
            for event in host.mind.knowledge.events.values():
                if event.id in self._approved and event.status is EventStatus.SCHEDULED:
                    self.breach(f"{host.name}: {event.id} was approved, and has not started")


class Itself(Checker):
    """A guest is answered as itself."""

    def identity(self, guest: str, told: str) -> None:
        if told != f"_{guest}":
            self.breach(f"{guest} was answered as {told}")


class NotStale(Checker):
    """An answer is no older than its bound."""

    def document(self, guest: str, document: bytes, told: dict[str, Any]) -> None:
        mind = self.cluster.home(guest).mind
        if mind is not None and not mind.knowledge.fresh(self.cluster.loop.time()):
            self.breach(f"{guest} was answered from what is stale")
