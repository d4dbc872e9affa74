"""A stage on bridges and ports that somebody already has, named in a small file.

```yaml
policy: same-node                                   # whose verdicts; default: responder-only
node:     {netns: host1, interface: br0}            # where the bridge is, with an IPv4 address
attacker: {netns: vm1, interface: eth0}             # holds an address that the node accepts
victim:   {netns: vm2, interface: eth0}
bystander: {netns: vm3, interface: eth0}            # may be left out
```

`netns` is a name that `ip netns` knows, the path of a namespace, the ID of a process, or "" for the
machine's own. Rows that need a lab (its responder, its guard, its guests' claims) are left out.
While rows are played the node has one more address on its loopback and serves port 8080.
"""

import json
import os
from pathlib import Path
from typing import Any

import msgspec

from netemu.conformance.probe import Place
from netemu.conformance.roles import Cast, Guest
from netemu.conformance.row import Row
from netemu.conformance.stage import Stage
from netemu.errors import BadInput, NotSo
from netemu.topology import Policy
from netemu.topology.document import Document


class Spot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An interface, and the network namespace in which it is."""

    interface: str
    netns: str = ""
    port: str = ""  # a guest's: the node's end of its veth, if it has one


class Nodes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file."""

    node: Spot
    attacker: Spot
    victim: Spot
    bystander: Spot | None = None
    policy: Policy = Policy.RESPONDER_ONLY


def playable(row: Row) -> bool:
    """Whether the row makes sense where there is no lab."""
    return row.in_lab is None


def stage_of(path: Path) -> Stage:
    """The stage that the file describes; raises BadInput that says what is wrong in it."""
    try:
        nodes = msgspec.convert(Document(path.read_text(encoding="utf-8"), str(path)).value, Nodes)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from None
    node = _place("node", nodes.node)
    attacker, victim, bystander = (
        _guest(role, spot, node) if spot else None
        for role, spot in (
            ("attacker", nodes.attacker),
            ("victim", nodes.victim),
            ("bystander", nodes.bystander),
        )
    )
    assert attacker is not None
    assert victim is not None
    return Stage(
        Cast(
            policy=nodes.policy,
            attacker=attacker,
            victim=victim,
            node=node,
            bystander=bystander,
            metadata=_address(_link(node)),
        )
    )


def _guest(role: str, spot: Spot, node: Place) -> Guest:
    place = _place(role, spot)
    link = _link(place)
    port = spot.port or _peer(link, node)
    return Guest(place.name, link["address"], _address(link), port, place)


def _peer(link: dict[str, Any], node: Place) -> str:
    """The other end of a veth, if it is on the node; else ""."""
    _, out, _ = node.run("ip", "-j", "link", "show", "master", node.interface)
    ports = {one["ifindex"]: one["ifname"] for one in json.loads(out or "[]")}
    return str(ports.get(link.get("link_index"), ""))


def _place(role: str, spot: Spot) -> Place:
    name = Path(spot.netns).name or role
    if not spot.netns:
        place = Place(name, spot.interface).start({})
    else:
        try:
            namespace = os.open(_path(spot.netns), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise BadInput(f"{role}: netns {spot.netns}: {error.strerror}") from None
        place = Place(name, spot.interface).start({"net": namespace})
    place.ready()
    return place


def _path(netns: str) -> str:
    if "/" in netns:
        return netns
    return f"/proc/{netns}/ns/net" if netns.isdecimal() else f"/run/netns/{netns}"


def _link(place: Place) -> dict[str, Any]:
    """What ip(8) reports of the place's interface."""
    code, out, err = place.run("ip", "-j", "address", "show", "dev", place.interface)
    if code:
        raise BadInput(f"{place.name}: {err.strip()}")
    link: dict[str, Any] = json.loads(out)[0]
    if not any(one["family"] == "inet" for one in link["addr_info"]):
        raise NotSo(f"{place.name}: {place.interface} has no IPv4 address")
    return link


def _address(link: dict[str, Any]) -> str:
    return str(next(one["local"] for one in link["addr_info"] if one["family"] == "inet"))
