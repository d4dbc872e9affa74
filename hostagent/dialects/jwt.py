"""Fake tokens that look like the clouds' own: JWT (RFC 7519) without a key. Pure."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256


def made_up(claims: Mapping[str, object]) -> str:
    """Return a token that carries the claims; its signature does not verify."""
    text = ".".join(_part(one) for one in ({"alg": "RS256", "typ": "JWT"}, claims))
    return f"{text}.{_base64(sha256(text.encode()).digest())}"


def _part(members: Mapping[str, object]) -> str:
    return _base64(json.dumps(members, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
