"""Session tokens of EC2's instance metadata: signed, not stored. Pure."""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from hostagent.model import Guest

MIN_TTL: Final = 1
MAX_TTL: Final = 21600
"""Seconds that a token may live: six hours."""

_ttl = re.compile(r"[0-9]{1,5}")


def token_secret(signing_key: bytes) -> bytes:
    """Return the secret of all responders that sign with this key.

    So a guest's token outlives its responder, and goes with the guest to another node.
    """
    return hmac.digest(signing_key, b"tokens of EC2", "sha256")


def ttl(text: str) -> int | None:
    """Return the wanted life in seconds; None if there can be no such token."""
    if _ttl.fullmatch(text) is None or not MIN_TTL <= int(text) <= MAX_TTL:
        return None
    return int(text)


def made(secret: bytes, guest: Guest, end: float) -> bytes:
    """Return the guest's token that lives until `end`: 56 characters, as EC2's."""
    # In milliseconds, so that a guest that asks twice in a second gets two tokens.
    life = round(end * 1000).to_bytes(8, "big")
    return urlsafe_b64encode(life + _signed(secret, guest, life))


def end(secret: bytes, guest: Guest, token: str) -> float | None:
    """Return the token's end of life; None if it is not a token of this guest."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii"))
    except ValueError:
        return None
    if urlsafe_b64encode(raw).decode() != token:
        return None  # decoding ignores what is not base64, and everything after its end
    if not hmac.compare_digest(raw[8:], _signed(secret, guest, raw[:8])):
        return None
    return int.from_bytes(raw[:8], "big") / 1000


def _signed(secret: bytes, guest: Guest, life: bytes) -> bytes:
    return hmac.digest(secret, guest.name.encode() + b"\0" + life, "sha256")
