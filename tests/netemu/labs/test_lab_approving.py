"""A guest that approves what will end it: it reads the answer, and writes that down, before."""

import os
import sys
from pathlib import Path

import pytest

import netemu

pytestmark = pytest.mark.lab

GUESTS, ROUNDS = 20, 5
# Approves each event of its own, as drain agents do, and says so before and after.
APPROVER = """
import json, os, time, urllib.request
url = 'http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01'
def ask(body=None):
    question = urllib.request.Request(url, body, {'Metadata': 'true'})
    with urllib.request.urlopen(question, timeout=20) as answer:
        return answer.status, answer.read()
def say(*words):
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())
say('begins')
while True:
    time.sleep(0.1)
    try:
        _, document = ask()
    except OSError:  # it has only just booted
        continue
    for event in json.loads(document)['Events']:
        if event['EventStatus'] == 'Scheduled':
            say('asks', event['EventId'])
            body = json.dumps({'StartRequests': [{'EventId': event['EventId']}]})
            status, _ = ask(body.encode())
            say('told', status, event['EventId'])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the lab's Python is root's here")
def test_who_approves_its_own_reboot_has_read_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred times a guest approves its reboot, and each time it logs the 200 before it ends."""
    monkeypatch.setenv("NETEMU_RUNTIME_DIR", str(tmp_path / "labs"))
    names = [f"g{number}" for number in range(GUESTS)]
    guests = [{"name": name, "run": [sys.executable, "-c", APPROVER]} for name in names]
    node = {"dialects": {"azure": {"rate": 0}}, "guests": guests}
    with netemu.Lab({"nodes": {"n": node}}, time_scale=0.02) as lab:
        logs = tmp_path / "labs" / lab.name / "guests"

        def said(what: str) -> int:
            return sum(one.read_text().count(what) for one in logs.iterdir())

        for number in range(1, ROUNDS + 1):
            lab.until(lambda: said("begins") == GUESTS * number, timeout=60)  # noqa: B023
            events = [lab.schedule(name, "reboot", notice=3600).id for name in names]
            lab.until(lambda: all(lab.event(one).started for one in events), timeout=60)  # noqa: B023
        lab.until(lambda: said("begins") == GUESTS * (ROUNDS + 1), timeout=60)
        assert said("asks") == said("told 200") == GUESTS * ROUNDS
