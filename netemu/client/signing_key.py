"""The key with which this user's labs sign documents. Runs in the user's process.

It is made once, in a second, and kept in the user's cache. Where that cannot be written, each
lab has a key of its own.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from hostagent.signing import STRONG, Signer, SigningError


def signing_key() -> str:
    """The private key and its certificate, in PEM."""
    place = _place()
    if place is None:
        return Signer(bits=STRONG).pem.decode()
    with suppress(OSError, SigningError):
        return _kept(place)
    made = Signer(bits=STRONG).pem
    with suppress(OSError, SigningError):
        place.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=place.parent)  # which only this user may read
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(made)
            with suppress(FileExistsError):
                os.link(draft, place)  # of two at once, the first one's is kept
        finally:
            os.unlink(draft)
        return _kept(place)
    return made.decode()


def _kept(place: Path) -> str:
    text = place.read_bytes()
    Signer(text)
    return text.decode()


def _place() -> Path | None:
    """Where the key is kept; None if there is no cache, or it is somebody else's, as with sudo."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME", ""), ".cache")
    cache = Path(home)
    with suppress(OSError):
        if cache.is_absolute() and cache.stat().st_uid == os.geteuid():
            return cache / "netemu" / "signing.pem"
    return None
