"""Azure's managed identity: a made-up token for guests that have an identity. Pure."""

from collections.abc import Mapping
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from hostagent.dialects.jwt import made_up
from hostagent.model import Guest
from hostagent.properties import value

LIFE: Final = 86400
"""Seconds for which a token is valid; there is a new one every hour."""

_NAMES: Final = ("client_id", "object_id", "msi_res_id", "mi_res_id")
"""What an identity may be asked for by: one of them, or none."""


class NoToken(Exception):
    """There is no token for this request; the message is Azure's `error_description`."""


def token(guest: Guest, query: Mapping[str, str], now: float) -> dict[str, str]:
    """Return the token's document, all strings. Names in `query` are in lower case.

    Raises NoToken.
    """
    resource = query.get("resource")
    if not resource:
        raise NoToken("Required query variable 'resource' is missing")
    if query.get("bypass_cache", "true").lower() != "true":
        raise NoToken("Invalid value of query variable 'bypass_cache'")
    asked = [name for name in _NAMES if name in query]
    if len(asked) > 1:
        raise NoToken(f"Query variables {' and '.join(asked)} are mutually exclusive")
    client = value(guest, "managed_identity")
    if not client:
        raise NoToken("Identity not found")
    principal = str(uuid5(NAMESPACE_OID, client))
    group = (
        f"/subscriptions/{value(guest, 'subscription_id')}"
        f"/resourcegroups/{value(guest, 'resource_group')}/providers"
    )
    name = value(guest, "managed_identity_name")
    resource_id = f"{group}/Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
    identity = dict(zip(_NAMES, (client, principal, resource_id, resource_id), strict=True))
    if any(query[name].lower() != identity[name].lower() for name in asked):
        raise NoToken("Identity not found")
    tenant = value(guest, "tenant_id")
    authority = query.get("authority", tenant).rstrip("/")
    if authority.rpartition("/")[2].lower() != tenant:
        raise NoToken("Invalid value of query variable 'authority'")
    issued = int(now // 3600 * 3600)
    left = issued + LIFE - 60 * int(now // 60)
    claims = {
        "aud": resource,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": issued,
        "nbf": issued,
        "exp": issued + LIFE,
        "appid": client,
        "appidacr": "2",
        "idp": f"https://sts.windows.net/{tenant}/",
        "idtyp": "app",
        "oid": principal,
        "sub": principal,
        "tid": tenant,
        "ver": "1.0",
        # Of an identity that was assigned: the virtual machine, and the identity. Verifiers look
        # for them (Vault, Teleport).
        "xms_az_rid": f"{group}/Microsoft.Compute/virtualMachines/{guest.name}",
        "xms_mirid": resource_id,
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
