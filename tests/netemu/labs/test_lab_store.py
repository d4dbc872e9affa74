"""Labs whose commands are kept in a store outside their machine."""

import signal

import pytest

from tests.conftest import Person, RunningLab
from tests.netemu.etcd.conftest import Servers, open_servers
from tests.netemu.labs.test_lab_isolation import wait_until

__all__ = ["open_servers"]
pytestmark = pytest.mark.lab


def test_a_lab_goes_on_while_its_store_is_away(person: Person, open_servers: Servers) -> None:
    """A user's store is away: guests are answered, commands refused, and later taken again."""
    store = f"etcd://{','.join(map(str, open_servers.endpoints))}"
    person.netemu("up", "--name", "stored", "--time-scale", "0.02", "--store", store)
    lab = RunningLab(person, "stored")
    try:
        event = lab.maintenance("schedule", "web1", "--type", "freeze", "--in", "1h", "--no-impact")
        assert lab.status()["store"] == {"servers": store, "state": "there"}
        for number in range(3):
            open_servers.signal(number, signal.SIGSTOP)
        try:
            wait_until(lambda: lab.status()["store"]["state"] == "away")
            refused = person.netemu("maintenance", "schedule", "web1", "--name", "stored", check=1)
            assert "no command is taken: the store does not answer: 127.0.0.1:" in refused.stderr
            refused = person.netemu("set", "--name", "stored", "web1", "tags.a=b", check=1)
            assert "web1: no command is taken" in refused.stderr
            assert '"_web1"' in lab.get("web1")
            shown = person.netemu("status", "stored").stdout
            assert "store: away, so no command is taken: " in shown
        finally:
            for number in range(3):
                open_servers.signal(number, signal.SIGCONT)
        wait_until(lambda: lab.status()["store"]["state"] == "there")
        assert lab.maintenance("cancel", event["id"])["status"] == "Cancelled"
        told = person.netemu("events", "--name", "stored").stdout
        assert told.index("store: away (") < told.index("store: back")
        assert all(node["state"] == "running" for node in lab.status()["nodes"])
    finally:
        person.netemu("down", "stored")
