"""The claimants under test: our guests, and other programs inside guests.

Another program gets a guest like any host: our claim's address is removed, and the kernel answers
ARP itself again. The program stores its state in a directory of the guest's own, so that nothing
stays on the machine.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from netemu.client import labs
from netemu.conformance.inside import Inside
from netemu.conformance.probe import Place
from netemu.errors import NotSo
from netemu.interfaces import GUEST_WIRE

_PATHS: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_MEMORY: Final = "/run/memory"

_ACTION: Final = """#!/bin/sh
# avahi-autoipd.action(8): BIND, CONFLICT, UNBIND or STOP; interface; address
case "$1" in
BIND) exec ip address add "$3/16" brd 169.254.255.255 scope link dev "$2" ;;
*) exec ip address del "$3/16" dev "$2" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A program that claims addresses: how to start it, and where it stores its addresses."""

    name: str
    program: str
    package: str
    command: Sequence[str]
    remembers_in: str
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> str:
        """How to install it, as a sentence; "" if it is installed."""
        if shutil.which(self.program, path=_PATHS) is None:
            return f"{self.name} is not installed: apt-get install {self.package}"
        # In an ordinary user's lab there is no other user to switch to.
        if os.geteuid() != 0:
            return f"{self.name} runs as root only, to give its privileges up by itself"
        return ""


FOREIGN: Final = (
    Foreign(
        name="avahi-autoipd",
        program="avahi-autoipd",
        package="avahi-autoipd",
        command=(
            *("avahi-autoipd", "--no-drop-root", "--no-chroot", "--force-bind"),
            *("-t", "/run/autoipd.action", GUEST_WIRE),
        ),
        remembers_in="/var/lib/avahi-autoipd",
        files={"/run/autoipd.action": _ACTION},
    ),
    Foreign(
        name="dhcpcd",
        program="dhcpcd",
        package="dhcpcd-base",
        command=(
            *("dhcpcd", "-B", "-4", "--nodhcp", "--noipv6rs", "-f", "/dev/null"),
            *("-c", "/bin/true", GUEST_WIRE),
        ),
        remembers_in="/var/lib/dhcpcd",
    ),
)


class OurClaimant:
    """A guest of the lab as it is: to start again, it is rebooted."""

    name = "ours"

    def __init__(self, lab: str, guest: str, wire: Place) -> None:
        self._lab = lab
        self._guest = guest
        self._wire = wire

    def stop(self) -> None:
        """Have it send nothing any more."""
        self._wire.run("ip", "link", "set", GUEST_WIRE, "down")

    def start(self) -> None:
        """Start again, with what it remembers."""
        labs.reboot(self._lab, self._guest)
        self._wire.again(labs.enter(self._lab, self._guest))

    def forget(self) -> bool:
        """Begin with no memory the next time; False if it cannot be made to."""
        return False

    def close(self) -> None:
        """Leave the guest as it is."""


class ForeignClaimant:
    """A foreign program inside a guest."""

    def __init__(self, lab: str, guest: str, wire: Place, foreign: Foreign) -> None:
        self.name = foreign.name
        self._foreign = foreign
        self._wire = wire
        self._inside = Place(guest, GUEST_WIRE, wire=False).start(labs.enter(lab, guest))
        self._inside.ready()
        self._running = False
        self._prepare()

    def _prepare(self) -> None:
        """Make the guest an ordinary host: no address, no rules, and the kernel answers ARP."""
        for command in (
            ("ip", "address", "flush", "dev", GUEST_WIRE, "scope", "link"),
            ("ip", "rule", "del", "pref", "3927"),
            ("sysctl", "-qw", "net.ipv4.conf.eth0.arp_ignore=0"),
            ("sysctl", "-qw", "net.ipv4.neigh.eth0.ucast_solicit=3"),
        ):
            self._wire.run(*command)

    def stop(self) -> None:
        """Have it send nothing any more."""
        if self._running:
            self._inside.call(Inside.stop)
            self._wire.run("ip", "address", "flush", "dev", GUEST_WIRE, "scope", "link")
        self._running = False

    def start(self) -> None:
        """Start again, with what it remembers."""
        place, memory = self._foreign.remembers_in, _MEMORY
        script = f'mkdir -p {memory} && mount --bind {memory} {place} && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", *self._foreign.command]
        wrong = self._inside.call(Inside.start, command, dict(self._foreign.files))
        if wrong:
            raise NotSo(f"{self.name}: {wrong}")
        self._running = True

    def forget(self) -> bool:
        """Begin with no memory the next time."""
        self._inside.run("sh", "-c", f"rm -rf {_MEMORY}/*")
        return True

    def close(self) -> None:
        if self._running:
            self._inside.call(Inside.stop)
        self._inside.close()


Claimant = OurClaimant | ForeignClaimant
