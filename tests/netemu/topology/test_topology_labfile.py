"""The lab file: what is accepted, what is refused, and in which words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.errors import BadInput
from netemu.topology import DEMO, MAX_GUESTS_PER_NODE, Dialects, Policy, load, parse, schema

TWO_RACKS = """\
name: two-racks
policy: responder-only
nodes:
  node1: {fault_domain: 0, guests: [web1, web2]}
  node2: {fault_domain: 1, guests: 100}
"""


def refused(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        parse(text, source="lab.yaml")
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("lab.yaml: ")
    assert caught.value.exit_code == 2
    return said


def test_the_example_of_the_readme() -> None:
    lab = parse(TWO_RACKS, source="lab.yaml")
    assert lab.name == "two-racks"
    assert lab.policy is Policy.RESPONDER_ONLY
    assert [node.name for node in lab.nodes] == ["node1", "node2"]
    assert [guest.name for guest in lab.nodes[0].guests] == ["web1", "web2"]
    assert [guest.name for guest in lab.nodes[1].guests][::99] == ["node2-1", "node2-100"]
    assert {guest.fault_domain for guest in lab.nodes[1].guests} == {1}


def test_marks_macs_and_ports_are_unique() -> None:
    guests = parse(TWO_RACKS, source="lab.yaml").guests
    for key in ("mark", "mac", "port", "name"):
        assert len({getattr(guest, key) for guest in guests}) == 102
    assert all(len(guest.port) <= 15 for guest in guests)
    assert all(int(guest.mac[:2], 16) & 3 == 2 for guest in guests)  # local, unicast


def test_the_built_in_lab() -> None:
    lab = load(DEMO)
    assert {node.name: [guest.name for guest in node.guests] for node in lab.nodes} == {
        "node1": ["web1", "web2", "web3"],
        "node2": ["db1", "db2", "db3"],
    }


def test_the_same_file_is_the_same_lab() -> None:
    one, two = (parse(TWO_RACKS, source=source) for source in ("a", "b"))
    assert one.fingerprint() == two.fingerprint()
    other = parse(TWO_RACKS.replace("web2", "web3"), source="a")
    assert other.fingerprint() != one.fingerprint()


def test_the_name_can_be_given() -> None:
    assert parse(TWO_RACKS, source="lab.yaml", name="mine").name == "mine"
    with pytest.raises(BadInput, match="--name"):
        parse(TWO_RACKS, source="lab.yaml", name="../up")


def test_a_guest_may_have_more_than_a_name() -> None:
    text = "nodes: {n: {guests: [{name: a, last_address: 169.254.7.7, update_domain: 3}, b]}}"
    first, second = parse(text, source="lab.yaml").guests
    assert (first.last_address, first.update_domain) == ("169.254.7.7", 3)
    assert (second.last_address, second.update_domain) == (None, 1)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("nodes: {n: {guests: 1}}\npolcy: x", "line 2: polcy", "did you mean 'policy'?"),
        ("nodes: {n: {guests: 1, falt_domain: 1}}", "nodes.n.falt_domain", "'fault_domain'"),
        ("nodes:\n  n:\n    guests: [{nme: a}]", "line 3: nodes.n.guests[0].nme", "'name'"),
        ("nodes:\n  a: {guests: 1}\n  a: {guests: 1}", "line 3: nodes.a", "stands twice"),
        ("nodes: {n: {guests: [a, b, a]}}", "nodes.n.guests[2]", "names must differ"),
        ("nodes: {n: {guests: [n]}}", "nodes.n.guests[0]", "already that of nodes.n"),
        ("nodes: {a: {guests: 1}, a-1: {guests: 1}}", "nodes.a-1", "names must differ"),
        ("nodes: {n: {guests: 1024}}", "nodes.n.guests", "at most 1023"),
        ("nodes: {n: {guests: -1}}", "nodes.n.guests", ">= 0"),
        ("nodes: {n: {guests: ['a b']}}", "nodes.n.guests[0]", "cannot name a namespace"),
        ("nodes: {'../n': {guests: 1}}", "nodes.../n", "cannot name a namespace"),
        ("nodes: {n: {guests: ['']}}", "nodes.n.guests[0]", "cannot name a namespace"),
        (f"nodes: {{n: {{guests: [{'x' * 64}]}}}}", "nodes.n.guests[0]", "1 to 63"),
        ("name: a/b\nnodes: {n: {guests: 1}}", "line 1: name", "cannot name a namespace"),
        ("nodes: {n: {guests: true}}", "nodes.n.guests", "a list"),
        ("nodes: {n: {guests: [7]}}", "nodes.n.guests[0]", "a whole number"),
        ("nodes: {n: 7}", "nodes.n", "a mapping"),
        ("nodes: [n]", "nodes", "a mapping"),
        ("nodes: {}", "nodes", "at least one node"),
        ("nodes: {n: {}}", "nodes.n", "'guests' is missing"),
        ("policy: open\nnodes: {n: {guests: 1}}", "policy", "responder-only or same-node"),
        ("nodes: {n: {guests: 1, fault_domain: x}}", "nodes.n.fault_domain", "a whole number"),
        (
            "nodes: {n: {guests: [{name: a, last_address: 169.254.0.9}]}}",
            "nodes.n.guests[0].last_address",
            "169.254.1.0",
        ),
        ("", "", "is empty"),
        ("- a", "line 1", "a mapping"),
        ("nodes: [", "line 1", "not YAML"),
        ("a: &x {b: *x}", "a", "refers to itself"),
        ("nodes: {n: {guests: !!python/name:os.system }}", "", "not YAML"),
        ("nodes: {? [a] : 1}", "", "not YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, place: str, words: str) -> None:
    said = refused(text)
    assert place in said
    assert words in said


def test_too_many_guests_by_name() -> None:
    names = ", ".join(f"g{number}" for number in range(MAX_GUESTS_PER_NODE + 1))
    assert "at most 1023" in refused(f"nodes: {{n: {{guests: [{names}]}}}}")


def test_a_file_that_cannot_be_read(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    with pytest.raises(BadInput, match="No such file"):
        load(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="UTF-8"):
        load(tmp_path / "binary.yaml")


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        parse(text, source="lab.yaml")
    except BadInput as error:
        assert "\n" not in str(error)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2000) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "nodes", "guests", "policy", "x"]), inner)
    ),
    max_leaves=8,
)


@given(values)
def test_no_shape_does_more_than_be_refused(value: object) -> None:
    try:
        parse(json.dumps(value), source="lab.yaml")
    except BadInput as error:
        assert str(error).startswith("lab.yaml")


def test_the_schema_knows_what_the_reader_knows() -> None:
    told = schema()
    text = json.dumps(told)
    for key in ("nodes", "policy", "guests", "fault_domain", "update_domain", "last_address"):
        assert f'"{key}"' in text
    for key in ("availability_set", "properties", "dialects", "azure-v1", "imdsv1", "hop_limit"):
        assert f'"{key}"' in text
    assert '"additionalProperties": false' in text


WHOLE = """\
dialects: {gce: false, ec2: {imdsv1: false, hop_limit: 2}, azure: {rate: 50}}
properties: {region: westeurope, tags.team: web, zone: "1"}
nodes:
  node1:
    availability_set: front
    guests:
      - web1
      - {name: web2, availability_set: back, properties: {vm_id: 007, zone: , tags.off: no}}
  node2:
    dialects: {azure-v1: false, gce: true, ec2: {hop_limit: 3}, azure: false}
    properties: {region: northeurope}
    update_domain: 4
    guests: [db1, {name: db2, update_domain: 5, fault_domain: 6}]
"""


def test_properties_are_merged_and_are_texts_as_they_are_written() -> None:
    web1, web2, db1, _ = parse(WHOLE, source="lab.yaml").guests
    shared = {"region": "westeurope", "tags.team": "web", "zone": "1"}
    assert web1.properties == shared
    assert db1.properties == {**shared, "region": "northeurope"}
    # An empty one takes back what the lab says.
    assert web2.properties == {
        "region": "westeurope",
        "tags.team": "web",
        "vm_id": "007",
        "tags.off": "no",
    }


def test_sets_and_domains_are_the_guests_own_or_the_nodes() -> None:
    guests = parse(WHOLE, source="lab.yaml").guests
    assert [guest.availability_set for guest in guests] == ["front", "back", None, None]
    assert [guest.update_domain for guest in guests] == [0, 1, 4, 5]
    assert [guest.fault_domain for guest in guests] == [0, 0, 1, 6]


def test_a_node_speaks_what_it_says_and_else_what_the_lab_says() -> None:
    one, two = (node.dialects for node in parse(WHOLE, source="lab.yaml").nodes)
    assert one.names == ("azure-v1", "azure", "ec2")
    assert (one.azure_rate, one.ec2_imdsv1, one.ec2_hop_limit) == (50, False, 2)
    assert two.names == ("ec2", "gce")
    assert (two.ec2_imdsv1, two.ec2_hop_limit) == (False, 3)
    (plain,) = parse("nodes: {n: {guests: 1}}", source="lab.yaml").nodes
    assert plain.dialects == Dialects()
    assert plain.dialects.names == ("azure-v1", "azure", "ec2", "gce")
    some = parse(
        "dialects: {openstack: true}\n"
        "nodes: {a: {guests: 1}, b: {guests: 1, dialects: {openstack: false, gce: false}}}",
        source="lab.yaml",
    )
    assert some.nodes[0].dialects.names[-1] == "openstack"
    assert some.nodes[1].dialects.names == ("azure-v1", "azure", "ec2")


def test_azures_manners_are_the_nodes_or_the_labs() -> None:
    text = """
dialects: {azure: {events_delay: 120, incarnation_restarts: true}}
nodes:
  one: {guests: 1}
  two: {guests: 1, dialects: {azure: {events_delay: 0}}}
"""
    one, two = (node.dialects for node in parse(text, source="lab.yaml").nodes)
    assert (one.azure_events_delay, one.azure_incarnation_restarts) == (120, True)
    assert (two.azure_events_delay, two.azure_incarnation_restarts) == (0, True)
    for wrong in ("events_delay: 601", "events_delay: -1", "incarnation_restarts: 2"):
        with pytest.raises(BadInput, match="azure"):
            parse(f"dialects: {{azure: {{{wrong}}}}}\nnodes: {{n: {{guests: 1}}}}", source="x")


def test_the_caller_says_which_properties_there_are() -> None:
    def check(key: str, value: str) -> str | None:
        return None if key == "region" else f"unknown property; did you mean {value!r}?"

    for text, place in (
        ("properties: {x: y}\nnodes: {n: {guests: 1}}", "line 1: properties.x: "),
        ("nodes: {n: {guests: 1, properties: {x: y}}}", "nodes.n.properties.x: "),
        (
            "nodes:\n  n:\n    guests:\n    - name: a\n      properties: {a.b: y}",
            "line 5: nodes.n.guests[0].properties.a.b: ",
        ),
    ):
        with pytest.raises(BadInput) as caught:
            parse(text, source="lab.yaml", check_property=check)
        assert place + "unknown property; did you mean 'y'?" in str(caught.value)
    assert parse(
        "properties: {region: here}\nnodes: {n: {guests: 1}}",
        source="lab.yaml",
        check_property=check,
    )


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("properties: {a: {b: c}}\nnodes: {n: {guests: 1}}", "properties.a", "one text"),
        ("properties: [a]\nnodes: {n: {guests: 1}}", "properties", "a mapping"),
        ("dialects: {ec3: true}\nnodes: {n: {guests: 1}}", "dialects.ec3", "did you mean 'ec2'?"),
        (
            "nodes: {n: {guests: 1, dialects: {ec2: {hop_limit: 65}}}}",
            "nodes.n.dialects.ec2.hop_limit",
            "<= 64",
        ),
        ("dialects: {azure: {rate: -1}}\nnodes: {n: {guests: 1}}", "dialects.azure.rate", ">= 0"),
        ("dialects: {gce: {}}\nnodes: {n: {guests: 1}}", "dialects.gce", "true or false"),
        ("nodes: {n: {guests: 1, processes: 0}}", "nodes.n.processes", ">= 1"),
        ("nodes: {n: {guests: 1, processes: 65}}", "nodes.n.processes", "<= 64"),
        (
            "nodes: {n: {guests: [{name: a, availability_set: a b}]}}",
            "nodes.n.guests[0].availability_set",
            "1 to 63",
        ),
        ('nodes: {n: {guests: ["\\ud800"]}}', "nodes.n.guests[0]", "half a character"),
        ('{"\\ud800": 1}', "line 1", "half a character"),
        ("?", "line 1", "unknown key"),
    ],
)
def test_what_is_wrong_with_metadata_is_said_with_its_place(
    text: str, place: str, words: str
) -> None:
    said = refused(text)
    assert place in said
    assert words in said


def test_a_node_may_be_called_properties_or_by_a_number() -> None:
    lab = parse("nodes: {properties: {guests: 2}, 1: {guests: 1}}", source="lab.yaml")
    assert [len(node.guests) for node in lab.nodes] == [2, 1]
    assert lab.nodes[1].name == "1"


def test_a_nodes_responder_may_be_several_processes() -> None:
    text = "nodes: {n1: {guests: 1, processes: 2}, n2: {guests: 1}}"
    assert [node.processes for node in parse(text, source="lab.yaml").nodes] == [2, 1]
