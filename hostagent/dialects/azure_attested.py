"""Azure's attested document: what a guest shows others to prove where it runs. Pure."""

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from hostagent.dialects.azure_instance import NO_PLAN
from hostagent.dialects.azure_members import ATTESTED, shown
from hostagent.model import Guest
from hostagent.properties import value
from hostagent.signing import Signer

LIFE: Final = 6 * 3600
"""Seconds for which a document is valid, as in Azure's own examples."""

_nonce = re.compile(r"[A-Za-z0-9_-]{1,32}")  # Teleport asks with 24 random bytes in base64url
"""The reference says ten digits, the schema up to 32 letters and digits."""


class BadNonce(Exception):
    """The nonce is not one that Azure takes."""


def attested(
    guest: Guest, query: Mapping[str, str], version: str, now: float, signer: Signer
) -> bytes:
    """Return the signed document with its encoding, as JSON; raises BadNonce."""
    nonce = query.get("nonce") or _time("%Y%m%d-%H%M%S", now)
    if query.get("nonce") and _nonce.fullmatch(nonce) is None:
        raise BadNonce
    document = {
        "licenseType": "",
        "nonce": nonce,
        "plan": NO_PLAN,
        "sku": value(guest, "image.sku"),
        "subscriptionId": value(guest, "subscription_id"),
        "timeStamp": {
            "createdOn": _time("%m/%d/%y %H:%M:%S -0000", now),
            "expiresOn": _time("%m/%d/%y %H:%M:%S -0000", now + LIFE),
        },
        "vmId": value(guest, "vm_id"),
    }
    plain = msgspec.json.encode(shown(document, version, ATTESTED))
    signature = b64encode(signer.pkcs7(plain, certificate=True)).decode()
    return msgspec.json.encode({"encoding": "pkcs7", "signature": signature})


def _time(form: str, epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime(form)
