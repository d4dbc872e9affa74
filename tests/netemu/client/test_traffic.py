"""What guests send and receive, on this machine and on others."""

from typing import Any

from netemu.client.traffic import Rates, Sample, nodes, rates
from netemu.kernel.counters import Counters
from netemu.wire.status import GuestStatus, MachineSeen, NodeStatus

STATUS: dict[str, Any] = {
    "nodes": [{"name": "n1", "guests": [{"name": "a", "port_mark": 1}]}],
    "elsewhere": [
        {"name": "n2", "machine": "b", "state": "there", "guests": ["c"],
         "addresses": {"c": "169.254.1.1"}, "ports": {"c": 2}},
        {"name": "n3", "machine": None, "state": "away", "guests": [],
         "addresses": {}, "ports": {}},
    ],
}  # fmt: skip


def counted(frames: int) -> Counters:
    return Counters(frames, 2 * frames, 100 * frames, 200 * frames, 0, 0, 0, 0)


def seen(moment: float, frames: int) -> MachineSeen:
    guest = GuestStatus("c", "02:00:00:00:00:01", "169.254.1.1", "bound", 2, False, "running")
    return MachineSeen(
        "b", moment, [NodeStatus("n2", "running", guests=[guest])], {"c": counted(frames)}
    )


def test_guests_of_other_machines_are_counted_by_their_clocks() -> None:
    before = Sample(10.0, {"n1": {"p1": counted(0)}}, {"b": seen(500.0, 10)})
    after = Sample(12.0, {"n1": {"p1": counted(4)}}, {"b": seen(504.0, 50)})
    assert rates(before, after, STATUS) == {
        "a": Rates(2.0, 200.0, 4.0, 400.0),
        "c": Rates(10.0, 1000.0, 20.0, 2000.0),
    }
    assert rates(before, after._replace(elsewhere={}), STATUS).keys() == {"a"}


def test_a_machine_that_does_not_answer_is_shown_as_away() -> None:
    here, there, away = nodes(STATUS, Sample(1.0, {}, {"b": seen(1.0, 0)}))
    assert "machine" not in here
    assert (there["machine"], there["state"], there["guests"][0]["state"]) == (
        "b",
        "running",
        "bound",
    )
    assert (away["machine"], away["state"], away["guests"]) == (None, "away", [])
    _, unseen, _ = nodes(STATUS, Sample(1.0, {}))
    assert (unseen["state"], unseen["guests"][0]["address"]) == ("away", "169.254.1.1")
