"""The tenant network's guard, rendered from a template that a person can read."""

from collections.abc import Sequence
from pathlib import Path

from netemu.kernel.guard import SHOUT_BURST, SHOUTS_PER_SECOND, elements, fill_in


def render(ports: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """The rules for `ports`: (name, MAC of the guest behind it, the guest's addresses)."""
    return fill_in(
        Path(__file__).with_name("tenant.nft"),
        {
            "own": elements(
                f'"{port}" . {mac} . {address}' for port, mac, own in ports for address in own
            ),
            "stations": elements(mac for _, mac, _ in ports),
            "shout_rate": SHOUTS_PER_SECOND,
            "shout_burst": SHOUT_BURST,
            "ports": "\n    ".join(_port(port) for port, _, _ in ports),
        },
    )


def _port(port: str) -> str:
    return f"""chain in_{port} {{
        type filter hook ingress device "{port}" priority 0; policy drop;
        goto from_guest
    }}"""


def one_more(port: str) -> str:
    """The rules of a port that was made again; what its guest may send is known already."""
    return f"table netdev tenant {{\n    {_port(port)}\n}}\n"


def one_less(port: str) -> str:
    """What takes them away."""
    return f"delete chain netdev tenant in_{port}"
