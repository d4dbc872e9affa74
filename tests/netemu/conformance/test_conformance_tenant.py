"""With a second interface, eth1: all that is tried over eth0, over the tenant network as well.

Nothing of 169.254/16 passes there, nobody is another there, and it is no way around the guard of
the first.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from netemu.client import labs
from netemu.conformance.inside import Inside
from netemu.conformance.labstage import LabStage, running
from netemu.conformance.probe import Place
from netemu.conformance.rows import CATALOGUE
from netemu.conformance.suite import play
from netemu.topology import parse
from tests.netemu.conformance.families import FAMILIES, built, mutations
from tests.netemu.conformance.law import TenantLaw

pytestmark = [pytest.mark.lab, pytest.mark.long]

SCALE = 0.1
BATCH = 400
LAB = """
name: tenants
policy: same-node
nodes:
  node1: {guests: [web1, web2, web3], tenant: true}
  node2: {guests: [db1], tenant: true}
"""


@dataclass(slots=True)
class Tenant:
    """A guest on the tenant network: who it is there, and a process at its eth1."""

    mac: str
    address: str
    place: Place


@dataclass(slots=True)
class Cast:
    """Who is who for a recipe: what it takes from a stage, and no more."""

    m1: str
    i1: str
    m2: str
    i2: str
    m3: str
    i3: str
    mf: str
    if_: str
    bridge: str
    md: str
    port_macs: list[str]
    token: bytes
    port: int = 21000


class Network:
    """The tenant network: the attacker at one eth1, and taps at all others."""

    def __init__(self, attacker: Tenant, others: list[Tenant], token: bytes) -> None:
        self.attacker, self.others, self.token = attacker, others, token
        self.law = TenantLaw(attacker.mac, attacker.address, token)

    def attack(self, frames: Iterable[Packet | bytes]) -> tuple[int, list[str]]:
        """Send them over eth1: how many were seen, and what breaks the law."""
        rest = iter(frames)
        seen = 0
        while batch := [built(one) + self.token for one in islice(rest, BATCH)]:
            self.attacker.place.send(batch)
            for other in self.others:
                heard = self._heard(other)
                seen += sum(self.token in frame for frame in heard)
                broken = [one.hex() for one in heard if not self.law.allows(other.mac, one)]
                if broken:
                    return seen, [f"{other.place.name}: {one}" for one in broken]
        return seen, []

    def _heard(self, other: Tenant) -> list[bytes]:
        """What came by another's eth1 until an honest question of the attacker's did."""
        canary = b"\xca\x9c" + os.urandom(8)
        one = self.attacker
        asking = Ether(dst=other.mac, src=one.mac) / ARP(
            hwsrc=one.mac, psrc=one.address, pdst=other.address
        )
        one.place.send([bytes(asking) + canary])
        whole, heard = other.place.call(Inside.take, canary, 2.0)
        assert whole, f"{other.place.name} does not hear an honest question"
        return [frame for _, outgoing, frame in heard if not outgoing]


@pytest.fixture(scope="module")
def stage() -> Iterator[LabStage]:
    place = Path(f"/tmp/nt-tenant-{os.getpid()}")
    place.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETEMU_RUNTIME_DIR", str(place))
        with running(parse(LAB, source="tenants"), SCALE) as made:
            made.begin(CATALOGUE[0][1], 1)
            yield made
    (place / ".netemu").unlink(missing_ok=True)
    place.rmdir()


@pytest.fixture(scope="module")
def network(stage: LabStage) -> Iterator[Network]:
    with ExitStack() as stack:
        attacker, *others = [
            _tenant(stage, name, stack) for name in ("web1", "web2", "web3", "db1")
        ]
        yield Network(attacker, others, stage.token)


def _tenant(stage: LabStage, name: str, stack: ExitStack) -> Tenant:
    place = Place(name, "eth1").start(labs.enter(stage.lab, name))
    stack.callback(place.close)
    place.ready()
    mac = place.call(Inside.listen, "eth1", 3, True)
    _, out, _ = place.run("ip", "-j", "-4", "address", "show", "dev", "eth1")
    return Tenant(mac, json.loads(out)[0]["addr_info"][0]["local"], place)


def casts(stage: LabStage, network: Network) -> dict[str, Cast]:
    """As on eth0, its MACs and addresses and all; and with those of eth1 in their places."""
    one, two, three, far = network.attacker, *network.others
    first = Cast(
        *(stage.m1, stage.i1, stage.m2, stage.i2, stage.m3, stage.i3, stage.mf, stage.if_),
        *(stage.bridge, stage.md, stage.port_macs, stage.token),
    )
    second = Cast(
        *(one.mac, one.address, two.mac, two.address, three.mac, three.address),
        *(far.mac, far.address, two.mac, stage.md, stage.port_macs, stage.token),
    )
    third = Cast(
        *(one.mac, one.address, two.mac, two.address, three.mac, three.address),
        *(far.mac, far.address, two.mac, two.address, stage.port_macs, stage.token),
    )
    return {"as on eth0": first, "to the responder": second, "to each other": third}


@pytest.mark.parametrize("cast", ["as on eth0", "to the responder", "to each other"])
def test_over_eth1_nobody_is_another_and_nothing_is_link_local(
    stage: LabStage, network: Network, cast: str
) -> None:
    who = casts(stage, network)[cast]
    stage.victim.call(Inside.drop)
    stage.node.call(Inside.drop)
    seen = 0
    for name, family in [*FAMILIES.items(), ("mutations", mutations)]:
        passed, broken = network.attack(family(who))
        assert not broken, f"{name}: {broken[:3]}"
        seen += passed
    # That the way is open at all shows where they speak as who they are.
    assert (seen > 0) == (cast != "as on eth0")
    leaked = [
        frame
        for place in (stage.victim, stage.node)
        for _, _, frame in place.call(Inside.heard)
        if stage.token in frame
    ]
    assert not leaked
    assert stage.control()


def test_the_rows_hold_beside_a_tenant_network_and_nothing_of_them_is_seen_there(
    stage: LabStage, network: Network
) -> None:
    rows = [(family, row) for family, row in CATALOGUE if row.recipe is not None]
    for one in network.others:
        one.place.call(Inside.drop)
    results = play(stage, rows)
    assert [one.row.id for one in results if not one.ok] == []
    attacks = {frame for one in results for frame in one.sent}
    for other in network.others:
        assert not attacks & {frame for _, _, frame in other.place.call(Inside.heard)}
