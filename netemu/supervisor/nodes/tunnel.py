"""Keeps the carrier of the tenant network's frames between machines. Runs in the supervisor.

It tells the carrier who the other machines are: again when one of them has changed, and when
another carrier has begun. What it is told goes by a socket pair that outlives a carrier.
"""

import asyncio
import logging
import socket
from typing import Final

import msgspec

from netemu.kernel.descriptor_link import close_all, receive, send
from netemu.supervisor.nodes.node_services import STATE, is_root
from netemu.supervisor.nodes.services import Service
from netemu.tunnel.messages import Peers

log = logging.getLogger(__name__)

# What it becomes when the lab is root's: see `AGENT_USER`.
CARRIER_USER: Final = 61905


class Tunnel:
    """The way to other machines."""

    def __init__(self, link: socket.socket, service: Service) -> None:
        self.service = service
        self._link = link
        self._peers: Peers | None = None

    @classmethod
    def open(cls, outer: socket.socket, inner: socket.socket) -> "Tunnel":
        """Start the carrier between `outer`, UDP outside, and `inner`, on the network's end.

        Both stay open, for the next one.
        """
        link, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        service = Service(
            "carrier",
            ["netemu.tunnel.carrier", *(["--user", str(CARRIER_USER)] if is_root() else [])],
            sockets=[
                ("link", theirs.detach()),
                ("outer", outer.fileno()),
                ("inner", inner.detach()),
            ],
            log_descriptor=2,
            notices=STATE / "carrier.notices",
        )
        self = cls(link, service)
        asyncio.get_running_loop().add_reader(link, self._hello)
        service.start()
        return self

    def tell(self, peers: Peers) -> None:
        """Have these other machines from now on."""
        if peers != self._peers:
            self._peers = peers
            self._send()

    def _send(self) -> None:
        if self._peers is None:
            return
        try:
            send(self._link, msgspec.to_builtins(self._peers), [])
        except OSError as error:  # it is slow, or has ended: the next one asks
            log.warning("the carrier cannot be told: %s", error)

    def _hello(self) -> None:
        """A carrier has begun, and knows nobody."""
        try:
            _, descriptors, _ = receive(self._link)
        except OSError:
            return
        close_all(descriptors)
        self._send()

    def stop(self) -> None:
        """End it: the lab goes down."""
        asyncio.get_running_loop().remove_reader(self._link)
        self.service.stop()
