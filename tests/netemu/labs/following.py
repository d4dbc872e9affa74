"""Reads `netemu events --follow` beside a test, so that it need not ask over and over."""

import json
import threading
from collections.abc import Callable
from typing import Any, Self

from netemu.wire import runtime_dir
from tests.conftest import RunningLab


class Story:
    """What a user is told who follows the events of a lab; a context manager."""

    def __init__(self, lab: RunningLab) -> None:
        self.entries: list[dict[str, Any]] = []
        self._lab = lab
        self._news = threading.Condition()
        self._command = lab.person.start("events", lab.name, "--follow", "--json")
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._command.terminate()
        self._reader.join()
        self._command.communicate()

    def _read(self) -> None:
        assert self._command.stdout is not None
        for line in self._command.stdout:
            with self._news:
                self.entries.append(json.loads(line))
                self._news.notify_all()

    def until(self, true: Callable[[], bool], patience: float = 60.0) -> None:
        """Wait until something has been told that makes it true."""
        with self._news:
            if self._news.wait_for(true, patience):
                return
        raise AssertionError(f"not told in time; instead\n{self._everything()}")

    def _everything(self) -> str:
        log = self._lab.person.labs / self._lab.name / runtime_dir.LOG
        said = log.read_text(errors="replace") if log.exists() else "(the lab has ended)"
        told = [json.dumps(one) for one in self.entries]
        status = self._lab.netemu("status", check=None).stdout
        return "\n".join([*told, said, status])

    def of(self, guest: str) -> list[dict[str, Any]]:
        """What has befallen a guest."""
        return [one for one in self.entries if one.get("guest") == guest]

    def powers(self, guest: str) -> list[str]:
        """The powers that a guest has gone through."""
        return [one["power"] for one in self.of(guest) if "power" in one]

    def moves(self, guest: str) -> list[tuple[str, str]]:
        """From where to where a guest has moved."""
        return [(one["moved_from"], one["node"]) for one in self.of(guest) if "moved_from" in one]

    def boots(self, guest: str) -> int:
        """How often a guest has booted and got an address."""
        return sum(one.get("state") == "bound" for one in self.of(guest))

    def statuses(self, event_id: str) -> list[str]:
        """What an event has gone through."""
        return [one["status"] for one in self.entries if one.get("id") == event_id]

    def states(self, node: str) -> list[str]:
        """What a node has gone through."""
        return [
            one["state"] for one in self.entries if one["what"] == "node" and one["node"] == node
        ]
