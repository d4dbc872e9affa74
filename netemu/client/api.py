"""A lab in a Python program's hands: up for as long as the program wants, and never longer.

    with netemu.Lab() as lab:
        event = lab.schedule("web1", "reboot", notice=240)
        print(lab.get("web1", "/metadata/v1/InstanceInfo"))

A lab of `netemu up` stays until somebody takes it down. This one goes with its `with` block, and
with the process that made it, however that ends. All errors are NetemuError.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from hostagent.model import Event, EventSource, EventType
from netemu.client import exec_background, labs
from netemu.client.dialler import Answer, Dialler, request
from netemu.client.failures import CommandFailed, CommandTimedOut
from netemu.client.maintenance import Maintenance
from netemu.errors import BadInput, NotSo
from netemu.wire import lab_file

Seen = TypeVar("Seen")
# How often `until` looks: often enough not to be noticed, seldom enough not to be felt.
_LOOK_EVERY: Final = 0.02
_numbers = count(1)


class Lab:
    """A lab of this process's own.

    `source` is a lab file's path, its text (a `str` with a line break or ": " in it), what stands
    in it as a mapping, or None for the built-in lab of node1 with web1 to web3 and node2 with db1
    to db3. Without a `name` it gets one that no other has. `time_scale` multiplies all durations
    of RFC 3927. With `access_log` the lab's log has a line for each request answered. Raises
    BadInput if there is anything wrong with them.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any] | None = None,
        *,
        name: str | None = None,
        time_scale: float = 1.0,
        access_log: bool = False,
    ) -> None:
        own = name if name is not None else f"lab-{os.getpid()}-{next(_numbers)}"
        self._shape = lab_file.given(source, name=own)
        self._time_scale = time_scale
        self._access_log = access_log
        self._maker: int | None = None
        self._dialler: Dialler | None = None
        self._started: list[subprocess.Popen[Any]] = []

    # Its life.

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(self, *_: object) -> None:
        self.down()

    def __repr__(self) -> str:
        return f"<Lab {self.name}{'' if self._maker else ', down'}>"

    def up(self) -> Self:
        """Bring it up, as entering the `with` block does: all guests are bound and answered then.

        Raises NotSo if a lab of its name runs: that is somebody else's.
        """
        if self._maker is not None:
            raise NotSo(f"{self.name}: is up already")
        if self.name in labs.running():
            raise NotSo(f"{self.name}: a lab of this name runs already; leave the name out")
        new = labs.bring_up(
            self._shape, time_scale=self._time_scale, access_log=self._access_log, owned=True
        )
        if not new:
            raise NotSo(f"{self.name}: a lab of this name runs already; leave the name out")
        self._maker = os.getpid()
        return self

    def down(self) -> None:
        """Take it down, as leaving the `with` block does; one that is down stays so.

        Ends what `popen` has started. A fork of this process leaves the lab alone.
        """
        if self._maker != os.getpid():
            return
        self._end_processes()
        labs.take_down(self.name)
        self._maker = None

    def keep(self) -> None:
        """Leave it up, also when this process ends: it is then like one of `netemu up`."""
        if self._maker != os.getpid():
            return
        self._end_processes()
        labs.keep(self.name)
        self._maker = None

    def _end_processes(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    _close(stream)
        self._started.clear()
        if self._dialler is not None:
            self._dialler.close()
            self._dialler = None

    # What it is.

    @property
    def name(self) -> str:
        """What `netemu … --name` calls it."""
        return self._shape.name

    @property
    def is_up(self) -> bool:
        """Whether it is in this process's hands: brought up, and neither taken down nor kept."""
        return self._maker is not None

    @property
    def guests(self) -> list[str]:
        """The names of the guests, in the order of the lab file."""
        return [guest.name for guest in self._shape.guests]

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes, in the order of the lab file."""
        return [node.name for node in self._shape.nodes]

    def status(self) -> dict[str, Any]:
        """What `netemu status --json` prints."""
        return labs.status(self.name)

    def address(self, guest: str) -> str | None:
        """The address that a guest holds now; None while it has none."""
        for node in self.status()["nodes"]:
            for one in node["guests"]:
                if one["name"] == guest:
                    held: str | None = one["address"]
                    return held
        raise BadInput(f"{guest}: lab {self.name} has no such guest")

    def log(self) -> str:
        """The lab's log so far."""
        try:
            return labs.log_file(self.name).read_text(errors="replace")
        except OSError as error:
            raise NotSo(f"{self.name}: there is no log: {error.strerror}") from None

    def until(self, seen: Callable[[], Seen], *, timeout: float = 10.0) -> Seen:
        """Look until `seen()` gives something true, and give that. Raises NotSo after `timeout` s.

        What a command changes is known to the guests a few milliseconds after it has returned.
        """
        deadline = time.monotonic() + timeout
        while not (found := seen()):
            if time.monotonic() > deadline:
                raise NotSo(f"{self.name}: not seen within {timeout:g} s; last was {found!r}")
            time.sleep(_LOOK_EVERY)
        return found

    # In it.

    def run(
        self,
        place: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        timeout: float | None = 60.0,
        check: bool = True,
        input: str | None = None,
        **options: Any,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in a guest or on a node, as root there, and give what it printed, as text.

        With `check`, CommandFailed is raised for an exit code other than 0; 127 is a command that
        is not there. After `timeout` seconds it is killed, and CommandTimedOut raised.
        """
        if input is not None:
            options["stdin"] = subprocess.PIPE
        words = _listed(command)
        with self._start(
            place, words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        ) as process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise CommandTimedOut(place, words, timeout or 0) from None
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(words, process.returncode, out, err)
        if check and done.returncode != 0:
            raise CommandFailed(place, done)
        return done

    def popen(
        self, place: str, command: Sequence[str | os.PathLike[str]], **options: Any
    ) -> "subprocess.Popen[Any]":
        """Start a command in a guest or on a node; `options` are those of subprocess.Popen.

        Signals and return code are the command's own. It ends with the lab at the latest.
        """
        process = self._start(place, _listed(command), **options)
        self._started.append(process)
        return process

    def _start(self, place: str, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        namespaces = labs.enter(self.name, place)
        try:
            return exec_background.start(
                namespaces, command, **{"stdin": subprocess.DEVNULL, **options}
            )
        finally:
            for descriptor in namespaces.values():
                os.close(descriptor)

    def get(
        self,
        guest: str,
        url: str = "/metadata/v1/InstanceInfo",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> str:
        """What a GET from inside the guest is answered with, as text.

        `url` is a path of the metadata service, or http://ADDRESS[:PORT]/…. The guest needs no
        program for it. Raises NotSo if nobody answers, or with a status of 400 or more.
        """
        answer = self.request(guest, "GET", url, headers=headers, timeout=timeout)
        if answer.status >= 400:
            raise NotSo(f"{guest}: GET {url}: {answer.status}: {answer.text.strip()[:200]}")
        return answer.text

    def request(
        self,
        guest: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        """Ask by HTTP from inside the guest (or node); whatever the status, it is the answer."""
        if self._dialler is None:
            self._dialler = self._new_dialler()
        namespaces = labs.enter(self.name, guest)
        try:
            made = self._dialler.socket(namespaces["net"])
        finally:
            for descriptor in namespaces.values():
                os.close(descriptor)
        return request(made, method, url, headers=headers or {}, body=body, timeout=timeout)

    def _new_dialler(self) -> Dialler:
        sandbox = labs.enter(self.name, None)
        try:
            return Dialler(sandbox["user"])
        finally:
            for descriptor in sandbox.values():
                os.close(descriptor)

    # What befalls it.

    def schedule(
        self,
        guests: str | Iterable[str],
        kind: str,
        *,
        notice: float | None = None,
        duration: float | None = None,
        impact: bool = True,
        source: str = "platform",
        description: str = "",
    ) -> Event:
        """Plan an event of a kind (freeze, reboot, redeploy, preempt, terminate) for guests.

        It starts in `notice` seconds (None: the least that the kind is due; 0: at once), and lasts
        `duration` seconds (None: unknown). Without `impact` the guests are told, and nothing else
        happens to them. Raises BadInput for an unknown guest or kind.
        """
        named = [guests] if isinstance(guests, str) else list(guests)
        with Maintenance(self.name) as plan:
            return plan.schedule(
                named,
                _word(EventType, kind),
                notice=notice,
                duration=duration,
                source=_word(EventSource, source),
                description=description,
                notice_only=not impact,
            )

    def events(self, *, history: bool = False) -> list[Event]:
        """The events that have not ended, with `history` also the others; earliest first."""
        with Maintenance(self.name) as plan:
            return plan.events(history=history)

    def event(self, event_id: str) -> Event:
        """One event as it is now, ended or not. Raises NotSo if there is none of this ID."""
        for event in self.events(history=True):
            if event.id == event_id:
                return event
        raise NotSo(f"{event_id}: lab {self.name} has no such event")

    def approve(self, event_id: str) -> Event:
        """Start a scheduled event as its guests would."""
        with Maintenance(self.name) as plan:
            return plan.approve(event_id)

    def start(self, event_id: str) -> Event:
        """Start a scheduled event now."""
        with Maintenance(self.name) as plan:
            return plan.start(event_id)

    def complete(self, event_id: str) -> Event:
        """End a started event."""
        with Maintenance(self.name) as plan:
            return plan.complete(event_id)

    def cancel(self, event_id: str) -> Event:
        """Take back a scheduled event."""
        with Maintenance(self.name) as plan:
            return plan.cancel(event_id)

    def advance(self, seconds: float) -> float:
        """Move the metadata plane's clock forward; gives its time then, in seconds since 1970."""
        with Maintenance(self.name) as plan:
            return plan.advance(seconds)

    def set(
        self, guest: str, properties: Mapping[str, str] | None = None, /, **more: str
    ) -> dict[str, str]:
        """Change what a guest is told of itself; gives all that it has then been given.

        Keys with a dot come in a mapping: set("web1", {"tags.team": "a"}, vm_size="Standard_F2").
        An empty value is the default again.
        """
        return labs.set_properties(self.name, guest, {**(properties or {}), **more})

    def reboot(self, guest: str) -> None:
        """Reboot a guest, unannounced: its processes end, and it claims its address anew."""
        labs.reboot(self.name, guest)


def _listed(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    if isinstance(command, str) or not command:
        raise BadInput("a command is a list of words, as in ['curl', '-s', url]")
    words = [os.fspath(word) for word in command]
    if not words[0] or any("\0" in word for word in words):
        raise BadInput("a command's name is not empty, and none of its words has a NUL in it")
    return words


Word = TypeVar("Word", EventType, EventSource)


def _word(kind: type[Word], text: str) -> Word:
    """The member that is meant, however it is capitalised."""
    try:
        return kind(text.capitalize())
    except ValueError:
        known = ", ".join(one.value.lower() for one in kind)
        raise BadInput(f"{text!r}: not one of {known}") from None


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:
        pass  # what was still to be written has nobody to read it
