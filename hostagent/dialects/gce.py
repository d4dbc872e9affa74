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
  before, or what the property asks for, and no maintenance.
- `upcoming-maintenance` is JSON with underscores when it is asked for by itself, and with a slash a
  directory. Without maintenance it is 503 for machine types that GCE announces it to, and NONE for
  others; maintenance itself is shown for any type. It is COMPLETE for as long as the node knows of
  it, or until there is another.
- `shutdown-details` are there from the time at which Terminate is scheduled.
- Only events of the guest itself are shown.
- There is no service account unless the property names one; then its tokens are made up.
- Guest attributes are 403 unless the attribute `enable-guest-attributes` switches them on, as in
  GCE. The guest's agent keeps them, and they move with the guest.
- `v1beta1` is 403, as GCE has switched it off, unless the attribute `disable-legacy-endpoints` is
  FALSE: then it is what v1 is, and needs no header.
- User data is the attribute `user-data` unless such an attribute is given; labels are not shown.
- Several slashes are one. A directory without its last slash is redirected.
- Error pages are shorter than the original's, with the same status lines.
"""

from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

import msgspec

from hostagent.dialects.gce_account import BadQuery, access_token, identity
from hostagent.dialects.gce_events import (
    etag,
    is_notified,
    maintenance,
    next_moment,
    preempted,
    upcoming,
)
from hostagent.dialects.gce_guest_attributes import NotWritten, by_namespace, deleted, enabled, put
from hostagent.dialects.gce_pages import (
    ALWAYS,
    DISABLED,
    LEGACY,
    NO_NOTIFICATION,
    NOT_ALLOWED,
    SERVER,
    UNAVAILABLE,
    WRITTEN,
    camel,
    children,
    error,
    forbidden,
    lines,
    moved,
    not_found,
    plain_error,
    text,
)
from hostagent.dialects.gce_tree import SECRET, Tree, whole
from hostagent.dialects.outcomes import Outcome, Park, Writing
from hostagent.http import Request, Response
from hostagent.model import Guest, View
from hostagent.properties import under
from hostagent.written import TooMuch

MAX_TIMEOUT: Final = 366 * 86400.0
"""Seconds: the longest wait, also of a request without a timeout."""

HOSTS: Final = frozenset({"metadata.google.internal", "metadata"})
"""The server's names."""

_TAGS: Final = ["v1", "instance", "tags"]
"""The one leaf that is JSON unless text is asked for."""

_GUEST: Final = ["v1", "instance", "guest-attributes"]
_UPCOMING: Final = ["v1", "instance", "upcoming-maintenance"]
_OLD: Final = "v1beta1"


def owns(path: str) -> bool:
    """Whether the path is `/`, or below /computeMetadata."""
    return path == "/" or path.partition("/")[2].partition("/")[0] == "computeMetadata"


class Gce:
    """Answers."""

    def answer(self, view: View, request: Request, now: float) -> Outcome | None:
        """Answer a request; None if the path is not GCE's."""
        path = request.path
        if not owns(path):
            return None
        if "x-forwarded-for" in request.headers:
            return forbidden(path, "X-Forwarded-For is not allowed.")
        asked = _read(request)
        old = asked.names[1:2] == [_OLD]
        if path != "/" and not old and not _says_flavor(request):
            return forbidden(path, "Missing Metadata-Flavor:Google header.")
        if old:
            if not _has_old(view.guest):
                return LEGACY
            asked = asked._replace(names=["computeMetadata", "v1", *asked.names[2:]])
        if asked.names[1:4] == _GUEST and not enabled(view.guest):
            return DISABLED
        if asked.names[1:4] == _GUEST and request.method in ("PUT", "DELETE"):
            return self._write(view, asked)
        if request.method not in ("GET", "HEAD"):
            return NOT_ALLOWED
        if asked.query.get("wait_for_change", "").lower() != "true":
            return self._tell(view, asked, now)
        return self._wait(view, asked, now)

    def _write(self, view: View, asked: "_Asked") -> Outcome:
        names = asked.names[4:]
        if asked.request.method == "DELETE":
            gone = deleted(view, names)
            if gone is None:
                return not_found(asked.request.path)
            return Writing(gone, None, WRITTEN, UNAVAILABLE, UNAVAILABLE)
        try:
            name, text = put(view, names, asked.request.body)
        except NotWritten as why:
            return plain_error(400, str(why))
        return Writing(name, text, WRITTEN, plain_error(400, str(TooMuch())), UNAVAILABLE)

    def _wait(self, view: View, asked: "_Asked", now: float) -> Outcome:
        timeout = asked.query.get("timeout_sec", "")
        if timeout and not (timeout.isdecimal() and timeout.isascii() and len(timeout) < 10):
            return error(400, "timeout_sec must be a number of seconds.")
        end = now + (min(float(timeout), MAX_TIMEOUT) if timeout else MAX_TIMEOUT)
        known = asked.query.get("last_etag") or self._etag(view, now)

        def resume(view: View, now: float) -> Response | Park:
            if now >= end or self._etag(view, now) != known:
                return self._tell(view, asked, now)
            return Park(min(end, next_moment(view, now)), resume)

        response = self._tell(view, asked, now)
        # What is not there is not waited for.
        return resume(view, now) if response.status in (200, 503) else response

    def _etag(self, view: View, now: float) -> str:
        return etag(view, now)

    def _tell(self, view: View, asked: "_Asked", now: float) -> Response:
        attributes = by_namespace(view) if enabled(view.guest) else {}
        made = _made(view, asked, attributes, now)
        if made.status != 200:
            return made
        until = min(next_moment(view, now), (now // 60 + 1) * 60)  # a token's life
        headers = (*made.headers, ("ETag", self._etag(view, now)))
        return msgspec.structs.replace(made, headers=headers, valid_until=until)


def wanted(request: Request) -> bool:
    """Whether a request for `/` is meant for GCE: it has the header, or the server's host name.

    Another dialect may answer the others; see `flavored`.
    """
    name = request.headers.get("host", "").partition(":")[0].lower().removesuffix(".")
    return _says_flavor(request) or name in HOSTS


def flavored(response: Response) -> Response:
    """Return an answer to `/` with the header by which Google's clients detect GCE."""
    if ALWAYS[0] in response.headers:
        return response
    return msgspec.structs.replace(response, headers=(*response.headers, ALWAYS[0]))


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
    # Ohai appends a slash to the whole URL, and is answered.
    recursive = query.get("recursive", "").lower().rstrip("/") == "true"
    form = query.get("alt", "json" if recursive or names[1:] == _TAGS else "text").lower()
    of_account = names[4:] and names[-3] == "service-accounts" and names[-1] in SECRET
    return _Asked(request, names, query, recursive, form, names[-1] if of_account else "")


def _has_old(guest: Guest) -> bool:
    """Whether the guest has the endpoint that was before v1."""
    key = "disable-legacy-endpoints"
    told = under(guest, "project_attributes.") | under(guest, "attributes.")
    return told.get(key, "TRUE").lower() == "false"


def _ok(body: bytes, kind: str) -> Response:
    return Response(200, body, kind, ALWAYS, server=SERVER)


def _made(
    view: View, asked: "_Asked", attributes: dict[str, dict[str, str]], now: float
) -> Response:
    """Return the answer, still without what says how long it holds."""
    request, names, query, recursive, form, secret = asked
    if names[1:] == _UPCOMING and not request.path.endswith("/"):
        return _upcoming(view, form, now)
    found = _find(view, names, attributes, now)
    if found is None:
        return not_found(request.path)
    if form not in ("json", "text"):
        return error(400, "alt must be json or text.")
    branch = isinstance(found, (dict, list))
    if branch and not request.path.endswith("/"):
        if not recursive:
            where = f"/{'/'.join(names)}/" + (f"?{request.query}" if request.query else "")
            return moved(request, where)
    elif not branch and request.path.endswith("/"):
        return not_found(request.path)
    if secret:
        make, kind = _SECRETS[secret]
        try:
            return _ok(make(view.guest, query, now).encode(), kind)
        except BadQuery as why:
            return plain_error(400, str(why))
    if form == "json":
        shown = camel(found, names) if recursive or not branch else list(children(found))
        return _ok(msgspec.json.encode(shown), "application/json")
    if not branch:
        told = text(found)
    else:
        told = "".join(lines(found, "") if recursive else (f"{one}\n" for one in children(found)))
    return _ok(told.encode(), "application/text")


_SECRETS: Final[dict[str, tuple[Callable[[Guest, dict[str, str], float], str], str]]] = {
    "token": (access_token, "application/json"),
    "identity": (identity, "text/html"),
}


def _upcoming(view: View, form: str, now: float) -> Response:
    told = upcoming(view, now)
    if told is not None:
        told = {name.replace("-", "_"): one for name, one in told.items()}
        return _ok(msgspec.json.encode(told), "application/json")
    if is_notified(view.guest):
        return NO_NOTIFICATION
    json = form == "json"
    return _ok(b'"NONE"' if json else b"NONE", f"application/{'json' if json else 'text'}")


def _find(
    view: View, names: list[str], attributes: dict[str, dict[str, str]], now: float
) -> "Tree | None":
    """Return the value at the path, without building the whole tree where that is possible."""
    if names[1:] == ["v1", "instance", "maintenance-event"]:
        return maintenance(view, now)
    if names[1:] == ["v1", "instance", "preempted"]:
        return preempted(view, now)
    tree: Tree | None = whole(view, attributes, now)
    for name in names:
        if isinstance(tree, dict):
            tree = tree.get(name)
        elif isinstance(tree, list) and name.isascii() and name.isdecimal() and len(name) < 4:
            tree = tree[int(name)] if int(name) < len(tree) else None
        else:
            return None
    return tree
