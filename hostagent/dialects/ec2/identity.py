"""The instance identity in EC2's metadata: a document, and its signature in three forms. Pure."""

from base64 import encodebytes
from functools import lru_cache

from hostagent.dialects.ec2.credentials import listed
from hostagent.dialects.ec2.events import Entries
from hostagent.model import MAX_GUESTS, Guest
from hostagent.properties import place, value
from hostagent.signing import Signer


def dynamic(guest: Guest, signer: Signer) -> Entries:
    """Return the tree below `dynamic`. Signatures are made when they are asked for."""
    text = document(guest)
    raw = text.encode()
    return {
        "fws/": {"instance-monitoring": value(guest, "monitoring")},
        "instance-identity/": {
            "document": text,
            "pkcs7": lambda: _message(signer, raw),
            "rsa2048": lambda: _message(signer, raw),
            "signature": lambda: _signature(signer, raw),
        },
    }


def document(guest: Guest) -> str:
    """Return the document that is signed."""
    region, zone = place(guest, "ec2")
    products = value(guest, "product_codes").split()
    return listed(
        {
            "accountId": value(guest, "account_id"),
            "architecture": value(guest, "architecture"),
            "availabilityZone": zone,
            "billingProducts": None,
            "devpayProductCodes": None,
            "marketplaceProductCodes": products or None,
            "imageId": value(guest, "image.ami"),
            "instanceId": value(guest, "instance_id"),
            "instanceType": value(guest, "instance_type"),
            "kernelId": value(guest, "kernel_id") or None,
            "pendingTime": value(guest, "launch_time"),
            "privateIp": value(guest, "address", "ec2"),
            "ramdiskId": value(guest, "ramdisk_id") or None,
            "region": region,
            "version": "2017-09-30",
        }
    )


# A signature takes some milliseconds, which no guest may take again with each question. A node's
# guests have one document each, until their properties change.
@lru_cache(maxsize=MAX_GUESTS)
def _message(signer: Signer, raw: bytes) -> str:
    return _lines(signer.pkcs7(raw, certificate=False))


@lru_cache(maxsize=MAX_GUESTS)
def _signature(signer: Signer, raw: bytes) -> str:
    return _lines(signer.signature(raw))


def _lines(signed: bytes) -> str:
    """Return the signed bytes in base64, in lines, as EC2 does."""
    return encodebytes(signed).decode().rstrip("\n")
