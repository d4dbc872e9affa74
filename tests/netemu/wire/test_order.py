"""What of a lab is to be on which machine."""

from msgspec.structs import replace

from netemu.topology import parse
from netemu.wire.order import Order
from netemu.wire.store_address import parse as address

LAB = """
faults:
  - {guests: [a, b], status: 500}
  - {guests: b, status: 500}
  - {status: 503}
nodes:
  n1: {guests: [a]}
  n2: {machine: other, guests: [b]}
"""


def names(machine: str | None, activity: str | None = None) -> tuple[list[str], list[str]]:
    """The nodes that are here, and those that are elsewhere."""
    order = ordered(machine, activity)
    return [one.name for one in order.here.nodes], [one.name for one in order.elsewhere]


def ordered(machine: str | None, activity: str | None = None) -> Order:
    store = None if machine is None else address("etcd://a", machine=machine)
    order = Order(parse(LAB, source="lab.yaml"), 1.0, "/x", store=store)
    if activity is None or store is None:
        return order
    return replace(order, store=replace(store, activity=activity))


def test_a_lab_of_one_machine_is_all_there() -> None:
    assert names(None) == (["n1", "n2"], [])


def test_where_a_lab_begins_are_the_nodes_that_no_other_has() -> None:
    assert names("first") == (["n1"], ["n2"])
    assert names("other") == (["n1", "n2"], [])


def test_who_joins_has_the_nodes_of_its_name() -> None:
    assert names("other", "run") == (["n2"], ["n1"])
    assert names("first", "run") == ([], ["n1", "n2"])


def test_faults_of_the_file_are_of_guests_that_are_here() -> None:
    assert [one["guests"] for one in ordered("first").here.faults] == [["a"], []]
    assert [one["guests"] for one in ordered("other", "run").here.faults] == [["b"], ["b"], []]
