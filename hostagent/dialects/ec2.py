"""EC2's instance metadata: `/latest` and the dated versions, which are all the same here.

Choices where no record of the original was at hand:

- A token is signed, not stored: 24 bytes of HMAC-SHA256 over its guest and its end of life, with a
  secret that lives as long as the responder. So tokens cost no memory and no other guest can use
  them. After a restart of the responder they are refused with 401, and clients ask for new ones.
  Their life is measured on the metadata plane's clock.
- Any PUT below a dated version or with X-Forwarded-For is 403; elsewhere, except for the token, it
  is 405.
- Every answer ends its connection, as EC2's do.
- A leaf also answers with a trailing slash (botocore asks so), a directory also without one.
- Preempt is a spot interruption, shown from two minutes before, and a rebalance recommendation from
  its creation. The others are scheduled maintenance from their creation: Freeze system-maintenance,
  Reboot system-reboot (instance-reboot if its source is User), Redeploy instance-stop, Terminate
  instance-retirement. Only events of the guest itself are shown.
- NotAfter is the end of the duration; of an unknown one, when the activity would expire.
- The event's ID is the first 17 digits of its UUID; an expired event counts as completed.
- Credentials of a role and the instance identity are made up; there are no signatures.
"""

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from math import floor
from typing import Final

from hostagent.dialects.ec2_events import SPOT_NOTICE, Tree, events_tree, iso, spot_tree
from hostagent.dialects.outcomes import Outcome
from hostagent.http import REASONS, Request, Response
from hostagent.model import Guest, View, at, boundary
from hostagent.properties import region, under, value, zone
from hostagent.regions import aws

MIN_TTL: Final = 1
MAX_TTL: Final = 21600
"""Seconds that a token may live: six hours."""

CREDENTIALS_LIFE: Final = 6 * 3600
"""Seconds for which a role's credentials are valid; there are new ones every hour."""

VERSIONS: Final = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01"),
    *("2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25"),
    *("2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28"),
    *("2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23"),
    *("2021-07-15", "2022-09-24", "2024-04-11", "latest"),
)

_TOKEN: Final = "x-aws-ec2-metadata-token"
_TTL: Final = "x-aws-ec2-metadata-token-ttl-seconds"
_TEXT: Final = "text/plain"
_JSON: Final = "application/json"
_ttl = re.compile(r"[0-9]{1,5}")
_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _page(status: int, title: str) -> bytes:
    return f"""<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
\t"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{status} - {title}</title>
 </head>
 <body>
  <h1>{status} - {title}</h1>
 </body>
</html>
""".encode()


def _error(status: int, title: str, *headers: tuple[str, str]) -> Response:
    page = _page(status, title)
    return Response(status, page, "text/html", headers, server="EC2ws", close=True)


_BAD_REQUEST: Final = _error(400, "Bad Request")
_UNAUTHORIZED: Final = _error(401, "Unauthorized")
_FORBIDDEN: Final = _error(403, "Forbidden")
_NOT_FOUND: Final = _error(404, "Not Found")
_READ_ONLY: Final = _error(405, "Not Allowed", ("Allow", "GET, HEAD"))
_PUT_ONLY: Final = _error(405, "Not Allowed", ("Allow", "PUT"))
UNAVAILABLE: Final = _error(503, "Service Unavailable", ("Retry-After", "5"))


def owns(path: str) -> bool:
    """Whether the path is `/`, or below a version or what looks like one."""
    version = path[1:].partition("/")[0]
    return path == "/" or version in VERSIONS or _date.fullmatch(version) is not None


def refusal(status: int, _why: str) -> Response:
    """Return an HTTP error in EC2's form, which has no room for a reason."""
    return _error(status, REASONS[status])


class Ec2:
    """The dialect, with the secret that signs its tokens."""

    def __init__(self, secret: bytes, *, imdsv1: bool = True, hop_limit: int = 1) -> None:
        """Without `imdsv1` every request needs a token. `hop_limit`: the IP TTL of tokens."""
        self._secret = secret
        self._imdsv1 = imdsv1
        self._hop_limit = hop_limit

    def answer(self, view: View, request: Request, now: float) -> Outcome | None:
        """Answer a request to `/` or below a version; None if the path is another."""
        if not owns(request.path):
            return None
        version, _, path = request.path[1:].partition("/")
        if version and version not in VERSIONS:
            return _NOT_FOUND
        if request.method == "PUT" and (
            version not in ("", "latest") or "x-forwarded-for" in request.headers
        ):
            return _FORBIDDEN
        if path == "api/token":
            return self._token(view.guest, request, now)
        if request.method not in ("GET", "HEAD"):
            return _READ_ONLY
        headers: tuple[tuple[str, str], ...] = ()
        valid_until = boundary(view, now, SPOT_NOTICE)
        token = request.headers.get(_TOKEN)
        if token is not None:
            end = self._end(view.guest, token)
            if end is None or end <= now:
                return _UNAUTHORIZED
            left = end - now
            headers = (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", str(floor(left))),)
            valid_until = min(valid_until, now + left % 1)  # until it has another second less
        elif not self._imdsv1:
            return _UNAUTHORIZED
        found = _find(view, version, path, now)
        if found is None:
            return _NOT_FOUND
        body, kind = found
        valid_until = min(valid_until, (now // 3600 + 1) * 3600)  # new credentials
        return Response(
            *(200, body.encode(), kind, headers),
            server="EC2ws",
            valid_until=valid_until,
            close=True,
        )

    def _token(self, guest: Guest, request: Request, now: float) -> Response:
        if request.method != "PUT":
            return _PUT_ONLY
        wanted = request.headers.get(_TTL, "")
        if _ttl.fullmatch(wanted) is None or not MIN_TTL <= int(wanted) <= MAX_TTL:
            return _BAD_REQUEST
        # In milliseconds, so that a guest that asks twice in a second gets two tokens.
        end = round((now + int(wanted)) * 1000).to_bytes(8, "big")
        return Response(
            200,
            urlsafe_b64encode(end + self._sign(guest, end)),
            _TEXT,
            (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", wanted),),
            server="EC2ws",
            hop_limit=self._hop_limit,
            close=True,
        )

    def _sign(self, guest: Guest, end: bytes) -> bytes:
        return hmac.digest(self._secret, guest.name.encode() + b"\0" + end, "sha256")[:24]

    def _end(self, guest: Guest, token: str) -> float | None:
        """Return the token's end of life; None if it is not a token of this guest."""
        try:
            raw = urlsafe_b64decode(token.encode("ascii"))
        except ValueError:
            return None
        if urlsafe_b64encode(raw).decode() != token:
            return None  # decoding ignores what is not base64, and everything after its end
        if not hmac.compare_digest(raw[8:], self._sign(guest, raw[:8])):
            return None
        return int.from_bytes(raw[:8], "big") / 1000


def _find(view: View, version: str, path: str, now: float) -> tuple[str, str] | None:
    """Return the text at the path and its media type."""
    if not version:
        return "\n".join(VERSIONS), _TEXT
    user_data = value(view.guest, "user_data", "ec2")
    if path in ("", "/"):
        return "\n".join(["dynamic", "meta-data", *(["user-data"] if user_data else [])]), _TEXT
    if path.rstrip("/") == "user-data":
        return (user_data, "application/octet-stream") if user_data else None
    room, _, rest = path.partition("/")
    tree: Tree
    if room == "dynamic":
        tree = {"instance-identity": {"document": _identity(view.guest)}}
    elif room == "meta-data":
        tree = _meta_data(view, now)
    else:
        return None
    for name in rest.removesuffix("/").split("/") if rest else ():
        if not isinstance(tree, dict):
            return None
        child = tree.get(name)
        if child is None:
            # A list of items, `0=name`, has them by number.
            child = next((one for key, one in tree.items() if key.split("=")[0] == name), None)
        if child is None:
            return None
        tree = child
    if isinstance(tree, dict):
        return "\n".join(_listed(name, child) for name, child in sorted(tree.items())), _TEXT
    return tree, _JSON if rest.startswith("spot/instance-action") else _TEXT


def _listed(name: str, child: Tree) -> str:
    return f"{name}/" if isinstance(child, dict) and "=" not in name else name


def _meta_data(view: View, now: float) -> dict[str, Tree]:
    guest = view.guest
    address = value(guest, "address", "ec2")
    mac = value(guest, "mac", "ec2")
    az = zone(guest, "ec2")
    name = value(guest, "hostname", "ec2")
    events = [one for known in view.events if guest.name in (one := at(known, now)).guests]
    tree: dict[str, Tree] = {
        "ami-id": value(guest, "image.ami"),
        "ami-launch-index": "0",
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": "/dev/xvda", "root": "/dev/xvda"},
        "events": events_tree(view, events),
        "hostname": name,
        "instance-action": "none",
        "instance-id": value(guest, "instance_id"),
        "instance-life-cycle": value(guest, "lifecycle", "ec2"),
        "instance-type": value(guest, "instance_type"),
        "local-hostname": name,
        "mac": mac,
        "metrics": {"vhostmd": '<?xml version="1.0" encoding="UTF-8"?>'},
        "network": {"interfaces": {"macs": {mac: _interface(guest, mac, address, name)}}},
        "placement": {
            "availability-zone": az,
            "availability-zone-id": value(guest, "zone_id") or aws.ZONE_IDS.get(az, ""),
            "region": region(guest, "ec2"),
        },
        "profile": "default-hvm",
        "reservation-id": value(guest, "reservation_id"),
        "security-groups": "default",
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "system": "nitro",
    }
    if address:
        tree["local-ipv4"] = address
    if role := value(guest, "iam_role"):
        tree["iam"] = _iam(guest, role, now)
    if key := value(guest, "ssh_public_key", "ec2"):
        tree["public-keys"] = {"0=default": {"openssh-key": key}}
    if tags := under(guest, "tags."):
        tree["tags"] = {"instance": dict(tags)}
    if spot := spot_tree(events, now):
        tree["spot"] = spot
    return tree


def _interface(guest: Guest, mac: str, address: str, name: str) -> Tree:
    digest = sha256(f"interface:{guest.name}".encode()).hexdigest()
    block = "169.254.0.0/16"  # RFC 3927 §2.1
    return {
        "device-number": "0",
        "interface-id": f"eni-{digest[:17]}",
        "local-hostname": name,
        **({"local-ipv4s": address} if address else {}),
        "mac": mac,
        "owner-id": value(guest, "account_id"),
        "security-group-ids": f"sg-{digest[17:34]}",
        "security-groups": "default",
        "subnet-id": f"subnet-{digest[34:51]}",
        "subnet-ipv4-cidr-block": block,
        "vpc-id": f"vpc-{digest[40:57]}",
        "vpc-ipv4-cidr-block": block,
        "vpc-ipv4-cidr-blocks": block,
    }


def _iam(guest: Guest, role: str, now: float) -> Tree:
    issued = now // 3600 * 3600
    secret = sha256(f"credentials:{guest.name}:{issued}".encode()).hexdigest().upper()
    account = value(guest, "account_id")
    return {
        "info": json.dumps(
            {
                "Code": "Success",
                "LastUpdated": iso(issued),
                "InstanceProfileArn": f"arn:aws:iam::{account}:instance-profile/{role}",
                "InstanceProfileId": f"AIPA{secret[:17]}",
            },
            indent=2,
            separators=(",", " : "),
        ),
        "security-credentials": {
            role: json.dumps(
                {
                    "Code": "Success",
                    "LastUpdated": iso(issued),
                    "Type": "AWS-HMAC",
                    "AccessKeyId": f"ASIA{secret[:16]}",
                    "SecretAccessKey": secret[16:56],
                    "Token": secret,
                    "Expiration": iso(issued + CREDENTIALS_LIFE),
                },
                indent=2,
                separators=(",", " : "),
            )
        },
    }


def _identity(guest: Guest) -> str:
    return json.dumps(
        {
            "accountId": value(guest, "account_id"),
            "architecture": "x86_64",
            "availabilityZone": zone(guest, "ec2"),
            "billingProducts": None,
            "devpayProductCodes": None,
            "marketplaceProductCodes": None,
            "imageId": value(guest, "image.ami"),
            "instanceId": value(guest, "instance_id"),
            "instanceType": value(guest, "instance_type"),
            "kernelId": None,
            "pendingTime": "2024-01-01T00:00:00Z",
            "privateIp": value(guest, "address", "ec2"),
            "ramdiskId": None,
            "region": region(guest, "ec2"),
            "version": "2017-09-30",
        },
        indent=2,
        separators=(",", " : "),
    )
