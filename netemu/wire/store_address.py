"""Where a lab's commands are kept, if not on this machine: said by the user, passed to the lab.

`etcd://HOST[:PORT],HOST[:PORT]…`, and for TLS the files of a CA, a certificate and its key.
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from netemu.errors import BadInput
from netemu.topology.lab import MACHINE, MACHINE_RULE

PORT: Final = 2379
"""etcd's own, where none is said."""
MOST_SERVERS: Final = 9
_LABEL: Final = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SERVER: Final = re.compile(
    r"(?:\[(?P<v6>[0-9a-fA-F]*:[0-9a-fA-F:.]*)\]"
    rf"|(?P<host>(?=[^:]{{1,253}}(?::|$)){_LABEL}(?:\.{_LABEL})*))(?::(?P<port>[0-9]{{1,5}}))?"
)
_EXAMPLE: Final = "it would look like etcd://10.0.0.1:2379,10.0.0.2"


class StoreAddress(msgspec.Struct, frozen=True):
    """The servers (host and port), and this machine's name among those that share the store.

    `activity` is the run of the lab that the machine joins; None: the lab begins on it.
    """

    servers: tuple[tuple[str, int], ...]
    machine: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    activity: str | None = None

    def __str__(self) -> str:
        shown = [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers
        ]
        return f"etcd://{','.join(shown)}"


def parse(
    text: str,
    *,
    machine: str,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
) -> StoreAddress:
    """The store that is meant. Raises BadInput."""
    scheme, _, rest = text.partition("://")
    if scheme != "etcd":
        raise BadInput(f"--store {text!r}: {_EXAMPLE}")
    servers = []
    for one in rest.split(","):
        found = _SERVER.fullmatch(one)
        port = int(found["port"] or PORT) if found else 0
        if found is None or not 0 < port < 65536:
            raise BadInput(f"--store {text!r}: {one!r} is not a server; {_EXAMPLE}")
        servers.append((found["v6"] or found["host"], port))
    if len(servers) > MOST_SERVERS:
        raise BadInput(f"--store: at most {MOST_SERVERS} servers")
    if not MACHINE.fullmatch(machine):
        raise BadInput(f"--machine {machine!r}: a name is {MACHINE_RULE}")
    if (cert is None) != (key is None) or (cert is not None and ca is None):
        raise BadInput("--cert, --key: give both, and --ca with them")
    files = {"ca": ca, "cert": cert, "key": key}
    return StoreAddress(
        tuple(servers),
        machine,
        **{name: None if path is None else str(path.resolve()) for name, path in files.items()},
    )
