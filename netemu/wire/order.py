"""The order for a lab: what the client hands to the sandbox on standard input, in one frame."""

import msgspec

from netemu.topology import Lab
from netemu.wire.profile import Profile
from netemu.wire.store_address import StoreAddress


class Order(msgspec.Struct, frozen=True):
    """What to build: the lab, its pace, and the runtime directory that nobody inside may see.

    A lab that is `owned` goes down with the process that ordered it; any other once it is up stays.

    `shared` are directories that guests may write to, in root's lab as well; `masked` are sockets
    of the machine's programs, which its guests do not see.

    `store` is where its commands are kept, if not on this machine.

    `profile` is how its guests are kept apart. `signing_key` is the private key, with its
    certificate, that its responders sign documents with, in PEM.
    """

    lab: Lab
    time_scale: float
    hidden: str
    access_log: bool = False
    owned: bool = False
    shared: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    store: StoreAddress | None = None
    profile: Profile = msgspec.field(default_factory=Profile)
    signing_key: str = ""
