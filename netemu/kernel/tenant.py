"""The tenant network's guard, rendered from a template that a person can read."""

from collections.abc import Iterator, Sequence
from typing import Final

from netemu.kernel.guard import (
    BROADCAST_BURST,
    BROADCASTS_PER_SECOND,
    PORTS_AT_ONCE,
    fill_in,
    template,
)

# Addresses in one transaction, beside PORTS_AT_ONCE ports: a fifth of what fits.
_ADDRESSES_AT_ONCE: Final = 500


# Its name, the MAC of the guest behind it, and the guest's addresses.
Port = tuple[str, str, Sequence[str]]


# The port that leads to other machines, and the carrier's end of its wire.
MACHINES: Final = "machines"
TUNNEL: Final = "tunnel"


def pieces(ports: Sequence[Port], elsewhere: Sequence[Port] | None = None) -> Iterator[str]:
    """The rules for these ports, in pieces that anybody's nft can load.

    `elsewhere` are the ports that guests of other machines would have here; None: there are none,
    and nothing leads to other machines.
    """
    rates = {"broadcast_rate": BROADCASTS_PER_SECOND, "broadcast_burst": BROADCAST_BURST}
    crossing = "" if elsewhere is None else template("tenant_crossing.nft")
    text = fill_in(template("tenant.nft"), {**rates, "crossing": crossing})
    for some in _shares(ports):
        own = (f'"{port}" . {mac} . {address}' for port, mac, held in some for address in held)
        stations = ", ".join(mac for _, mac, _ in some)
        chains = "\n    ".join(_port(port) for port, _, _ in some)
        yield f"""{text}add element netdev tenant stations {{ {stations} }}
add element netdev tenant own {{ {", ".join(own)} }}
table netdev tenant {{
    {chains}
}}
"""
        text = ""
    if text:
        yield text
    if elsewhere is not None:
        yield from _known([*ports, *elsewhere])
        if ports:
            yield f"add element netdev tenant here {{ {', '.join(mac for _, mac, _ in ports)} }}\n"


def _shares(ports: Sequence[Port]) -> Iterator[list[Port]]:
    share: list[Port] = []
    addresses = 0
    for port in ports:
        if len(share) == PORTS_AT_ONCE or addresses + len(port[2]) > _ADDRESSES_AT_ONCE:
            yield share
            share, addresses = [], 0
        share.append(port)
        addresses += len(port[2])
    if share:
        yield share


def _known(ports: Sequence[Port]) -> Iterator[str]:
    """The elements that guests of a lab on several machines have on each of them."""
    for some in _shares(ports):
        held = [(port, mac, address) for port, mac, addresses in some for address in addresses]
        guests = ", ".join(f"{mac} . {address}" for _, mac, address in held)
        own = ", ".join(f'"{port}" . {mac} . {address}' for port, mac, address in held)
        yield f"""add element netdev tenant guests {{ {guests} }}
add element netdev tenant stations {{ {", ".join(mac for _, mac, _ in some)} }}
add element netdev tenant own {{ {own} }}
"""


def comes(port: str, mac: str) -> str:
    """The rules of a port of a guest that comes from another machine."""
    return f"{one_more(port)}add element netdev tenant here {{ {mac} }}\n"


def goes(port: str, mac: str) -> str:
    """The commands that remove them."""
    return f"{one_less(port)}\ndelete element netdev tenant here {{ {mac} }}"


def _port(port: str) -> str:
    return f"""chain in_{port} {{
        type filter hook ingress device "{port}" priority 0; policy drop;
        goto from_guest
    }}"""


def one_more(port: str) -> str:
    """The rules of a port that was made again. Its guest's addresses are still in the sets."""
    return f"table netdev tenant {{\n    {_port(port)}\n}}\n"


def one_less(port: str) -> str:
    """The command that removes them."""
    return f"delete chain netdev tenant in_{port}"
