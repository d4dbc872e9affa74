"""Azure's managed identity: a made-up token for guests that have an identity. Pure."""

from collections.abc import Mapping
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from hostagent.dialects.jwt import made_up
from hostagent.model import Guest
from hostagent.properties import value

LIFE: Final = 86400
"""Seconds for which a token is valid; there is a new one every hour."""


def token(guest: Guest, query: Mapping[str, str], now: float) -> dict[str, str] | None:
    """Return the token's document, all strings; None if the guest lacks the identity asked for.

    Names in `query` are in lower case.
    """
    client = value(guest, "managed_identity")
    if not client or query.get("client_id", client).lower() != client:
        return None
    resource = query["resource"]
    issued = int(now // 3600 * 3600)
    left = issued + LIFE - 60 * int(now // 60)
    principal = str(uuid5(NAMESPACE_OID, client))
    tenant = value(guest, "tenant_id")
    claims = {
        "aud": resource,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": issued,
        "nbf": issued,
        "exp": issued + LIFE,
        "appid": client,
        "oid": principal,
        "sub": principal,
        "tid": tenant,
        "ver": "1.0",
    }
    return {
        "access_token": made_up(claims),
        "client_id": client,
        "expires_in": str(left),
        "expires_on": str(issued + LIFE),
        "ext_expires_in": str(LIFE),
        "not_before": str(issued),
        "resource": resource,
        "token_type": "Bearer",
    }
