"""Answers requests to EC2's instance metadata: versions, tokens, and paths in the trees. Pure."""

import re
from datetime import datetime
from email.utils import format_datetime
from math import floor
from typing import Final

from msgspec.structs import replace

from hostagent.dialects.ec2 import tokens
from hostagent.dialects.ec2.credentials import renewed
from hostagent.dialects.ec2.events import Tree, next_change
from hostagent.dialects.ec2.identity import dynamic
from hostagent.dialects.ec2.meta_data import meta_data
from hostagent.dialects.outcomes import Outcome
from hostagent.http import REASONS, Request, Response
from hostagent.model import Guest, View
from hostagent.properties import content, value
from hostagent.signing import Signer

VERSIONS: Final = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01"),
    *("2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25"),
    *("2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02", "2018-03-28"),
    *("2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23"),
    *("2021-07-15", "2022-09-24", "2024-04-11", "latest"),
)

_TOKEN: Final = "x-aws-ec2-metadata-token"
_TTL: Final = "x-aws-ec2-metadata-token-ttl-seconds"
_LEFT: Final = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
_TEXT: Final = "text/plain"
_JSON: Final = "application/json"
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
    """The dialect, with the secret that signs its tokens and the key that signs its documents."""

    def __init__(
        self, secret: bytes, signer: Signer, *, imdsv1: bool = True, hop_limit: int = 1
    ) -> None:
        """Without `imdsv1` every request needs a token. `hop_limit`: the IP TTL of tokens."""
        self._secret = secret
        self._signer = signer
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
            return self._made(view.guest, request, now)
        if request.method not in ("GET", "HEAD"):
            return _READ_ONLY
        headers: tuple[tuple[str, str], ...]
        headers = (("Accept-Ranges", "none"), ("Last-Modified", _modified(view.guest)))
        valid_until = next_change(view, now)
        token = request.headers.get(_TOKEN)
        if token is not None:
            end = tokens.end(self._secret, view.guest, token)
            if end is None or end <= now:
                return _UNAUTHORIZED
            left = end - now
            headers = (*headers, (_LEFT, str(floor(left))))
            valid_until = min(valid_until, now + left % 1)  # until it has another second less
        elif not self._imdsv1:
            return _UNAUTHORIZED
        valid_until = min(valid_until, renewed(now))
        found = self._find(view, version, path, now)
        if found is None:
            return replace(_NOT_FOUND, valid_until=valid_until)
        body, kind = found
        return Response(
            *(200, body, kind, headers),
            server="EC2ws",
            valid_until=valid_until,
            close=True,
        )

    def _made(self, guest: Guest, request: Request, now: float) -> Response:
        if request.method != "PUT":
            return _PUT_ONLY
        life = tokens.ttl(request.headers.get(_TTL, ""))
        if life is None:
            return _BAD_REQUEST
        return Response(
            200,
            tokens.made(self._secret, guest, now + life),
            _TEXT,
            ((_LEFT, str(life)),),
            server="EC2ws",
            hop_limit=self._hop_limit,
            close=True,
        )

    def _find(self, view: View, version: str, path: str, now: float) -> tuple[bytes, str] | None:
        """Return what is at the path, and its media type."""
        if not version:
            return "\n".join(VERSIONS).encode(), _TEXT
        user_data = content(value(view.guest, "user_data", "ec2"))
        if path in ("", "/"):
            top = ["dynamic", "meta-data", *(["user-data"] if user_data else [])]
            return "\n".join(top).encode(), _TEXT
        if path.rstrip("/") == "user-data":
            return (user_data, "application/octet-stream") if user_data else None
        room, _, rest = path.partition("/")
        if room == "dynamic":
            text = _walk(dynamic(view.guest, self._signer), rest)
        elif room == "meta-data":
            text = _walk(meta_data(view, self._signer, now), rest)
        else:
            return None
        kind = _JSON if rest.startswith("spot/instance-action") else _TEXT
        return None if text is None else (text.encode(), kind)


def _walk(tree: Tree, path: str) -> str | None:
    """Return the text or the directory at the path; None if there is nothing."""
    for name in path.removesuffix("/").split("/") if path else ():
        if isinstance(tree, str):
            return None
        # A list of items, `0=name`, has them by number.
        items = (key for key in tree if key.startswith(f"{name}="))
        key = next((key for key in (name, f"{name}/", *items) if key in tree), None)
        if key is None:
            return None
        child = tree[key]
        tree = child() if callable(child) else child
    return tree if isinstance(tree, str) else "\n".join(sorted(tree, key=_without_slash))


def _without_slash(name: str) -> str:
    return name.rstrip("/")


def _modified(guest: Guest) -> str:
    when = datetime.fromisoformat(value(guest, "launch_time"))
    return format_datetime(when, usegmt=True)
