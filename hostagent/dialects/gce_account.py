"""GCE's service account: made-up access tokens and identity tokens. Pure."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Final

import msgspec

from hostagent.dialects.jwt import made_up
from hostagent.model import Guest
from hostagent.properties import value, zone

SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)


class BadQuery(Exception):
    """A query parameter has a value that is not possible; the message is the answer."""


def access_token(guest: Guest, query: Mapping[str, str], now: float) -> str:
    """Return the document of an access token, a new one every hour and for other `scopes`."""
    issued = now // 3600 * 3600
    what = f"token:{guest.name}:{issued}" + (f":{query['scopes']}" if query.get("scopes") else "")
    told = {
        "access_token": f"ya29.made-up-{sha256(what.encode()).hexdigest()}",
        # In minutes, so that the answer stays the same for a while.
        "expires_in": 3600 + 60 * int((issued + 3600 - now) // 60),
        "token_type": "Bearer",
    }
    return msgspec.json.encode(told).decode()


def identity(guest: Guest, query: Mapping[str, str], now: float) -> str:
    """Return the account's identity token, valid for an hour; raises BadQuery.

    `format=full` adds what the instance is, and then `licenses=TRUE` adds its licenses.
    """
    if not query.get("audience"):
        raise BadQuery("non-empty audience parameter required")
    form = query.get("format", "standard").lower()
    if form not in ("standard", "full"):
        raise BadQuery("format parameter must be standard or full")
    licenses = query.get("licenses", "false").lower()
    if licenses not in ("true", "false"):
        raise BadQuery("licenses parameter must be TRUE or FALSE")
    issued = int(now // 3600 * 3600)
    email = value(guest, "service_account")
    account = str(10**20 + int(sha256(email.encode()).hexdigest(), 16) % (9 * 10**20))
    claims: dict[str, object] = {
        "aud": query["audience"],
        "azp": account,
        "email": email,
        "email_verified": True,
        "exp": issued + 3600,
    }
    if form == "full":
        claims["google"] = {"compute_engine": _instance(guest, licenses == "true")}
    return made_up(claims | {"iat": issued, "iss": "https://accounts.google.com", "sub": account})


def _instance(guest: Guest, licenses: bool) -> dict[str, object]:
    told: dict[str, object] = {
        "instance_creation_timestamp": int(
            datetime.fromisoformat(value(guest, "launch_time")).timestamp()
        ),
        "instance_id": value(guest, "numeric_id"),
        "instance_name": guest.name,
        "project_id": value(guest, "project_id"),
        "project_number": int(value(guest, "numeric_project_id")),
        "zone": zone(guest, "gce"),
    }
    return told | {"license_id": value(guest, "licenses").split()} if licenses else told
