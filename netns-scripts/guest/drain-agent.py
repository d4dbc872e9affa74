#!/usr/bin/env python3
"""Take this guest out of HAProxy's pool before maintenance, and put it back after.

    drain-agent.py lb:9999 web/web1 http://localhost:8080/health

are HAProxy's runtime socket (`stats socket … level admin`), this guest's BACKEND/SERVER there, and
what is answered with 200 when the guest can serve. Needs nothing but Python's standard library.

It looks twice a second, and keeps no state: a guest that has just booted is one without events, so
it is put back. Events that are told to it but befall others do not concern this agent.

Two things to know before you copy it. It does not ask whether anybody is left in the pool: that
not all guests go at once is what update domains are for. And the server's state is the agent's own:
what a person puts into `maint`, it puts back.
"""

from __future__ import annotations

import csv
import http.client
import json
import socket
import sys
import time
import urllib.request
from typing import Any

EVENTS = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
# Azure allows five requests a second; the shortest notice (Spot) is 30 s.
EVERY = 0.5


def ask(url: str, body: bytes | None = None) -> bytes:
    """The answer to a GET, or with a body to a POST; raises OSError if it is none, or an error."""
    question = urllib.request.Request(url, body, {"Metadata": "true"})
    # Never by a proxy: the metadata service is on this host.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(question, timeout=5) as answer:
        return bytes(answer.read())


def tell(haproxy: str, command: str) -> str:
    """What HAProxy answers to a command."""
    host, _, port = haproxy.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(f"{command}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def own_events() -> list[dict[str, Any]]:
    """The events that befall this guest, whatever their status."""
    document = json.loads(ask(EVENTS))
    return [event for event in document["Events"] if socket.gethostname() in event["Resources"]]


def set_state(haproxy: str, server: str, state: str) -> None:
    """Put the server into a state; raises OSError if HAProxy will not."""
    if refused := tell(haproxy, f"set server {server} state {state}").strip():
        raise OSError(f"HAProxy: {refused}")


def servers(haproxy: str, backend: str) -> dict[str, tuple[bool, int]]:
    """For each server: whether new requests may go there, and how many are there now."""
    lines = tell(haproxy, f"show stat {backend} 4 -1").lstrip("# ").splitlines()
    return {
        # "MAINT", "MAINT (via …)"; the queue is the server's own.
        row["svname"]: (not row["status"].startswith("MAINT"), int(row["scur"]) + int(row["qcur"]))
        for row in csv.DictReader(lines)
    }


def look(haproxy: str, server: str, health: str) -> None:
    """See how things are, and do the next thing that is due, if any."""
    events = own_events()
    backend, name = server.split("/")
    known = servers(haproxy, backend)
    if name not in known:
        raise OSError(f"HAProxy: knows no {server}")
    pooled, requests = known[name]
    if not events:
        if pooled:
            return
        ask(health)  # raises if it does not serve yet
        set_state(haproxy, server, "ready")
        print(f"{server}: back in the pool", flush=True)
    elif pooled:
        # Not `drain`: HAProxy still sends a draining server the clients that stick to it. `maint`
        # sends them elsewhere, where they stick from then on, and lets go on what is under way.
        set_state(haproxy, server, "maint")
        print(f"{server}: out of the pool, for {events[0]['EventType']}", flush=True)
    elif requests == 0:
        # An event of several guests starts for all of them: the last that is drained approves.
        serving = {one for one, (open_to, busy) in known.items() if open_to or busy}
        waiting = [
            event["EventId"]
            for event in events
            if event["EventStatus"] == "Scheduled" and not serving & set(event["Resources"])
        ]
        if waiting:
            # Said before it is done: a reboot may be quicker than we are.
            print(f"{server}: nothing is under way; approves {' '.join(waiting)}", flush=True)
            starts = [{"EventId": event} for event in waiting]
            ask(EVENTS, json.dumps({"StartRequests": starts}).encode())


def main(haproxy: str, server: str, health: str) -> None:
    """Look again and again. A failure is reported once, and tried again."""
    failed = ""
    while True:
        try:
            look(haproxy, server, health)
            failed = ""
        except (OSError, ValueError, LookupError, http.client.HTTPException) as error:
            if failed != str(error):
                failed = str(error)
                print(f"{server}: tries again: {failed}", flush=True)
        time.sleep(EVERY)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
