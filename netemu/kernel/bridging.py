"""How a node's bridge may treat a port. Pure; `links` tells the kernel."""

import msgspec


class PortOptions(msgspec.Struct, frozen=True):
    """How a bridge treats a port. Broadcast goes out by it in any case.

    An isolated port reaches no other isolated one. A flood is of frames to a station that the
    bridge does not know; learning makes the sender of each frame known.
    """

    isolated: bool
    multicast_flood: bool
    unicast_flood: bool = False
    learning: bool = False


ISOLATED = PortOptions(isolated=True, multicast_flood=False)
TOGETHER = PortOptions(isolated=False, multicast_flood=True)
