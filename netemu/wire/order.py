"""The order for a lab: what the client hands to the sandbox on standard input, as JSON."""

import msgspec

from netemu.kernel.protections import Protection
from netemu.topology import Lab


class Order(msgspec.Struct, frozen=True):
    """What to build: the lab, its pace, and the runtime directory that nobody inside may see.

    A lab that is `owned` goes down with the process that ordered it; any other once it is up stays.

    `shared` are directories that guests may write to, in root's lab as well.

    `without` is what keeps guests apart and is to be left out: see `netemu.kernel.protections`.
    """

    lab: Lab
    time_scale: float
    hidden: str
    access_log: bool = False
    owned: bool = False
    shared: tuple[str, ...] = ()
    without: tuple[Protection, ...] = ()
