"""Nodes that name no machine are spread over those of a lab, by their guests."""

import pytest

from netemu.errors import BadInput
from netemu.topology import parse, spread

LAB = """
nodes:
  n1: {guests: 3}
  n2: {guests: 1}
  n3: {machine: b, guests: 2}
  n4: {guests: 1}
"""


def test_a_node_goes_where_the_fewest_guests_are() -> None:
    lab = spread(parse(LAB, source="lab.yaml"), ["a", "b", "c"])
    assert [one.machine for one in lab.nodes] == ["a", "c", "b", "c"]
    assert spread(lab, ["x"]) == lab


@pytest.mark.parametrize(("names", "wrong"), [(["a", ""], "''"), (["a", "a"], "twice")])
def test_names_of_machines_are_checked(names: list[str], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        spread(parse(LAB, source="lab.yaml"), names)
