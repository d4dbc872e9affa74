"""Runs a node's DHCP server: one socket on its bridge. Runs in the supervisor's loop.

The guard lets a guest's requests through; their mark says the port. A port is leased the address
that the node's oracle has bound to it, or binds now.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, Self

from netemu.interfaces import Mark, octets
from netemu.kernel import packet
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses, bpf, dhcp
from netemu.linklocal.node_shell import NodeShell
from netemu.supervisor.nodes.wiring import WiredNode
from netemu.topology import Guest

log = logging.getLogger(__name__)

# Frames read before the loop turns to others; the guard limits each guest's rate.
_AT_A_TIME: Final = 32


class Leases:
    """`shell` runs the node's oracle; `claims_for` says for which guests the lab itself claims.

    Those are leased the address that was claimed for them, once it is bound. `by_mark` is whether a
    client is known by its port, and not by what it says of itself.
    """

    def __init__(
        self,
        node: WiredNode,
        shell: NodeShell,
        claims_for: Callable[[Mark], bool],
        *,
        by_mark: bool = True,
    ) -> None:
        self._node = node
        self._shell = shell
        self._claims_for = claims_for
        self._by_mark = by_mark
        self._mac = octets(node.node.mac)
        self._socket: socket.socket

    def open(self) -> Self:
        """Listen on the node's bridge."""
        with inside(self._node.net):
            self._socket = packet.for_leases(bpf.dhcp_requests())
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        return self

    def _readable(self) -> None:
        for _ in range(_AT_A_TIME):
            try:
                frame, mark = packet.receive_marked(self._socket)
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("%s: %s", self._node.node.name, error)
                return
            self._heard(frame, mark)

    def _heard(self, frame: bytes, mark: Mark) -> None:
        message = dhcp.parse(frame)
        if message is None:
            return
        guest = self._client(mark, message.mac)
        if guest is None or not guest.dhcp:
            return
        mark = guest.mark
        leased = self._shell.lease(mark, message.mac, grant=not self._claims_for(mark))
        said = dhcp.answer(message, leased, addresses.METADATA)
        if said is None:
            return
        azure = self._node.node.dialects.azure
        answer = dhcp.frame(
            message,
            said,
            addresses.METADATA,
            self._mac,
            guest.name,
            wire_server=addresses.WIRE_SERVER if azure else 0,
        )
        try:
            packet.send_marked(self._socket, answer, mark)
        except OSError as error:
            log.debug("%s: an answer is lost: %s", self._node.node.name, error)

    def _client(self, mark: Mark, mac: bytes) -> Guest | None:
        """The guest that asks, if it asks for itself."""
        for guest in (one.guest for one in self._node.guests):
            if octets(guest.mac) == mac and (guest.mark == mark or not self._by_mark):
                return guest
        return None
