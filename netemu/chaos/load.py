"""Commands and polls against a lab while faults strike it; each in a thread of its own. Runs in the
user's process.
"""

import os
import random
import threading
import time
from itertools import count
from typing import Final

from hostagent.model import FINAL, EventType
from netemu.chaos.invariants import Judge
from netemu.client import labs
from netemu.client.dialler import Answer, Dialler, request
from netemu.client.maintenance import Maintenance
from netemu.errors import BadInput, NetemuError

_IDENTITY: Final = "/metadata/v1/InstanceInfo"
_EVENTS: Final = "/metadata/scheduledevents?api-version=2020-07-01"
_PATIENCE: Final = 2.0
# Azure answers a guest five times a second at most; two requests a look stay below it.
_PAUSE: Final = 0.5
_BETWEEN_COMMANDS: Final = (0.05, 0.5)
# Preempt and Terminate are left out: a guest that is gone cannot show that it came back.
_TYPES: Final = (EventType.FREEZE, EventType.REBOOT, EventType.REDEPLOY)
# After so many events, look which have ended.
_AT_ONCE: Final = 40
_SETTING: Final = "tags.chaos"


class Commands(threading.Thread):
    """Plans events and changes settings, and keeps what was acknowledged."""

    def __init__(self, lab: str, guests: list[str], seed: int, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self._lab = lab
        self._guests = guests
        self._draw = random.Random(seed)
        self._ending = ending
        self._numbers = count(1)
        self.events: dict[str, list[str]] = {}
        """The guests of each acknowledged event that has not been seen to end, by its ID."""
        self.settings: dict[str, set[str]] = {}
        self.sent = self.refused = 0

    @property
    def acknowledged(self) -> int:
        """How many commands were acknowledged."""
        return self.sent - self.refused

    def run(self) -> None:
        """Send commands until the end."""
        while not self._ending.wait(self._draw.uniform(*_BETWEEN_COMMANDS)):
            command = self._schedule if self._draw.random() < 0.6 else self._set
            self.sent += 1
            try:
                command()
            except NetemuError:
                self.refused += 1

    def _schedule(self) -> None:
        guests = self._draw.sample(self._guests, self._draw.choice((1, 1, 1, min(2, self._many))))
        event = Maintenance(self._lab).schedule(
            guests,
            self._draw.choice(_TYPES),
            notice=self._draw.uniform(0, 3),
            duration=self._draw.uniform(0.2, 2),
            impact=self._draw.random() >= 0.5,
        )
        self.events[event.id] = sorted(guests)
        if len(self.events) % _AT_ONCE == 0:
            self._confirm()

    def _confirm(self) -> None:
        """Forget the events that have ended, and are there: agents keep the last 256 of those."""
        for event in Maintenance(self._lab).events(history=True):
            if event.status in FINAL and self.events.get(event.id) == sorted(event.guests):
                del self.events[event.id]

    @property
    def _many(self) -> int:
        return len(self._guests)

    def _set(self) -> None:
        guest, value = self._draw.choice(self._guests), str(next(self._numbers))
        possible = self.settings.setdefault(guest, set())
        possible.add(value)  # without an answer it may exist or not
        try:
            labs.set_properties(self._lab, guest, {_SETTING: value})
        except BadInput:
            possible.discard(value)
            raise
        possible.intersection_update({value})


class Polls(threading.Thread):
    """Asks for some of the guests, again and again, as they would; the judge hears each answer."""

    def __init__(
        self, lab: str, guests: list[str], dialler: Dialler, judge: Judge, ending: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._ask = Asking(lab, dialler)
        self._guests = guests
        self._judge = judge
        self._ending = ending
        self.answered = self.unanswered = 0

    def run(self) -> None:
        """Poll until the end."""
        while not self._ending.is_set():
            began = time.monotonic()
            for guest in self._guests:
                if self._ending.is_set():
                    return
                answered = self._ask.look(guest, self._judge)
                self.answered += answered
                self.unanswered += not answered
            self._ending.wait(max(0.0, _PAUSE - (time.monotonic() - began)))


class Asking:
    """Asks from inside guests of a lab, and tells a judge what they were told."""

    def __init__(self, lab: str, dialler: Dialler) -> None:
        self._lab = lab
        self._dialler = dialler

    def look(self, guest: str, judge: Judge) -> bool:
        """Whether the guest was answered both by name and with its events."""
        try:
            identity = self._get(guest, _IDENTITY, {})
            events = self._get(guest, _EVENTS, {"Metadata": "true"})
            if identity.status == 200:
                judge.answered(guest, str(identity.json().get("ID")))
            if events.status == 200:
                judge.told(guest, events.json()["DocumentIncarnation"], events.body)
        except (NetemuError, OSError):
            return False
        return identity.status == events.status == 200

    def setting(self, guest: str) -> str | None:
        """The setting that the guest has been given, as the lab knows it."""
        return labs.set_properties(self._lab, guest, {}).get(_SETTING)

    def _get(self, guest: str, path: str, headers: dict[str, str]) -> Answer:
        namespaces = labs.enter(self._lab, guest)
        try:
            made = self._dialler.socket(namespaces["net"])
        finally:
            for descriptor in namespaces.values():
                os.close(descriptor)
        return request(made, "GET", path, headers=headers, body=None, timeout=_PATIENCE)
