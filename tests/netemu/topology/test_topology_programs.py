"""The lab file's `tenant` and `run`: what they become, and what is refused in which words."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.errors import BadInput
from netemu.topology import Guest, load, parse

NETWORK = ipaddress.IPv4Network("198.18.0.0/15")


def guests(text: str) -> dict[str, Guest]:
    return {one.name: one for one in parse(text, source="lab.yaml").guests}


def refused(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        parse(text, source="lab.yaml")
    said = str(caught.value)
    assert "\n" not in said
    assert caught.value.exit_code == 2
    return said


def test_tenant_addresses_are_dealt_in_the_files_order() -> None:
    lab = guests(
        """
nodes:
  n1: {tenant: true, guests: [a, {name: b, tenant: false}, {name: c, tenant: 3}]}
  n2: {guests: [d, {name: e, tenant: true}]}
"""
    )
    assert {name: one.tenant for name, one in lab.items()} == {
        "a": ("198.18.0.1",),
        "b": (),
        "c": ("198.18.0.2", "198.18.0.3", "198.18.0.4"),
        "d": (),
        "e": ("198.18.0.5",),
    }


@given(st.lists(st.sampled_from([None, False, True, 1, 2, 64]), min_size=1, max_size=20))
def test_every_address_is_the_networks_and_one_guests(counts: list[int | bool | None]) -> None:
    rows = [
        f"{{name: g{place}{'' if count is None else f', tenant: {str(count).lower()}'}}}"
        for place, count in enumerate(counts)
    ]
    lab = guests(f"nodes: {{n: {{guests: [{', '.join(rows)}]}}}}")
    dealt = [address for one in lab.values() for address in one.tenant]
    assert [len(one.tenant) for one in lab.values()] == [int(count or 0) for count in counts]
    assert len(set(dealt)) == len(dealt)
    assert all(ipaddress.IPv4Address(one) in NETWORK for one in dealt)
    assert NETWORK.network_address not in map(ipaddress.IPv4Address, dealt)


def test_the_largest_tenant_network_is_within_its_addresses() -> None:
    lab = guests("nodes: {n: {guests: 1023, tenant: 64}}")
    last = ipaddress.IPv4Address(lab["n-1023"].tenant[-1])
    assert last in NETWORK
    assert last != NETWORK.broadcast_address
    assert len({address for one in lab.values() for address in one.tenant}) == 1023 * 64


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("0", "expected `int` >= 1"),
        ("-1", "expected `int` >= 1"),
        ("65", "expected `int` <= 64"),
        ("maybe", "true or false or a whole number or nothing is expected here, this is a text"),
    ],
)
def test_what_tenant_cannot_be(value: str, said: str) -> None:
    text = f"nodes: {{n: {{guests: [{{name: a, tenant: {value}}}]}}}}"
    told = refused(text)
    assert told.endswith(said)
    assert "tenant" in told
    assert "guests[0]" in told


def test_more_tenants_than_a_bridge_has_ports() -> None:
    told = refused("nodes: {n1: {guests: 1000, tenant: true}, n2: {guests: 24, tenant: true}}")
    assert told == "lab.yaml: line 1: nodes.n2.guests: the tenant network takes at most 1023 guests"


def test_run_is_a_shells_line_or_words() -> None:
    lab = guests(
        """
nodes:
  n1:
    run: echo $HOME
    guests:
      - a
      - {name: b, run: [python3, -c, "print(1)"]}
      - {name: c, run: ""}
  n2: {guests: [d]}
"""
    )
    assert {name: one.run for name, one in lab.items()} == {
        "a": ("/bin/sh", "-c", "echo $HOME"),
        "b": ("python3", "-c", "print(1)"),
        "c": (),  # an empty one is none, though the node has one
        "d": (),
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[]", "a program is a command line, or a list of at least one word"),
        ("7", "a text or a list or nothing is expected here, this is a whole number"),
        ("[echo, 7]", "a text is expected here, this is a whole number"),
    ],
)
def test_what_run_cannot_be(value: str, said: str) -> None:
    told = refused(f"nodes: {{n: {{guests: [a], run: {value}}}}}")
    assert told.endswith(said)
    assert "nodes.n.run" in told


def test_programs_start_where_the_lab_file_is(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("nodes: {n: {guests: [a], run: ./serve}}")
    assert load(path).directory == str(tmp_path)
    assert parse(path.read_text(), source="x").directory == "/"


def test_what_is_wrong_is_said_with_its_line() -> None:
    text = """nodes:
  n1:
    tenant: true
    guests:
      - a
      - name: b
        {}
"""
    place = "lab.yaml: line 7: nodes.n1.guests[1]"
    known = (
        "known here are availability_set, dhcp, fault_domain, last_address, link, machine, "
        "name, properties, run, shutdown, tenant, tenant_link, update_domain"
    )
    assert refused(text.format("run: []")) == (
        f"{place}.run: a program is a command line, or a list of at least one word"
    )
    assert refused(text.format("tenant: 65")) == f"{place}.tenant: expected `int` <= 64"
    assert refused(text.format("tenants: 1")) == (
        f"{place}.tenants: unknown key; did you mean 'tenant'? {known}"
    )
    assert refused(text.format("runs: x")) == (
        f"{place}.runs: unknown key; did you mean 'run'? {known}"
    )


# `share`


def test_shared_directories_are_taken_from_where_the_file_is() -> None:
    text = "share: [out, ../more, /var/x]\nnodes: {n: {guests: [a]}}"
    lab = parse(text, source="lab.yaml", directory=Path("/srv/labs"))
    assert lab.shared == ("/srv/labs/out", "/srv/more", "/var/x")
    assert parse("nodes: {n: {guests: [a]}}", source="lab.yaml").shared == ()


@pytest.mark.parametrize(
    ("share", "place"),
    [("out", "share"), ("['']", "share[0]"), ("[[a]]", "share[0]"), (str(["x"] * 17), "share")],
)
def test_what_cannot_be_shared_is_named(share: str, place: str) -> None:
    assert f"line 1: {place}: " in refused(f"share: {share}\nnodes: {{n: {{guests: [a]}}}}")
