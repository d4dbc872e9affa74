"""Azure's Instance Metadata Service and Scheduled Events: everything else below `/metadata`.

Choices where no record of the original was at hand:

- Paths match without regard to case. Query parameters that no reference names are ignored.
- Any known api-version is accepted everywhere, but for parts that are younger than it; a document
  has the newest schema that is not newer, member by member (`azure_members`).
- Events are as the agent last sent them, even if more has fallen due: so the incarnation and the
  document change together, and both wait for an agent that is away. A version older than a type of
  event (Preempt, Terminate) does not show events of that type.
- An approval of an event that is not in the guest's document is 400; if one of several is unknown,
  none is approved. An approval of a started event is 200 and changes nothing.
- A guest may burst as many requests as its rate. Requests that are refused for their header or
  version count as well. Requests below `identity` have a limit of their own, and take a while, so
  that a guest that asks for many tokens at once is refused as in Azure.
- Events are on at all times. With a delay, the first request for them waits so long, as does the
  first one after a day without any; what is scheduled meanwhile is shown afterwards. An approval
  does not wait.
- The answer is 410 while the agent has been silent for too long: clients try again for 70 s.
- There is no managed identity unless the property names one; then its token is made up. What it is
  asked for by must match, and an authority must be the guest's own tenant.
- There is no load balancer unless a property gives one.
- The attested document is signed by the responder's key, as the signer's certificate in it says.
  It is valid for six hours.
- HEAD is answered as GET is, without the body. The references list GET and POST, and 405 for other
  methods; no record of an answer to HEAD was found.
- The texts of 404, 405, 410, 429, and of the errors for X-Forwarded-For and duplicate names.
"""

import re
from math import inf
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from hostagent.dialects.azure_attested import BadNonce, attested
from hostagent.dialects.azure_balancer import load_balancer
from hostagent.dialects.azure_events import (
    EVENT_VERSIONS,
    MalformedApproval,
    UnknownEvent,
    approved,
    document,
)
from hostagent.dialects.azure_identity import NoToken, token
from hostagent.dialects.azure_instance import instance
from hostagent.dialects.azure_limits import RATE, AtOnce, Beginnings, rates
from hostagent.dialects.azure_members import ENDPOINTS
from hostagent.dialects.outcomes import Approval, Outcome, Park
from hostagent.http import Request, Response
from hostagent.model import Guest, View
from hostagent.properties import value
from hostagent.signing import Signer

VERSIONS: Final = (
    *("2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01"),
    *("2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01"),
    *("2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15"),
    *("2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01"),
    *("2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13"),
    *("2023-07-01", "2023-11-15", "2024-03-15", "2024-07-17", "2025-04-07"),
)
"""What `/metadata/versions` lists: the reference's "Supported API versions"."""

NEWEST: Final = VERSIONS[:-4:-1]
SERVER: Final = "IMDS/150.870.65.1103"
"""A build of Azure's that was seen in March 2024. MSAL reads its last number: this one is older
than those that exchange certificates for tokens."""

_ACCEPTED: Final = frozenset({*VERSIONS, *EVENT_VERSIONS})

_JSON: Final = "application/json; charset=utf-8"
_TEXT: Final = "text/plain; charset=utf-8"


def _response(status: int, body: bytes, kind: str = _JSON, *extra: tuple[str, str]) -> Response:
    return Response(status, body, kind, extra, server=SERVER)


def _error(status: int, text: str, *extra: tuple[str, str]) -> Response:
    return _response(status, b'{ "error": "%b" }' % text.encode(), _JSON, *extra)


_NO_HEADER: Final = _error(400, "Bad request: . Required metadata header not specified")
_FORWARDED: Final = _error(400, "Bad request: . X-Forwarded-For header is not allowed")
_DUPLICATE: Final = _error(400, "Bad request: . Duplicate query parameters are not allowed")
_BAD_NONCE: Final = _error(400, "Bad request: . nonce must be up to 32 letters, digits, - and _")
_NO_LEAF: Final = _error(400, "Bad request: . A value needs format=text")
_BAD_FORMAT: Final = _error(400, "Bad request: . format must be json or text")
_BAD_BODY: Final = _error(400, "Bad request: . The body must be StartRequests with EventId")
_BAD_EVENT: Final = _error(400, "Bad request: . No such event")
_NOT_FOUND: Final = _error(404, "Not found")
_NO_BALANCER: Final = _error(
    404,
    "No load balancer metadata is found. Please check if your VM is using any non-basic SKU load "
    "balancer and retry later.",
)
TOO_MANY: Final = _error(429, "Too many requests", ("Retry-After", "1"))
FAILED: Final = _error(500, "Internal server error: try again later")
GONE: Final = _error(410, "Gone: try again within 70 seconds", ("Retry-After", "5"))
_BAD_VERSION: Final = _response(
    400,
    b'{"error":"Bad request. api-version is invalid or was not specified in the request. '
    b'For more information refer to aka.ms/azureimds","newest-versions":'
    + msgspec.json.encode(NEWEST)
    + b"}",
)
_VERSIONS: Final = _response(200, b'{"apiVersions":' + msgspec.json.encode(VERSIONS) + b"}")
_STARTED: Final = _response(200, b"", _TEXT)


def _no_token(why: str) -> Response:
    told = {"error": "invalid_request", "error_description": why}
    return _response(400, msgspec.json.encode(told))


_IDENTITY: Final = (["oauth2", "token"], ["info"])
_NO_IDENTITY_HEADER: Final = _no_token("Required metadata header not specified")


def _not_allowed(allow: str) -> Response:
    return _error(405, "Method not allowed", ("Allow", allow))


def owns(path: str) -> bool:
    """Whether the path is below /metadata."""
    return f"{path}/"[:10].lower() == "/metadata/"


def refusal(status: int, why: str) -> Response:
    """Return an HTTP error in Azure's form."""
    return _error(status, f"Bad request: . {why}" if status == 400 else why)


class AzureImds:
    """Answers, and remembers how often each guest has asked, and since when for events."""

    def __init__(
        self,
        rate: float = RATE,
        *,
        signer: Signer,
        events_delay: float = 0.0,
        incarnation_restarts: bool = False,
    ) -> None:
        """Allow each guest `rate` requests a second; 0 means no limit, also for tokens.

        `events_delay` is how many seconds the first request for events waits. With
        `incarnation_restarts` the document's incarnation restarts when a guest changes its node.
        """
        self._rate, self._identity_rate = rates(rate)
        self._at_once = AtOnce()
        self._beginnings = Beginnings(events_delay)
        self._signer = signer
        self._restarts = incarnation_restarts

    def answer(self, view: View, request: Request, now: float) -> Outcome | None:
        """Answer a request below /metadata; None if the path is another."""
        if not owns(request.path):
            return None
        route = request.path.lower().strip("/").split("/")[1:]
        rate = self._identity_rate if route[:1] == ["identity"] else self._rate
        if not rate.allows(view.guest.name, now):
            return TOO_MANY
        response = self._answer(view, request, route, now)
        if not isinstance(response, Response):
            return response
        if self._rate.rate:  # each answer costs a token
            return msgspec.structs.replace(response, valid_until=-inf)
        if response.valid_until == -inf:
            # Most answers do not depend on the time: they hold until the knowledge changes.
            return msgspec.structs.replace(response, valid_until=inf)
        return response

    def _answer(self, view: View, request: Request, route: list[str], now: float) -> Outcome:
        query = _query(request.query)
        if "x-forwarded-for" in request.headers:
            return _FORWARDED
        if query is None:
            return _DUPLICATE
        version = query.get("api-version", "")
        preview = route == ["scheduledevents"] and version == EVENT_VERSIONS[0]
        if request.headers.get("metadata", "").lower() != "true" and not preview:
            if route[:1] != ["identity"]:
                return _NO_HEADER
            # MSAL sees by the error whether there is such an endpoint (identity/credential).
            return _NO_IDENTITY_HEADER if route[1:] in _IDENTITY else _NOT_FOUND
        get = request.method in ("GET", "HEAD")
        match route:
            case ["versions"]:
                return _VERSIONS if get else _not_allowed("GET, HEAD")
            case ["instance", *_] | ["scheduledevents"] | ["loadbalancer"]:
                pass
            case ["attested", "document"]:
                pass
            case ["identity", *name] if name in _IDENTITY:
                pass
            case _:
                return _NOT_FOUND
        if version not in _ACCEPTED or version < ENDPOINTS[route[0]]:
            return _BAD_VERSION
        if not get and (route[0], request.method) != ("scheduledevents", "POST"):
            return _not_allowed("GET, POST" if route[0] == "scheduledevents" else "GET, HEAD")
        match route[0]:
            case "scheduledevents":
                begin = self._beginnings.asked(view.guest.availability_set or view.guest.name, now)
                return self._events(view, version, begin, now) if get else _approve(view, request)
            case "identity":
                return self._identity(view, route[1], query, now)
            case "attested":
                return self._attested(view.guest, query, version, now)
            case "loadbalancer":
                balancer = load_balancer(view.guest)
                if balancer is None:
                    return _NO_BALANCER
                return _response(200, msgspec.json.encode(balancer))
            case _:
                return _instance(view.guest, route[1:], query, version)

    def _events(self, view: View, version: str, begin: float, now: float) -> Response | Park:
        if now < begin:
            return Park(begin, lambda view, now: self._events(view, version, begin, now))
        number = view.incarnation - view.arrived + 1 if self._restarts else view.incarnation
        return _response(200, document(view, version, number))

    def _identity(
        self, view: View, what: str, query: dict[str, str], now: float
    ) -> Response | Park:
        if what == "info" or not self._rate.rate:
            return _identity(view.guest, what, query, now)
        end = self._at_once.begins(view.guest.name, now)
        if end is None:
            return TOO_MANY

        def resume(view: View, now: float) -> Response | Park:
            if now < end:
                return Park(end, resume)
            return _identity(view.guest, what, query, now)

        return resume(view, now)

    def _attested(self, guest: Guest, query: dict[str, str], version: str, now: float) -> Response:
        try:
            body = attested(guest, query, version, now, self._signer)
        except BadNonce:
            return _BAD_NONCE
        # It says the second at which it was made.
        return msgspec.structs.replace(_response(200, body), valid_until=now // 1 + 1)


def _identity(guest: Guest, what: str, query: dict[str, str], now: float) -> Response:
    if what == "info":
        return _response(200, msgspec.json.encode({"tenantId": value(guest, "tenant_id")}))
    try:
        told = token(guest, query, now)
    except NoToken as error:
        return _no_token(str(error))
    body = msgspec.json.encode(told)
    # The remaining life is given in minutes.
    return msgspec.structs.replace(_response(200, body), valid_until=(now // 60 + 1) * 60)


def _query(text: str | None) -> dict[str, str] | None:
    """Return the names, in lower case, with their values; None if a name occurs twice."""
    pairs = [part.partition("=") for part in (text or "").split("&") if part]
    query = {unquote_plus(name).lower(): unquote_plus(told) for name, _, told in pairs}
    return query if len(query) == len(pairs) else None


def _approve(view: View, request: Request) -> Outcome:
    try:
        scheduled = approved(view, request.body)
    except MalformedApproval:
        return _BAD_BODY
    except UnknownEvent:
        return _BAD_EVENT
    return Approval(scheduled, _STARTED, _BAD_EVENT, FAILED) if scheduled else _STARTED


def _instance(guest: Guest, route: list[str], query: dict[str, str], version: str) -> Response:
    extended = query.get("extended", "").lower() == "true"
    tree: Any = instance(guest, version, extended=extended)
    for name in route:
        tree = _child(tree, name)
        if tree is None:
            return _NOT_FOUND
    form = query.get("format", "json").lower()
    if form not in ("json", "text"):
        return _BAD_FORMAT
    if isinstance(tree, (str, bool)):
        if form == "json":
            return _NO_LEAF
        return _response(200, _plain(tree).encode(), _TEXT)
    if form == "json":
        return _response(200, msgspec.json.encode(tree))
    children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    lines = [f"{name}{'' if isinstance(one, (str, bool)) else '/'}" for name, one in children]
    return _response(200, "\n".join(lines).encode(), _TEXT)


def _child(tree: Any, name: str) -> Any:
    """Return a member (ignoring case) or an element; None if there is none."""
    if isinstance(tree, dict):
        return next((one for key, one in tree.items() if key.lower() == name), None)
    if isinstance(tree, list) and re.fullmatch(r"[0-9]{1,3}", name) and int(name) < len(tree):
        return tree[int(name)]
    return None


def _plain(leaf: str | bool) -> str:
    return leaf if isinstance(leaf, str) else str(leaf).lower()
