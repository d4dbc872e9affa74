"""A node's name server: the metadata service's names, as its clouds have them. Runs in the
supervisor's loop.

It is asked over UDP by the guests that are leased their addresses. The guard limits each one's
rate, and lets the answer out by the port of the guest that asked.
"""

import asyncio
import logging
import socket
from typing import Final, Self

from netemu.kernel import sockets
from netemu.kernel.namespaces import inside
from netemu.linklocal import addresses, dns
from netemu.supervisor.guests import etc_hosts
from netemu.supervisor.nodes.wiring import WiredNode

log = logging.getLogger(__name__)

# Queries read before the loop turns to others.
_AT_A_TIME: Final = 32


class NameServer:
    """Answers the guests of one node."""

    def __init__(self, node: WiredNode) -> None:
        self._node = node
        own = addresses.METADATA.to_bytes(4, "big")
        self._names = dict.fromkeys(etc_hosts.service_names(node.node), own)
        self._socket: socket.socket

    def open(self) -> Self:
        """Listen on the node's bridge."""
        with inside(self._node.net):
            self._socket = sockets.for_names(addresses.METADATA_TEXT, dns.PORT)
        asyncio.get_running_loop().add_reader(self._socket, self._readable)
        return self

    def _readable(self) -> None:
        for _ in range(_AT_A_TIME):
            try:
                data, mark, peer = sockets.receive_from(self._socket, dns.LONGEST + 1)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("%s: %s", self._node.node.name, error)
                return
            query = dns.parse(data)
            if query is None:
                continue
            try:
                sockets.send_marked(self._socket, dns.answer(query, self._names), mark, peer)
            except OSError as error:
                log.debug("%s: an answer is lost: %s", self._node.node.name, error)
