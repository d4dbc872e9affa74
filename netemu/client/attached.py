"""A lab that runs, in a Python program's hands. Runs in the program's process.

Nothing here brings a lab up or takes one down: `netemu.client.api` does. All errors are
NetemuError.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar

from hostagent.model import Event
from hostagent.verb import Blocking
from netemu.client import exec_background, labs, machines
from netemu.client.dialler import Answer, Dialler, request
from netemu.client.failures import CommandFailed, CommandTimedOut
from netemu.client.links import LinkVerbs
from netemu.client.maintenance import Call, EventVerbs, Maintenance
from netemu.errors import BadInput, NotSo

Seen = TypeVar("Seen")
Told = TypeVar("Told")
# Seconds between checks of `until`: short enough for tests, long enough to cost nothing.
_LOOK_EVERY: Final = 0.02


class AttachedLab(EventVerbs, LinkVerbs, Blocking):
    """A lab that runs, started by this process or another; `netemu.Lab.attach(NAME)` makes one.

    It is left as it is when the program ends, or the `with` block, if there is one. What `popen`
    has started ends with the block.
    """

    def __init__(self, name: str | None = None) -> None:
        """Raises NotSo if no lab of this name runs; without a name it is the only one that runs."""
        self._start_at(labs.the_one(name))

    def _start_at(self, name: str) -> None:
        self._name = name
        self._dialler: Dialler | None = None
        self._started: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_processes()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

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
        return self._name

    @property
    def guests(self) -> list[str]:
        """The names of the guests, by node."""
        return [guest["name"] for node in self.status()["nodes"] for guest in node["guests"]]

    @property
    def nodes(self) -> list[str]:
        """The names of the nodes, in the order of the lab file."""
        return [node["name"] for node in self.status()["nodes"]]

    def status(self) -> dict[str, Any]:
        """What `netemu status --json` prints."""
        return labs.status(self.name)

    def address(self, guest: str) -> str | None:
        """The address that a guest holds now; None while it has none."""
        told = self.status()
        held: str | None
        for node in told["nodes"]:
            for one in node["guests"]:
                if one["name"] == guest:
                    held = one["address"]
                    return held
        for node in told.get("elsewhere", ()):
            if guest in node["guests"]:
                held = node["addresses"].get(guest)
                return held
        raise labs.none_such(told, guest)

    def log(self) -> str:
        """The lab's log so far."""
        try:
            return labs.log_file(self.name).read_text(errors="replace")
        except OSError as error:
            raise NotSo(f"{self.name}: there is no log: {error.strerror}") from None

    def until(self, seen: Callable[[], Seen], *, timeout: float = 10.0) -> Seen:
        """Call `seen()` until it returns something true, and return that. Raises NotSo after
        `timeout` s.

        The guests know what a command changes a few milliseconds after it has returned.
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
        A machine's guest agent runs it, without `options`.
        """
        try:
            return self._run(place, command, timeout, check, input, options)
        except labs.HasOwnKernel:
            done = machines.run(self.name, place, _listed(command), input or "", timeout)
        if check and done.returncode != 0:
            raise CommandFailed(place, done)
        return done

    def _run(
        self,
        place: str,
        command: Sequence[str | os.PathLike[str]],
        timeout: float | None,
        check: bool,
        input: str | None,
        options: dict[str, Any],
    ) -> "subprocess.CompletedProcess[str]":
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
            return Dialler().start(sandbox["user"])
        finally:
            for descriptor in sandbox.values():
                os.close(descriptor)

    # What happens to it.

    def make(self, call: Call[Told]) -> Told:
        """Ask the lab. Returns what the call reads from the answer."""
        return Maintenance(self.name).make(call)

    def event(self, event_id: str) -> Event:
        """One event as it is now, ended or not. Raises NotSo if no event has this ID."""
        for event in self.events(history=True):
            if event.id == event_id:
                return event
        raise NotSo(f"{event_id}: lab {self.name} has no such event")

    def set(
        self,
        guest: str,
        properties: Mapping[str, str | bytes] | None = None,
        /,
        **more: str | bytes,
    ) -> dict[str, str]:
        """Change a guest's properties. Returns all that it has then been given.

        They are stored when this returns. An empty value takes a property away.
        """
        return labs.set_properties(self.name, guest, {**(properties or {}), **more})

    def reboot(self, guest: str, *, hard: bool = False) -> None:
        """Reboot a guest, unannounced: its processes end, and it claims its address again.

        They are asked to end first, unless it is a `hard` reboot, which cuts the power.
        """
        labs.reboot(self.name, guest, hard=hard)

    def fail_node(self, node: str) -> None:
        """Have a node fail: its wires go dead, its agent and responder end, its guests are off.

        The lab notices, and boots its guests on other nodes some seconds later. Raises BadInput if
        there is no such node, NotSo if it has failed already.
        """
        labs.fail_node(self.name, node)

    def restore_node(self, node: str) -> None:
        """Have a failed node come back. Guests that have left it stay where they are."""
        labs.restore_node(self.name, node)


def _listed(command: Sequence[str | os.PathLike[str]]) -> list[str]:
    if isinstance(command, str) or not command:
        raise BadInput("a command is a list of words, as in ['curl', '-s', url]")
    words = [os.fspath(word) for word in command]
    if not words[0] or any("\0" in word for word in words):
        raise BadInput("a command's name is not empty, and none of its words has a NUL in it")
    return words


def _close(stream: Any) -> None:
    try:
        stream.close()
    except OSError:
        pass  # nobody reads what was still to be written
