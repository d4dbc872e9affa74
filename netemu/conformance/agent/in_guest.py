"""Runs in a guest: starts the agent under test, and writes down what it does.

It is the guest's `run:`, so it starts at each boot. It needs the standard library alone. The
journal lies outside the guest: it outlives reboot, redeploy and kill. The agent calls the same file
as `netemu-mark`, and as stubs of other commands. It never asks the metadata service.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

OWN = Path("/run/netemu-agent")  # the guest's own: gone with its boot
BUSY = 3.0  # seconds for which `netemu-mark busy` says yes
LOOK = 0.1  # seconds between two looks at a file or URL
RESTART = 1.0  # seconds until an agent that failed is started again
MAX_RESTARTS = 30  # of one boot: an agent that cannot start is not tried forever
MAX_LINES = 2000  # of its output, of one boot
LONGEST_LINE = 400


class Journal:
    """The guest's file of marks, a JSON object a line."""

    def __init__(self, work: Path, guest: str) -> None:
        self._path = work / f"{guest}.journal"
        self._order = work / f"{guest}.order"

    def add(self, what: str, text: str = "") -> None:
        """Add a line; one write, so that lines of several processes stay whole."""
        line = json.dumps({"at": time.time(), "what": what, "text": text[:LONGEST_LINE]})
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)

    def mark(self, what: str, text: str = "") -> None:
        """Add a mark; if the story wants the agent killed at it, kill the agent."""
        self.add(what, text)
        if what == "drained" and self.take_order("kill-at-drained"):
            kill_agent(self)

    def take_order(self, word: str) -> bool:
        """Whether the story orders this; an order is taken once."""
        try:
            if self._order.read_text() != word:
                return False
            self._order.unlink()
        except OSError:
            return False
        return True


def kill_agent(journal: Journal) -> None:
    """Kill the agent and what it started, as `kill -9` would."""
    (OWN / "killed").touch()
    journal.add("killed")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int((OWN / "pid").read_text()), signal.SIGKILL)


def serve_mark(journal: Journal, what: str) -> int:
    """`netemu-mark drained|returned|busy`."""
    if what not in ("drained", "returned", "busy"):
        sys.stderr.write("netemu-mark: say drained, returned or busy\n")
        return 2
    since = OWN / "busy"
    if what == "busy":
        try:
            begun = float(since.read_text())
        except (OSError, ValueError):
            begun = time.time()
            since.write_text(str(begun))
            journal.add("busy")
        return 0 if time.time() - begun < BUSY else 1
    if what == "returned":
        since.unlink(missing_ok=True)
    journal.mark(what)
    return 0


def serve_stub(journal: Journal, work: Path, plan: dict[str, Any], words: list[str]) -> int:
    """A stub of another command: logs its arguments; keeps what is set by name for all guests."""
    told = shlex.join(words)
    journal.add("call", told)
    for what in ("drained", "returned"):
        kind, argument = plan[what]
        name, _, pattern = argument.partition(" ")
        if kind == "call" and name == words[0] and re.search(pattern, told):
            journal.mark(what, told)
    state = work / "stubs.json"
    key = _option(words, "-n", "--name", "--attribute")
    if key is None:
        return 0
    # Pacemaker's attributes are a node's, or with a type the cluster's.
    node = _option(words, "-N", "--node") or _option(words, "-t", "--type") or socket.gethostname()
    place = f"{words[0]} {node} {key}"
    try:
        known = json.loads(state.read_text())
    except (OSError, ValueError):
        known = {}
    value = _option(words, "-v", "--update", "--attr-value")
    if value is not None:
        known[place] = value
    elif {"-D", "--delete"} & set(words):
        known.pop(place, None)
    else:
        sys.stdout.write(f"{known.get(place, '')}\n")
        return 0
    new = work / f"stubs.{os.getpid()}.{socket.gethostname()}"
    new.write_text(json.dumps(known))
    new.replace(state)
    return 0


def _option(words: list[str], *names: str) -> str | None:
    for number, word in enumerate(words):
        for name in names:
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
            if word == name and number + 1 < len(words):
                return words[number + 1]
    return None


class Watch:
    """One adapter that is looked at: a file that is there, or a URL that answers 200."""

    def __init__(self, plan: dict[str, Any], mark: Callable[[str, str], None]) -> None:
        self._plan = plan
        self._mark = mark
        self._known: dict[str, bool] = {}

    def look(self) -> None:
        """Mark what has changed since the last look."""
        for what in ("drained", "returned"):
            kind, argument = self._plan[what]
            if kind == "file":
                # The same path for both: drained while it is there.
                inverse = what == "returned" and self._plan["drained"] == self._plan["returned"]
                self._changed(what, Path(argument).exists() is not inverse, first=not inverse)
            elif kind == "http":
                serves = _serves(argument)
                self._changed(what, serves is (what == "returned"), first=what == "returned")

    def _changed(self, what: str, now: bool, *, first: bool) -> None:
        before = self._known.get(what)
        self._known[what] = now
        if now and (before is False or (before is None and first)):
            self._mark(what, "")


def _serves(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


class Runner:
    """Starts the agent, and starts it again if its policy says so."""

    def __init__(self, work: Path, guest: str, plan: dict[str, Any]) -> None:
        self._work, self._guest = work, guest
        self._plan = plan
        self._journal = Journal(work, guest)
        self._watch = Watch(self._plan, self._journal.mark)
        self._lines = 0
        self._environment: dict[str, str] = {}

    @classmethod
    def of(cls, work: Path, guest: str) -> "Runner":
        """The runner of the agent that is described in the directory."""
        return cls(work, guest, json.loads((work / "agent.json").read_text()))

    def _prepare(self, work: Path, guest: str) -> dict[str, str]:
        """Put netemu-mark and the stubs first in PATH."""
        programs = OWN / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        names = {"netemu-mark"}
        for what in ("drained", "returned"):
            kind, argument = self._plan[what]
            if kind == "call":
                names.add(argument.partition(" ")[0])
        for name in names:
            words = [sys.executable, "-I", "-S", __file__, "called", str(work), guest, name]
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (programs / name).chmod(0o755)
        usual = os.environ.get("PATH", os.defpath)
        return {**os.environ, "PATH": f"{programs}:{usual}", "PYTHONUNBUFFERED": "1",
                "NETEMU_GUEST": guest, "NETEMU_WORK": str(work)}  # fmt: skip

    def run(self) -> None:
        """Run the agent, and keep the guest's journal until the guest ends."""
        self._journal.add("boot")
        self._environment = self._prepare(self._work, self._guest)
        agent: subprocess.Popen[bytes] | None = self._start()
        restarts, due = 0, 0.0
        while True:
            self._watch.look()
            if self._journal.take_order("kill") and agent is not None:
                kill_agent(self._journal)
            stay = self._journal.take_order("kill-for-good")
            if stay and agent is not None:
                kill_agent(self._journal)
            if agent is not None and (code := agent.poll()) is not None:
                again = self._ended(code) and not stay and restarts < MAX_RESTARTS
                agent = None
                due = time.monotonic() + RESTART if again else float("inf")
            if agent is None and time.monotonic() >= due:
                agent, restarts = self._start(), restarts + 1
            time.sleep(LOOK)

    def _start(self) -> "subprocess.Popen[bytes]":
        agent = subprocess.Popen(
            self._plan["run"],
            shell=isinstance(self._plan["run"], str),
            cwd=self._plan["directory"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        (OWN / "pid").write_text(str(agent.pid))
        self._journal.add("started")
        threading.Thread(target=self._read, args=(agent.stdout,), daemon=True).start()
        return agent

    def _read(self, output: Any) -> None:
        with output:
            for raw in output:
                line = raw.decode(errors="replace").rstrip()
                if self._lines < MAX_LINES:
                    self._journal.add("line", line)
                self._lines += 1
                for what in ("drained", "returned"):
                    kind, argument = self._plan[what]
                    if kind == "log" and re.search(argument, line):
                        self._journal.mark(what, line)

    def _ended(self, code: int) -> bool:
        """Write down an end of the agent. Returns whether to start it again."""
        killed = OWN / "killed"
        if killed.exists():
            killed.unlink()
            return True
        if code == 0 and self._plan["drained"][0] == "exit":
            self._journal.mark("drained", "it ended with 0")
        self._journal.add("ended", str(code))
        policy = self._plan["restart"]
        return bool(policy == "always" or (policy == "on-failure" and code != 0))


def main(words: list[str]) -> int:
    """`run WORK GUEST`, or `called WORK GUEST NAME ARGUMENT…`."""
    verb, work, guest, *rest = words
    if verb == "run":
        Runner.of(Path(work), guest).run()
    journal = Journal(Path(work), guest)
    if rest[0] == "netemu-mark":
        return serve_mark(journal, rest[1] if len(rest) > 1 else "")
    plan = json.loads((Path(work) / "agent.json").read_text())
    return serve_stub(journal, Path(work), plan, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
