"""The roles in an attack, and the letters by which recipes name them."""

from dataclasses import dataclass, field
from typing import Final

from netemu.conformance.probe import Place
from netemu.linklocal.addresses import METADATA_TEXT
from netemu.topology import Policy

METADATA: Final = METADATA_TEXT
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
NOBODY: Final = "00:00:00:00:00:00"
HTTP: Final = 80

# Another address of the node, on which it serves something: from the block for documentation (RFC
# 5737). It is on the node's loopback while the suite plays.
ELSEWHERE: Final = "198.51.100.77"
SERVICE: Final = 8080


@dataclass(slots=True)
class Guest:
    """A guest as others know it, and the process at its wire.

    `port` is the node's end of the wire, "" if that is not known.
    """

    name: str
    mac: str
    address: str
    port: str
    place: Place


@dataclass(slots=True)
class Cast:
    """The participants: at least two guests of a node, and the node."""

    policy: Policy
    attacker: Guest
    victim: Guest
    node: Place
    bystander: Guest | None = None
    far: Guest | None = None
    far_node: Place | None = None
    metadata: str = METADATA
    others: list[Place] = field(default_factory=list)  # ended with the rest

    @property
    def guests(self) -> list[Guest]:
        """All guests that listen."""
        return [self.attacker, self.victim, *filter(None, [self.bystander, self.far])]

    @property
    def nodes(self) -> list[Place]:
        """All nodes that listen."""
        return [self.node, *filter(None, [self.far_node])]


class Letters:
    """The participants by the catalogue's letters.

    `m1` and `i1` are the attacker's MAC and address, `m2` and `i2` the victim's, `m3` and `i3`
    those of a third guest of the node, `mf` and `if_` those of a guest of another node, `bridge`
    the node's MAC, and `md` its address.
    """

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.one, self.two = cast.attacker, cast.victim
        self.three = cast.bystander or cast.victim
        self.md = cast.metadata
        self.bridge = ""

    @property
    def m1(self) -> str:
        """The attacker's MAC."""
        return self.one.mac

    @property
    def i1(self) -> str:
        """The attacker's address."""
        return self.one.address

    @property
    def m2(self) -> str:
        """The victim's MAC."""
        return self.two.mac

    @property
    def i2(self) -> str:
        """The victim's address."""
        return self.two.address

    @property
    def m3(self) -> str:
        """The MAC of a third guest of the node; the victim's if there is none."""
        return self.three.mac

    @property
    def i3(self) -> str:
        """The address of a third guest of the node; the victim's if there is none."""
        return self.three.address

    @property
    def mf(self) -> str:
        """The MAC of a guest of another node, or one that is not in use."""
        return self.cast.far.mac if self.cast.far else "02:00:5e:00:53:01"

    @property
    def if_(self) -> str:
        """The address of a guest of another node, or one that is not in use."""
        return self.cast.far.address if self.cast.far else "169.254.77.77"
