"""What stands in a guest's /etc/hosts."""

import pytest

from netemu.supervisor.guests import etc_hosts
from netemu.topology import Guest, Node
from netemu.topology.lab import Dialects


def guest(name: str, *tenant: str) -> Guest:
    return Guest(
        name=name, mac="02:00:00:00:00:01", mark=1, update_domain=0, fault_domain=0, tenant=tenant
    )


def looked_up(text: str) -> dict[str, str]:
    """The first address of each name, as the C library has it."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        address, *called = line.split()
        for name in called:
            if ":" not in address:
                found.setdefault(name, address)
    return found


@pytest.mark.parametrize("gce", [True, False])
@pytest.mark.parametrize("ec2", [True, False])
def test_a_cloud_has_its_name_where_it_is_spoken(gce: bool, ec2: bool) -> None:
    node = Node(name="n", mac="02:00:00:00:00:02", guests=(), dialects=Dialects(gce=gce, ec2=ec2))
    found = looked_up(etc_hosts.hosts(guest("a"), node, ""))
    service = "169.254.169.254"
    assert found.get("metadata.google.internal") == (service if gce else None)
    assert found.get("metadata") == (service if gce else None)
    assert found.get("metadata.google.internal.") == (service if gce else None)  # as Ohai asks
    assert found.get("instance-data") == (service if ec2 else None)
    assert found["localhost"] == "127.0.0.1"


def test_a_guest_can_resolve_its_own_name_and_those_of_the_tenant_network() -> None:
    node = Node(name="n", mac="02:00:00:00:00:02", guests=())
    alone, web = guest("alone"), guest("web", "198.18.0.1", "198.18.0.2")
    lines = etc_hosts.tenants((alone, web))
    assert looked_up(etc_hosts.hosts(alone, node, lines))["alone"] == "127.0.1.1"
    for one in (alone, web):
        assert looked_up(etc_hosts.hosts(one, node, lines))["web"] == "198.18.0.1"


def test_a_guest_can_resolve_what_it_calls_itself() -> None:
    """Its cloud's name for it comes first, as its canonical one; the lab's still works."""
    node = Node(name="n", mac="02:00:00:00:00:02", guests=())
    alone, web = guest("alone"), guest("web", "198.18.0.1")
    lines = etc_hosts.tenants((alone, web))
    text = etc_hosts.hosts(alone, node, lines, "x.example")
    assert "127.0.1.1\tx.example alone\n" in text
    text = etc_hosts.hosts(web, node, lines, "x")
    assert looked_up(text)["x"] == looked_up(text)["web"] == "198.18.0.1"
    text = etc_hosts.hosts(alone, node, lines, "metadata")
    assert looked_up(text)["metadata"] == "169.254.169.254"
