"""GCE's metadata server: everything below `/computeMetadata`, and `/`, which needs no flavor.

Choices where no record of the original was at hand:

- `X-Google-Metadata-Request: True`, which older clients send, is accepted as well.
- The ETag is a counter: of changes to anything that the guest can see, and of the times at which
  what is shown changed by itself. So an ETag never repeats, even if a value does. There is one for
  the guest's whole tree: a waiting request may get the same text when something else has changed.
- timeout_sec is measured on the metadata plane's clock. Without it a request waits for as long as
  the connection lasts.
- Freeze is MIGRATE_ON_HOST_MAINTENANCE, Reboot, Redeploy and Terminate are
  TERMINATE_ON_HOST_MAINTENANCE, from 60 s before until the end. Preempt is `preempted` from 30 s
  before, and no maintenance.
- Only events of the guest itself are shown.
- There is no service account unless the property names one; then its tokens are made up.
- Guest attributes are disabled: 403 for every method.
- User data is the attribute `user-data` unless such an attribute is given; labels are not shown.
- Several slashes are one. A directory without its last slash is redirected.
- Error pages are shorter than the original's, with the same status lines.
"""

from collections.abc import Iterator
from html import escape
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

import msgspec

from hostagent.dialects.gce_tree import (
    NOTICE,
    PREEMPT_NOTICE,
    SECRET,
    Tree,
    identity,
    maintenance,
    preempted,
    whole,
)
from hostagent.dialects.outcomes import Outcome, Park
from hostagent.http import REASONS, Request, Response
from hostagent.model import (
    FINAL,
    Event,
    EventStatus,
    EventType,
    View,
    at,
    boundary,
)

MAX_TIMEOUT: Final = 366 * 86400.0
"""Seconds: the longest wait, also of a request without a timeout."""

_PHASES: Final = 1 << 16
"""More than the moments that can pass between two changes: three for each event of a node."""

HOSTS: Final = frozenset({"metadata.google.internal", "metadata"})
"""The server's names."""

_TAGS: Final = ["v1", "instance", "tags"]
"""The one leaf that is JSON unless text is asked for."""

_SERVER: Final = "Metadata Server for VM"
_ALWAYS: Final = (
    ("Metadata-Flavor", "Google"),
    ("X-XSS-Protection", "0"),
    ("X-Frame-Options", "SAMEORIGIN"),
)


def _error(status: int, title: str, text: str, *headers: tuple[str, str]) -> Response:
    body = f"""<!DOCTYPE html>
<html lang=en>
  <meta charset=utf-8>
  <title>Error {status} ({title})!!1</title>
  <p><b>{status}.</b> <ins>That's an error.</ins>
  <p>{text} <ins>That's all we know.</ins>
"""
    return Response(
        status, body.encode(), "text/html; charset=UTF-8", (*_ALWAYS, *headers), server=_SERVER
    )


_NOT_ALLOWED: Final = _error(
    405, "Method Not Allowed", "The request method is inappropriate.", ("Allow", "GET, HEAD")
)


UNAVAILABLE: Final = _error(
    503,
    "Service Unavailable",
    "The server is temporarily unable to service your request. Please try again later.",
    ("Retry-After", "5"),
)


def refusal(status: int, why: str) -> Response:
    """Return an HTTP error in GCE's form."""
    return _error(status, REASONS[status], f"{why[:1].upper()}{escape(why[1:])}.")


def _plain_error(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode(), "text/html", _ALWAYS, server=_SERVER)


_DISABLED: Final = _plain_error(403, "Guest attributes endpoint access is disabled.")


def _forbidden(path: str, why: str) -> Response:
    text = "Your client does not have permission to get URL"
    return _error(403, "Forbidden", f"{text} <code>{escape(path)}</code> from this server. {why}")


def _not_found(path: str) -> Response:
    text = f"The requested URL <code>{escape(path)}</code> was not found on this server."
    return _error(404, "Not Found", text)


def _bad_request(what: str) -> Response:
    return _error(400, "Bad Request", what)


def owns(path: str) -> bool:
    """Whether the path is `/`, or below /computeMetadata."""
    return path == "/" or path.partition("/")[2].partition("/")[0] == "computeMetadata"


def answer(view: View, request: Request, now: float) -> Outcome | None:
    """Answer a request; None if the path is not GCE's."""
    path = request.path
    if not owns(path):
        return None
    if "x-forwarded-for" in request.headers:
        return _forbidden(path, "X-Forwarded-For is not allowed.")
    if path != "/" and not _says_flavor(request):
        return _forbidden(path, "Missing Metadata-Flavor:Google header.")
    asked = _read(request)
    if asked.names[1:4] == ["v1", "instance", "guest-attributes"]:
        return _DISABLED
    if request.method not in ("GET", "HEAD"):
        return _NOT_ALLOWED
    if asked.query.get("wait_for_change", "").lower() != "true":
        return _tell(view, asked, now)
    timeout = asked.query.get("timeout_sec", "")
    if timeout and not (timeout.isdecimal() and timeout.isascii() and len(timeout) < 10):
        return _bad_request("timeout_sec must be a number of seconds.")
    end = now + (min(float(timeout), MAX_TIMEOUT) if timeout else MAX_TIMEOUT)
    known = asked.query.get("last_etag") or etag(view, now)

    def resume(view: View, now: float) -> Response | Park:
        if now >= end or etag(view, now) != known:
            return _tell(view, asked, now)
        return Park(min(end, _next_moment(view, now)), resume)

    response = _tell(view, asked, now)
    # What is not there is not waited for.
    return resume(view, now) if response.status == 200 else response


def wanted(request: Request) -> bool:
    """Whether a request for `/` is meant for GCE: it has the header, or the server's host name.

    Another dialect may answer the others; see `flavored`.
    """
    name = request.headers.get("host", "").partition(":")[0].lower().removesuffix(".")
    return _says_flavor(request) or name in HOSTS


def flavored(response: Response) -> Response:
    """Return an answer to `/` with the header by which Google's clients detect GCE."""
    if _ALWAYS[0] in response.headers:
        return response
    return msgspec.structs.replace(response, headers=(*response.headers, _ALWAYS[0]))


def _says_flavor(request: Request) -> bool:
    headers = request.headers
    return (
        headers.get("metadata-flavor") == "Google"
        or headers.get("x-google-metadata-request", "").lower() == "true"
    )


class _Asked(NamedTuple):
    """What a request asks for. It is parsed once, as the request may wait."""

    request: Request
    names: list[str]
    query: dict[str, str]
    recursive: bool
    form: str
    secret: str
    """`token` or `identity` where it is a service account's."""


def _read(request: Request) -> _Asked:
    names = [name for name in request.path.split("/") if name]
    query = {
        unquote_plus(name).lower(): unquote_plus(told)
        for name, _, told in (part.partition("=") for part in (request.query or "").split("&"))
    }
    recursive = query.get("recursive", "").lower() == "true"
    form = query.get("alt", "json" if recursive or names[1:] == _TAGS else "text").lower()
    of_account = names[4:] and names[-3] == "service-accounts" and names[-1] in SECRET
    return _Asked(request, names, query, recursive, form, names[-1] if of_account else "")


def etag(view: View, now: float) -> str:
    """Return 16 hexadecimal digits that grow with every change, by command or by time."""
    phase = sum(_passed(at(event, now), now) for event in view.events)
    return f"{view.revision * _PHASES + phase:016x}"


def _next_moment(view: View, now: float) -> float:
    """Return when what is shown of the events next changes by itself."""
    return min(boundary(view, now, NOTICE), boundary(view, now, PREEMPT_NOTICE))


def _passed(event: Event, now: float) -> int:
    lead = PREEMPT_NOTICE if event.type is EventType.PREEMPT else NOTICE
    return (
        (now >= event.not_before - lead or event.status is not EventStatus.SCHEDULED)
        + (event.status is not EventStatus.SCHEDULED)
        + (event.status in FINAL)
    )


def _tell(view: View, asked: _Asked, now: float) -> Response:
    request, names, query, recursive, form, secret = asked
    found = _find(view, names, now)
    if found is None:
        return _not_found(request.path)
    if form not in ("json", "text"):
        return _bad_request("alt must be json or text.")
    branch = isinstance(found, (dict, list))
    if branch and not request.path.endswith("/"):
        if not recursive:
            where = f"/{'/'.join(names)}/" + (f"?{request.query}" if request.query else "")
            return _moved(request, where)
    elif not branch and request.path.endswith("/"):
        return _not_found(request.path)
    if secret == "token":
        body, kind = str(found).encode(), "application/json"
    elif secret == "identity":
        if not query.get("audience"):
            return _plain_error(400, "non-empty audience parameter required")
        body, kind = identity(view.guest, query["audience"], now).encode(), "text/html"
    elif form == "json":
        shown = _camel(found, names) if recursive or not branch else list(_children(found))
        body, kind = msgspec.json.encode(shown), "application/json"
    elif not branch:
        body, kind = _text(found).encode(), "application/text"
    elif recursive:
        body, kind = "".join(_lines(found, "")).encode(), "application/text"
    else:
        body, kind = "".join(f"{name}\n" for name in _children(found)).encode(), "application/text"
    return Response(
        200,
        body,
        kind,
        (*_ALWAYS, ("ETag", etag(view, now))),
        server=_SERVER,
        valid_until=min(_next_moment(view, now), (now // 60 + 1) * 60),  # a token's life in minutes
    )


def _moved(request: Request, where: str) -> Response:
    location = f"http://{request.headers.get('host', 'metadata.google.internal')}{where}"
    return Response(
        301,
        f'<a href="{escape(location)}">Moved Permanently</a>.\n\n'.encode(),
        "text/html; charset=utf-8",
        (*_ALWAYS, ("Location", location)),
        server=_SERVER,
    )


def _find(view: View, names: list[str], now: float) -> "Tree | None":
    """Return the value at the path, without building the whole tree where that is possible."""
    if names[1:] == ["v1", "instance", "maintenance-event"]:
        return maintenance(view, now)
    if names[1:] == ["v1", "instance", "preempted"]:
        return preempted(view, now)
    tree: Tree | None = whole(view, now)
    for name in names:
        if isinstance(tree, dict):
            tree = tree.get(name)
        elif isinstance(tree, list) and name.isascii() and name.isdecimal() and len(name) < 4:
            tree = tree[int(name)] if int(name) < len(tree) else None
        else:
            return None
    return tree


def _children(tree: Tree) -> Iterator[str]:
    for name, child in tree.items() if isinstance(tree, dict) else enumerate(_list(tree)):
        yield f"{name}/" if isinstance(child, (dict, list)) else str(name)


def _list(tree: Tree) -> list[Tree]:
    assert isinstance(tree, list)
    return tree


def _lines(tree: Tree, path: str) -> Iterator[str]:
    """Return `path text` for each leaf."""
    if isinstance(tree, (dict, list)):
        for name, child in tree.items() if isinstance(tree, dict) else enumerate(tree):
            # As in the original, these are shown only when asked for by name.
            if name in SECRET and not path.endswith("attributes"):
                continue
            yield from _lines(child, f"{path}/{name}" if path else str(name))
    else:
        yield f"{path} {_text(tree).rstrip()}\n"


def _text(leaf: Tree) -> str:
    return "".join(f"{line}\n" for line in leaf) if isinstance(leaf, tuple) else str(leaf)


def _camel(tree: Tree, names: list[str]) -> object:
    """Return the tree for JSON: names in camel case, except those that the user has chosen."""
    if isinstance(tree, list):
        return [_camel(child, [*names, "0"]) for child in tree]
    if not isinstance(tree, dict):
        return tree
    verbatim = names[-1:] in (["attributes"], ["service-accounts"])
    return {
        name if verbatim else _camel_name(name): _camel(child, [*names, name])
        for name, child in tree.items()
        if name not in SECRET or verbatim
    }


def _camel_name(name: str) -> str:
    first, *rest = name.split("-")
    return first + "".join(word.capitalize() for word in rest)
