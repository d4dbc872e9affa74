"""What the event log says of faults, out of what the nodes' agents say."""

from typing import Any, cast

from hostagent.channel.requests import Placed
from hostagent.faults import Fault
from hostagent.model import Guest
from netemu.supervisor.control.agent_feeds import AgentFeeds
from netemu.supervisor.control.event_log import EventLog


def placed(*faults: Fault) -> Placed:
    return Placed(guest=Guest(name="web1"), incarnation=1, faults=faults)


def test_a_fault_is_added_once_and_over_once_wherever_its_guest_is() -> None:
    """A move says nothing of it, nor does a node that returns with what it knew."""
    log = EventLog()
    feeds = AgentFeeds(cast(Any, None), ["n1", "n2"], log)
    n1, n2 = (feeds._feeds[node] for node in ("n1", "n2"))
    first = Fault(id="00000001", at=0.0, status=500, times=2)
    second = Fault(id="00000002", at=0.0, hang=True)
    n1._place(placed(first))
    n2._place(placed(first, second))  # it has moved, and got another
    n2._place(placed(second))
    n1._place(placed(first))  # this node was away
    n2._place(placed())
    told = [(one["id"][-1], one["state"]) for one in log.entries()]
    assert told == [("1", "added"), ("2", "added"), ("1", "over"), ("2", "over")]
