"""pyroute2's route netlink messages, without the rest of it.

To import pyroute2 is to import all that it has: 140 modules more than these messages need, and a
tenth of a second at each lab's start. So its package stays empty while they are imported, and none
of it stays in sys.modules: a program that imports pyroute2 later gets the whole, as always.
"""

import importlib.util
import sys
from typing import Any


def _imported() -> tuple[Any, ...]:
    from pyroute2.netlink.rtnl.fibmsg import fibmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    return fibmsg, ifaddrmsg, ifinfmsg, ndmsg, rtmsg


def _imported_alone() -> tuple[Any, ...]:
    spec = importlib.util.find_spec("pyroute2")
    assert spec is not None
    sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    try:
        return _imported()
    finally:
        for name in [one for one in sys.modules if one.partition(".")[0] == "pyroute2"]:
            del sys.modules[name]


fibmsg, ifaddrmsg, ifinfmsg, ndmsg, rtmsg = (
    _imported() if "pyroute2" in sys.modules else _imported_alone()
)
