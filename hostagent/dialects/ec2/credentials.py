"""Made-up credentials in EC2's instance metadata: of a role, and of the instance itself. Pure."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from hostagent.dialects.ec2.events import Entries
from hostagent.model import Guest
from hostagent.properties import region, value
from hostagent.regions import aws
from hostagent.times import to_seconds

LIFE: Final = 6 * 3600
"""Seconds for which credentials are valid."""

RENEWED: Final = 3600
"""Seconds after which there are new ones."""


def renewed(now: float) -> float:
    """Return when the next credentials come."""
    return (now // RENEWED + 1) * RENEWED


def of_role(guest: Guest, role: str, now: float) -> Entries:
    """Return the tree below `iam`."""
    issued = now // RENEWED * RENEWED
    arn = f"arn:{aws.partition(region(guest, 'ec2')).name}:iam::{value(guest, 'account_id')}"
    return {
        "info": listed(
            {
                "Code": "Success",
                "LastUpdated": to_seconds(issued),
                "InstanceProfileArn": f"{arn}:instance-profile/{role}",
                "InstanceProfileId": f"AIPA{_secret(guest, 'credentials', issued)[:17]}",
            }
        ),
        "security-credentials/": {role: _credentials(guest, "credentials", issued)},
    }


def of_instance(guest: Guest, now: float) -> Entries:
    """Return the tree below `identity-credentials`, which AWS's own agents use."""
    issued = now // RENEWED * RENEWED
    info = {
        "Code": "Success",
        "LastUpdated": to_seconds(issued),
        "AccountId": value(guest, "account_id"),
    }
    return {
        "ec2/": {
            "info": listed(info),
            "security-credentials/": {"ec2-instance": _credentials(guest, "instance", issued)},
        }
    }


def listed(members: Mapping[str, object]) -> str:
    """Return the members as JSON in EC2's layout."""
    return json.dumps(members, indent=2, separators=(",", " : "))


def _credentials(guest: Guest, whose: str, issued: float) -> str:
    secret = _secret(guest, whose, issued)
    return listed(
        {
            "Code": "Success",
            "LastUpdated": to_seconds(issued),
            "Type": "AWS-HMAC",
            "AccessKeyId": f"ASIA{secret[:16]}",
            "SecretAccessKey": secret[16:56],
            "Token": secret,
            "Expiration": to_seconds(issued + LIFE),
        }
    )


def _secret(guest: Guest, whose: str, issued: float) -> str:
    return sha256(f"{whose}:{guest.name}:{issued}".encode()).hexdigest().upper()
