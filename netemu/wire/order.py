"""The order for a lab: what the client hands to the sandbox on standard input, in one frame."""

import msgspec

from netemu.topology import Lab
from netemu.wire.profile import Profile
from netemu.wire.store_address import StoreAddress


class Order(msgspec.Struct, frozen=True):
    """What to build: the lab, its pace, and the runtime directory, which is hidden inside.

    An `owned` lab goes down with the process that ordered it; any other stays once it is up.

    Guests may write to `shared` directories, in root's lab too. They do not see the `masked`
    sockets of the machine's programs. `store` is where the lab's commands are kept, if not on this
    machine. `profile` is how guests are kept apart. `signing_key` is the private key that its
    responders sign documents with, and its certificate, in PEM.
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
