"""Reboots that nobody notices: the scenario, played quickly, and its lab file by hand."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netemu.scenario.requests import Reboot, Run, read
from tests.conftest import TIME_SCALE, Person, RunningLab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") is None,
        reason="Debian's haproxy is not installed",
    ),
]
QUICK = ("--time-scale", str(TIME_SCALE), "--duration", "2", "--calm", "1")
WEB = ("web1", "web2", "web3")
# Each test is played by one of the two: what they share of a lab's life has tests of its own.
ROOT, USER = (
    pytest.mark.parametrize("person", [one], indirect=True, scope="session")
    for one in (("root", "user") if os.geteuid() == 0 else ("user", "user"))
)


@ROOT
def test_with_drain_agents_nobody_notices_and_without_them_they_do(
    person: Person, place: Path
) -> None:
    """A user plays the scenario: no request fails with drain agents, and some do without."""
    file = place / "runs.json"
    said = person.netemu("scenario", "masked-reboot", *QUICK, "-o", str(file), timeout=200).stdout
    on, off = json.loads(file.read_text())
    assert (on["agents"], off["agents"]) == (True, False)
    assert (on["failed"], on["unprovoked"], on["problems"]) == (0, 0, [])
    assert on["moved"] == on["clients"] == 64
    assert off["failed"] >= 30  # a third of the clients, while each of three guests is away
    assert off["problems"] == []
    for run in (on, off):
        assert [one["guest"] for one in run["reboots"]] == list(WEB)
        assert all(one["back"] - one["started"] >= 2 for one in run["reboots"])
        assert f"{run['requests']:,}" in said
    assert "masked-" not in person.netemu("list").stdout


@pytest.fixture
def website(person: Person) -> Iterator[RunningLab]:
    """The scenario's lab, brought up by hand, with each guest in the pool."""
    files = Path(person.environment["PYTHONPATH"].split(":")[0]) / "netemu/scenario/masked_reboot"
    person.netemu("up", str(files / "lab.yaml"), "--name", "site", "--time-scale", str(TIME_SCALE))
    try:
        lab = RunningLab(person, "site")
        for web in WEB:
            wait_until(lambda web=web: serves(lab, web))
            wait_until(lambda web=web: status(lab, web) == "UP")
        yield lab
    finally:
        person.netemu("down", "site")


def wait_until(true: Any, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.1)


def serves(lab: RunningLab, web: str) -> bool:
    return lab.exec("lb", "curl", "-sf", f"http://{web}:8080/health", check=None).returncode == 0


def status(lab: RunningLab, server: str) -> str:
    """What HAProxy's page says of a server."""
    done = lab.exec("lb", "curl", "-s", "http://lb:8404/stats;csv", check=None)
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return next((row[17] for row in rows if row[1:2] == [server]), "")


def reboot(lab: RunningLab, guest: str, *when: str) -> Reboot:
    """Have a guest rebooted, and wait until it is in the pool again."""
    announced = time.time()
    event = lab.maintenance("schedule", guest, "--type", "reboot", "--duration", "2s", *when)

    def over() -> bool:
        listed = {one["id"]: one["status"] for one in lab.maintenance("list", "--history")}
        return bool(listed[event["id"]] == "Completed")

    wait_until(over)
    wait_until(lambda: status(lab, guest) == "UP")
    return Reboot(guest, announced, announced, time.time())


@USER
def test_by_hand_an_agent_masks_what_is_announced_and_nothing_else(website: RunningLab) -> None:
    """A user reboots web1 with notice and web2 without any: clients of web2 alone notice it."""
    lab = website
    load = Path(lab.person.environment["PYTHONPATH"].split(":")[0])
    load /= "netemu/scenario/masked_reboot/load.py"
    client = lab.person.start(
        "exec", "--name", lab.name, "client", "--", "python3", str(load), "http://lb/"
    )
    assert client.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(client.stdout))
    reader.start()

    def answered(*webs: str) -> None:
        """Wait until each of them has answered the client from now on."""
        so_far = len(lines)
        wait_until(lambda: {*webs} <= {one.server for one in read(lines[so_far:]) if one.ok})

    try:
        answered(*WEB)
        masked = reboot(lab, "web1", "--in", "15m")
        answered("web2")
        sudden = reboot(lab, "web2", "--now")
    finally:
        client.send_signal(signal.SIGTERM)
        reader.join(timeout=60)
        err = client.communicate(timeout=60)[1]
    assert client.returncode == 0, err
    requests = read(lines)
    assert {one.server for one in requests if one.ok} == set(WEB)
    before = tuple(one for one in requests if one.time + one.took < masked.back)
    assert Run(True, before, (masked,)).problems() == []
    after = tuple(one for one in requests if one.time >= masked.back)
    failed = [one for one in after if not one.ok]
    assert failed
    assert f"with agents: {len(failed)} requests failed" in Run(True, after, (sudden,)).problems()
    told = lab.netemu("logs", "web1").stdout
    said = [told.find(word) for word in ("out of the pool, for Reboot", "approves", "back in the")]
    assert -1 not in said
    assert said == sorted(said)
