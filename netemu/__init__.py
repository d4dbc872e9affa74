"""An emulated cloud host network: nodes, guests and the wires between them, on one Linux box.

The rooms, and the one way in which they import each other:

    cli  →  lab  →  topology, linklocal, kernel
            lab  →  hostagent (its public names only)

* ``topology``   what a lab file says, validated; pure.
* ``linklocal``  RFC 3927 for guests and the node's side of it; pure but for its shell.
* ``kernel``     the only room that speaks to the kernel: namespaces, netlink, nft, raw sockets.
* ``lab``        brings all of it up and down, and answers for its state.
* ``drawing``    pictures of a lab as text; pure.
* ``cli``        thin; whatever it does, a Python caller can do through ``lab``.

Nothing here ever touches the machine's own network namespace.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netemu.client.api import Lab

__all__ = ["Lab", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`netemu.Lab`, imported when it is first used: `import netemu` costs nothing."""
    if name == "Lab":
        from netemu.client.api import Lab

        return Lab
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
