"""An agent that does it right: `reference.py azure|ec2|gce`. Runs in a guest.

It stores that it is out, so that it puts itself back after a reboot, whatever was forgotten. An
Azure event is approved by each of its guests once all of them are out: each says so on its own, by
a file that they share; here that is $NETEMU_WORK.
"""

import http.client
import json
import os
import socket
import sys
import time
import urllib.error
from pathlib import Path

import clouds

EVERY = 1.0
ME = socket.gethostname()
SHARED = Path(os.environ["NETEMU_WORK"])
_token = ""


def azure() -> list[tuple[str, bool, list[str]]]:
    """Events of this guest: ID, whether it waits for an approval, and its guests."""
    return [
        (one["EventId"], one["EventStatus"] == "Scheduled", one["Resources"])
        for one in clouds.azure_events()
        if ME in one["Resources"]
    ]


def ec2() -> list[tuple[str, bool, list[str]]]:
    """The spot notice, if there is one."""
    global _token
    try:
        _token = _token or clouds.token()
        body = clouds.ask(clouds.SPOT, {"X-aws-ec2-metadata-token": _token})
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return []
        if error.code == 401:
            _token = ""
        raise
    action = json.loads(body)
    return [(action["time"], False, [ME])]


def gce() -> list[tuple[str, bool, list[str]]]:
    """Maintenance and preemption."""
    told = clouds.gce("maintenance-event"), clouds.gce("preempted")
    if told[0] not in ("NONE", "MIGRATE_ON_HOST_MAINTENANCE", "TERMINATE_ON_HOST_MAINTENANCE"):
        raise ValueError(f"no maintenance event: {told[0][:40]!r}")
    if told[1] not in ("TRUE", "FALSE"):
        raise ValueError(f"neither TRUE nor FALSE: {told[1][:40]!r}")
    return [("it", False, [ME])] if told != ("NONE", "FALSE") else []


def out(guest: str) -> Path:
    """The file that says that a guest is out."""
    return SHARED / f"{guest}.out"


def look(cloud: str) -> None:
    """Do the next thing that is due."""
    events = {"azure": azure, "ec2": ec2, "gce": gce}[cloud]()
    if not events:
        if out(ME).exists():
            clouds.mark("returned")
            out(ME).unlink()
        return
    if not out(ME).exists():
        clouds.drain()
        out(ME).touch()
    ready = [
        one for one, waits, guests in events
        if waits and all(out(guest).exists() for guest in guests)
    ]  # fmt: skip
    if ready:
        clouds.approve(*ready)


def main() -> None:
    """Look again and again. What fails is tried again."""
    while True:
        try:
            look(sys.argv[1])
        except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
            print(f"tries again: {error!r}", flush=True)
        time.sleep(EVERY)


main()
