"""The dialects: each cloud's metadata API. They run in the responder's process.

A dialect has one function,

    answer(view: View, request: Request, now: float) -> Outcome | None

that returns None when the path is not its own. `view` is what is known of the guest that asks, and
nothing of any other guest. `now` is the metadata plane's time, epoch seconds. A dialect opens
nothing, reads no clock, and stores only how often each guest has asked, and what it has written for
itself alone. An outcome is a response, a request to park until something changes, or an approval to
pass on (`outcomes`).

A request that passed through a proxy may not come from the guest itself: each dialect refuses
X-Forwarded-For as its cloud does, EC2 only for token requests.

Paths are taken literally: one with dot segments or percent-encoding is 404, whatever else the
request lacks. There are two exceptions. Characters that clients encode needlessly, such as the
colons of a MAC address, are decoded. For EC2 and GCE several slashes are one, as clients join a
base and a path that way (AWS's SDK for JavaScript asks for `//latest/…`).
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_bytes
from typing import Final
from urllib.parse import unquote

from msgspec import Struct, field
from msgspec.structs import replace

from hostagent.dialects import (
    azure_imds,
    azure_limits,
    azure_v1,
    azure_wire_server,
    ec2,
    gce,
    gce_pages,
    openstack,
)
from hostagent.dialects.outcomes import NOT_FOUND, Dialect, Outcome
from hostagent.http import REASONS, Request, Response
from hostagent.model import View
from hostagent.signing import Signer

NAMES: Final = ("azure-v1", "azure", "ec2", "gce", "openstack")
"""The order in which they are asked. Azure's v1 has two paths below /metadata, IMDS all others. EC2
and GCE share `/`: see `Dialects`."""
DEFAULT: Final = NAMES[:-1]
"""Those that are served unless it is said: OpenStack's path would mislead clients of the others."""

UNAVAILABLE: Final = Response(
    # An agent that has been gone for a minute is not back at once.
    503,
    b"Service Unavailable",
    headers=(("Retry-After", "5"),),
)
_needless = re.compile("%(?:2[BCbc]|3[ADad]|40)")  # + , : = @
_odd = re.compile(r"%|//|/\.\.?(?:/|$)")

_OWNS: Final[Mapping[str, Callable[[str], bool]]] = {
    "azure-v1": azure_v1.owns,
    "azure": azure_imds.owns,
    "ec2": ec2.owns,
    "gce": gce.owns,
    "openstack": openstack.owns,
}
_UNAVAILABLE: Final = {
    "azure": azure_imds.GONE,
    "ec2": ec2.UNAVAILABLE,
    "gce": gce_pages.UNAVAILABLE,
}
_CROWDED: Final = _UNAVAILABLE | {"azure": azure_imds.TOO_MANY}
_FAILURE: Final = {
    ("azure", 410): azure_imds.GONE,
    ("azure", 429): azure_imds.TOO_MANY,
    ("azure", 500): azure_imds.FAILED,
    ("ec2", 503): ec2.UNAVAILABLE,
    ("gce", 503): gce_pages.UNAVAILABLE,
}
_RETRY_AFTER: Final = {429: "1", 503: "5"}
_REFUSAL: Final[Mapping[str, Callable[[int, str], Response]]] = {
    "azure": azure_imds.refusal,
    "ec2": ec2.refusal,
    "gce": gce_pages.refusal,
}


class Options(Struct, frozen=True, kw_only=True):
    """What is served, and how. `ec2_secret` signs EC2's tokens; by default it is random. `signer`
    signs documents; by default with a key that it makes.
    """

    enabled: tuple[str, ...] = DEFAULT
    azure_rate: float = azure_limits.RATE
    azure_events_delay: float = 0.0
    azure_incarnation_restarts: bool = False
    ec2_imdsv1: bool = True
    ec2_hop_limit: int = 1
    ec2_secret: bytes = field(default_factory=partial(token_bytes, 32))
    signer: Signer = field(default_factory=Signer)


class Dialects:
    """The dialects that are served.

    If both EC2 and GCE are served, GCE answers `/` for requests with the Metadata-Flavor header or
    GCE's host name, and EC2 answers all others. Every answer to `/` carries the header, because
    Google's clients detect GCE by it and do not send it themselves.
    """

    def __init__(self, options: Options) -> None:
        """Serve what the options say; raises ValueError for a name that no dialect has."""
        unknown = set(options.enabled) - set(NAMES)
        if unknown:
            raise ValueError(f"no dialect is called {', '.join(sorted(unknown))}: {NAMES}")
        self._answer_gce = gce.Gce().answer
        every: dict[str, Dialect] = {
            "azure-v1": azure_v1.answer,
            "azure": azure_imds.AzureImds(
                options.azure_rate,
                signer=options.signer,
                events_delay=options.azure_events_delay,
                incarnation_restarts=options.azure_incarnation_restarts,
            ).answer,
            "ec2": ec2.Ec2(
                options.ec2_secret,
                options.signer,
                imdsv1=options.ec2_imdsv1,
                hop_limit=options.ec2_hop_limit,
            ).answer,
            "gce": self._answer_gce,
            "openstack": openstack.answer,
        }
        self._options = options
        self._gce = "gce" in options.enabled
        self._names = [name for name in NAMES if name in options.enabled]
        self._served = [every[name] for name in self._names]
        # Where one cloud alone is served, what no dialect owns is refused in its form. (Of Azure's
        # form outside of /metadata there is no record.)
        self._alone = self._names[0] if self._names in (["ec2"], ["gce"]) else ""

    def answer(self, view: View, request: Request, now: float) -> Outcome:
        """Return the answer of the dialect to which the path belongs, or 404."""
        if _odd.search(request.path) is not None:
            path = self._named(request.path)
            if path is None:
                return self.refusal(request.path, 404, "Not Found")
            request = replace(request, path=path)
        if azure_wire_server.asked(request) and "azure" in self._names:
            return azure_wire_server.answer(view, request)
        if request.path == "/" and self._gce and gce.wanted(request):
            return self._answer_gce(view, request, now) or NOT_FOUND
        for dialect in self._served:
            outcome = dialect(view, request, now)
            if isinstance(outcome, Response):
                return self._told(request.path, outcome)
            if outcome is not None:
                return outcome
        return self.refusal(request.path, 404, "Not Found")

    def unavailable(self, request: Request) -> Response:
        """Return the cloud's answer for when the agent has been silent for too long."""
        words = _UNAVAILABLE.get(self._whose(request.path), UNAVAILABLE)
        return self._told(request.path, words)

    def crowded(self, request: Request) -> Response:
        """Return the answer to a request that would wait although too many of its guest's do."""
        words = _CROWDED.get(self._whose(request.path), UNAVAILABLE)
        return self._told(request.path, words)

    def failure(self, path: str, status: int) -> Response:
        """Return the answer when the service fails with the status, in the cloud's words."""
        known = _FAILURE.get((self._whose(path), status))
        if known is not None:
            return self._told(path, known)
        response = self.refusal(path, status, REASONS[status])
        if (after := _RETRY_AFTER.get(status)) is None:
            return response
        return replace(response, headers=(*response.headers, ("Retry-After", after)))

    def unmetered(self) -> "Dialects":
        """Return the same without a bound on anybody's rate: for when time stands still."""
        return Dialects(replace(self._options, azure_rate=0.0, azure_events_delay=0.0))

    def refusal(self, path: str | None, status: int, why: str) -> Response:
        """Return the answer to a malformed or misdirected request; `path` None: not known."""
        path = path or ""
        whose = self._whose(path) or self._alone
        plain = Response(status, why.encode())
        return self._told(path, _REFUSAL[whose](status, why) if whose in _REFUSAL else plain)

    def _whose(self, path: str) -> str:
        """Return the name of the dialect to which the path belongs, or ""."""
        return next((name for name in self._names if _OWNS[name](path)), "")

    def _named(self, path: str) -> str | None:
        """Return the path that an unusual one stands for; None if it is not allowed."""
        path = _needless.sub(lambda match: unquote(match[0]), path)
        joined = re.sub("/+", "/", path)
        if joined != path and self._whose(joined) not in ("ec2", "gce"):
            return None
        return joined if _odd.search(joined) is None else None

    def _told(self, path: str, response: Response) -> Response:
        return gce.flavored(response) if path == "/" and self._gce else response
