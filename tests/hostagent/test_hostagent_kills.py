"""kill -9 of agent, responder and controller, hundreds of times, under a stream of commands.

The daemons are forked from this process, which has imported everything: a restart takes
milliseconds, and the kills fall into work rather than into imports.
"""

import asyncio
import contextlib
import json
import multiprocessing
import random
import signal
import socket
import time

import pytest
import uvloop

from hostagent.agent import Agent
from hostagent.controller import CommandRefused, SyncController
from hostagent.dialects import Dialects, Options
from hostagent.model import EventType, Guest
from hostagent.repository import Repository, RepositoryInUse
from hostagent.responder.answers import BY_ADDRESS, host_headers
from hostagent.responder.approvals import Approvals
from hostagent.responder.feed import follow
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.server import Responder
from tests.hostagent.daemons import answer_of, read_all

KILLS = 300
HISTORY = 200  # ended events that may be looked for: below the repository's own bound


def _run(serve):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def agent(directory, command, feed):
    async def serve():
        while True:
            try:
                store = Repository.open(directory / "node.sqlite")
                break
            except RepositoryInUse:  # the kernel has not yet let go of the killed one's lock
                await asyncio.sleep(0.002)
        await Agent("n1", store).serve(command, feed, asyncio.Event())

    _run(serve)


def responder(directory, listener):
    async def serve():
        knowledge, approvals, heard = Knowledge(), Approvals(), asyncio.Event()
        server = Responder(
            knowledge,
            identity=BY_ADDRESS,
            allowed_hosts=host_headers([], [listener]),
            dialects=Dialects(Options(azure_rate=0)),
            approvals=approvals,
        )
        following = asyncio.create_task(follow(directory / "feed", knowledge, heard, approvals))
        try:
            await server.serve([listener], asyncio.Event(), heard)
        finally:
            following.cancel()

    _run(serve)


def controller(directory):
    """Write each command down, send it, write down that it was acknowledged; then the next.

    One that was killed is followed by one that begins with what was not acknowledged.
    """
    journal = directory / "journal"
    lines = journal.read_text().split("\n") if journal.exists() else []
    # A line that was cut short by the kill has no newline: it was not written.
    whole = [json.loads(line) for line in lines[:-1] if line.startswith("{") and line[-1:] == "}"]
    number = max((one["number"] for one in whole), default=0)
    open_ones = {one["number"] for one in whole} - {
        one["number"] for one in whole if "incarnation" in one
    }
    with SyncController.connect(directory / "command", 30) as sync, open(journal, "a") as out:
        if lines and lines[-1]:
            out.write("\n")

        def write(**line):
            out.write(json.dumps(line) + "\n")
            out.flush()

        def do(number):
            name = f"{number:08x}-0000-4000-8000-000000000000"
            sync.schedule(
                ["web1"], EventType.FREEZE, notice=3600, event_id=name, command_id=f"s{number}"
            )
            if number % 2:
                with contextlib.suppress(CommandRefused):  # a guest has approved it meanwhile
                    sync.cancel(name, command_id=f"c{number}")
            write(number=number, incarnation=sync.guests()[0].incarnation)

        for one in sorted(open_ones):
            do(one)
        while True:
            number += 1
            write(number=number)
            do(number)


def ask(port, method="GET", body=b""):
    text = (
        f"{method} /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1\r\n"
        f"Host: 169.254.169.254\r\nMetadata: true\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(text.encode() + body)
        return answer_of(read_all(sock))


@pytest.mark.processes
@pytest.mark.long
def test_nothing_acknowledged_is_lost_and_nothing_is_done_twice(short_path):
    context = multiprocessing.get_context("fork")
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port = listener.getsockname()[1]
    sockets = {}
    for name in ("command", "feed"):
        sockets[name] = socket.socket(socket.AF_UNIX)
        sockets[name].bind(str(short_path / name))
        sockets[name].listen(64)
    targets = {
        "agent": (agent, (short_path, sockets["command"], sockets["feed"])),
        "responder": (responder, (short_path, listener)),
        "controller": (controller, (short_path,)),
    }
    running = {}

    def start(name):
        target, args = targets[name]
        running[name] = context.Process(target=target, args=args, daemon=True)
        running[name].start()

    randomness = random.Random(5)
    newest, approved, kills, answers = 0, set(), 0, 0
    try:
        start("agent")
        start("responder")
        with SyncController.connect(short_path / "command", 30) as sync:
            sync.place([Guest(name="web1", address="127.0.0.1")])
        start("controller")
        while kills < KILLS:
            time.sleep(randomness.uniform(0.0, 0.06))
            name = randomness.choice(list(targets))
            running[name].kill()
            running[name].join()
            start(name)
            kills += 1
            if kills % 5:
                continue
            # A connection may be cut by a kill, or the responder not have heard of the agent yet.
            with contextlib.suppress(OSError, ValueError, IndexError):
                status, _, body = ask(port)
                if status != 200:
                    continue
                told = json.loads(body)
                answers += 1
                assert told["DocumentIncarnation"] >= newest, "an incarnation has gone back"
                newest = told["DocumentIncarnation"]
                scheduled = [e for e in told["Events"] if e["EventStatus"] == "Scheduled"]
                if scheduled:
                    event_id = scheduled[0]["EventId"]
                    wish = json.dumps({"StartRequests": [{"EventId": event_id}]}).encode()
                    if ask(port, "POST", wish)[0] == 200:
                        approved.add(event_id)
        running["controller"].kill()
        running["controller"].join()
        with SyncController.connect(short_path / "command", 30) as sync:
            stored = sync.events(history=True)
            incarnation = sync.guests()[0].incarnation
    finally:
        for process in running.values():
            process.kill()
            process.join()
        for sock in (*sockets.values(), listener):
            sock.close()

    lines = (short_path / "journal").read_text().split("\n")[:-1]
    journal = [json.loads(line) for line in lines if line.endswith("}")]
    done = {one["number"]: one["incarnation"] for one in journal if "incarnation" in one}
    events = {int(event.id[:8], 16): event for event in stored}
    assert len(stored) == len(events), "something was done twice"
    oldest = max(done) - HISTORY
    for number in done:
        if number % 2 == 0:
            assert number in events, "an acknowledged command was lost"
            # Started only if a guest has approved it.
            started_as_told = events[number].status in ("Scheduled", "Started")
            assert started_as_told, events[number]
        elif number > oldest:
            assert events[number].status in ("Cancelled", "Started")
    told = [done[number] for number in sorted(done)]
    assert told == sorted(set(told)), "an incarnation has gone back, or stood still"
    # Each change was counted exactly once: scheduled, and cancelled or started.
    changes = sum(1 + (event.status != "Scheduled") for event in stored)
    forgotten = max(events) - len(events)
    assert incarnation == 1 + changes + 2 * forgotten
    for event_id in approved:
        known = [event for event in stored if event.id == event_id]
        assert known, "an approved event was lost"
        assert known[0].status == "Started", "an acknowledged approval was lost"
    assert len(done) > 100
    assert answers > 10
    assert approved
