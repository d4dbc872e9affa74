"""What the reference agent and the bad ones ask. Runs in a guest; the standard library alone."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, NoReturn

HOST = "http://169.254.169.254"
AZURE = f"{HOST}/metadata/scheduledevents?api-version=2020-07-01"
SPOT = f"{HOST}/latest/meta-data/spot/instance-action"
GCE = "http://metadata.google.internal/computeMetadata/v1/instance"
TIMEOUT = 5.0


def ask(url: str, headers: dict[str, str], body: bytes | None = None, method: str = "GET") -> bytes:
    """The answer; raises OSError if it is none, or an error."""
    question = urllib.request.Request(url, body, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(question, timeout=TIMEOUT) as answer:
        return bytes(answer.read())


def azure_events() -> list[dict[str, Any]]:
    """All events that are told, whomever they concern."""
    return list(json.loads(ask(AZURE, {"Metadata": "true"}))["Events"])


def approve(*ids: str) -> None:
    """Approve events."""
    body = json.dumps({"StartRequests": [{"EventId": one} for one in ids]}).encode()
    ask(AZURE, {"Metadata": "true"}, body, "POST")


def token() -> str:
    """A token of EC2's service."""
    return ask(f"{HOST}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"},
               method="PUT").decode()  # fmt: skip


def gce(path: str) -> str:
    """A value of GCE's service."""
    return ask(f"{GCE}/{path}", {"Metadata-Flavor": "Google"}).decode()


def mark(what: str) -> bool:
    """Call netemu-mark. Returns whether it says yes."""
    return subprocess.run(["netemu-mark", what], check=False).returncode == 0


def drain() -> None:
    """Let work come to its end, and say so."""
    while mark("busy"):
        time.sleep(0.3)
    mark("drained")


def follow(told: Callable[[], bool], pause: float) -> NoReturn:
    """Be drained for as long as an event is told; remember nothing."""
    out = False
    while True:
        event = told()
        if event and not out:
            drain()
            out = True
        elif out and not event:
            mark("returned")
            out = False
        time.sleep(pause)
