"""A claimant under test: the guest that it claims for, that guest's wire, and a claim's time."""

import json
from typing import Any, Final

from netemu.conformance.probe import Place
from netemu.conformance.rfc3927.claimants import Claimant
from netemu.conformance.rfc3927.rows import FAIL, PASS
from netemu.conformance.rfc3927.wire import LATE, Wire, is_announcement, is_probe
from netemu.conformance.row import Observed
from netemu.errors import NotSo
from netemu.interfaces import BRIDGE, GUEST_WIRE, octets, port_name
from netemu.linklocal import addresses
from netemu.linklocal.arp import Arp
from netemu.linklocal.timing import Timing

# A program may take this long to start before it begins to wait, whatever the time scale.
START: Final = 2.0


class Subject:
    """One claimant in one guest; `told` has the outcome of each row so far."""

    def __init__(
        self,
        node: Place,
        wire: Place,
        guest: dict[str, Any],
        claimant: Claimant,
        timing: Timing,
        other: str,
    ) -> None:
        self.told: dict[str, Observed] = {}
        self._node = node
        self._guest = wire
        self._name = guest["name"]
        self._mac = octets(guest["mac"])
        other_mac = octets(other)
        self._link = Wire(node, port_name(guest["port_mark"]), other_mac)
        self._claimant = claimant
        self._timing = timing

    def _settle(self, row: str, good: bool, *evidence: str) -> None:
        self.told[row] = Observed(PASS if good else FAIL, list(evidence))

    # The times of a claim.

    @property
    def _longest_claim(self) -> float:
        """Seconds until a claim that meets no conflict is announced."""
        timing = self._timing
        probing = timing.probe_wait + (timing.probe_num - 1) * timing.probe_max
        return START + probing + timing.announce_wait + LATE

    def _restart(self) -> None:
        self._claimant.stop()
        self._link.fresh()  # take the time first: the first probe may come at once
        self._claimant.start()

    def _first_probe(self) -> Arp:
        heard = self._link.until(START + self._timing.probe_wait + LATE, is_probe)
        if heard is None or heard.arp is None:
            raise NotSo(f"{self._claimant.name}: does not probe")
        return heard.arp

    def _claimed(self) -> int:
        """Start again, and wait until an address is announced: that address."""
        self._restart()
        return self._await_claim()

    def _await_claim(self) -> int:
        heard = self._link.until(self._longest_claim, is_announcement)
        if heard is None or heard.arp is None:
            raise NotSo(f"{self._claimant.name}: announces nothing")
        # Wait for its second announcement, so that it is not taken for a reaction.
        both = self._timing.announce_interval + LATE
        self._link.until(both, lambda one: is_announcement(one) and one.at > heard.at)
        return heard.arp.sender_ip

    # The guest's addresses, and its node's entries for it.

    def _bindings(self) -> list[int]:
        _, out, _ = self._node.run("ip", "-j", "-4", "neighbour", "show", "dev", BRIDGE)
        return [addresses.from_text(one["dst"]) for one in json.loads(out or "[]")]

    def _bound(self) -> int:
        """The link-local address that the guest's interface has now."""
        for one in self._addresses():
            if one["local"].startswith("169.254."):
                return addresses.from_text(one["local"])
        return self._claimed()

    def _prefix_length(self, address: str) -> int:
        return next((one["prefixlen"] for one in self._addresses() if one["local"] == address), 0)

    def _addresses(self) -> list[dict[str, Any]]:
        _, out, _ = self._guest.run("ip", "-j", "-4", "address", "show", "dev", GUEST_WIRE)
        return [one for link in json.loads(out or "[]") for one in link.get("addr_info", [])]
