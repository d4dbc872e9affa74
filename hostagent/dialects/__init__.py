"""The dialects: each cloud's metadata API, one module a cloud; what it tells may stand beside it.

A dialect has one function,

    answer(view: View, request: Request, now: float) -> Outcome | None

that gives None when the path is not its own. `view` is what is known of the guest that asks, and
nothing of any other guest; `now` the metadata plane's time, epoch seconds. A dialect opens nothing,
stores nothing but how often each guest has asked, and looks at no clock. An outcome is a response,
or a request to park until something changes, or an approval to pass on (`outcomes`).

Requests that have passed through a proxy were not asked by the guest itself: each dialect refuses
X-Forwarded-For as its cloud does, EC2 only where a token is asked for.

A dialect is asked for what a path names: several slashes are one, as clients make them where they
join a base and a path, and EC2 and GCE take them so; what is percent-encoded is decoded, but for
slashes (RFC 3986 §2.2: an encoded one is no delimiter).
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_bytes
from typing import Final
from urllib.parse import unquote

from msgspec import Struct, field
from msgspec.structs import replace

from hostagent.dialects import azure_imds, azure_v1, ec2, gce
from hostagent.dialects.outcomes import Dialect, Outcome
from hostagent.http import Request, Response
from hostagent.model import View

NAMES: Final = ("azure-v1", "azure", "ec2", "gce")
"""In this order they are asked. Azure's v1 has two places below /metadata, IMDS all others; EC2
and GCE share `/`: see `Dialects`."""

NOT_FOUND: Final = Response(404, b"Not Found")
UNAVAILABLE: Final = Response(
    # An agent that has been gone for a minute is not back at once.
    503,
    b"Service Unavailable",
    headers=(("Retry-After", "5"),),
)
_OWNS: Final[Mapping[str, Callable[[str], bool]]] = {
    "azure-v1": azure_v1.owns,
    "azure": azure_imds.owns,
    "ec2": ec2.owns,
    "gce": gce.owns,
}
_UNAVAILABLE: Final = {
    "azure": azure_imds.GONE,
    "ec2": ec2.UNAVAILABLE,
    "gce": gce.UNAVAILABLE,
}
_CROWDED: Final = _UNAVAILABLE | {"azure": azure_imds.TOO_MANY}
_REFUSAL: Final[Mapping[str, Callable[[int, str], Response]]] = {
    "azure": azure_imds.refusal,
    "ec2": ec2.refusal,
    "gce": gce.refusal,
}


class Options(Struct, frozen=True, kw_only=True):
    """What is served, and how. `ec2_secret` signs EC2's tokens: one that nobody knows."""

    enabled: tuple[str, ...] = NAMES
    azure_rate: float = azure_imds.RATE
    ec2_imdsv1: bool = True
    ec2_hop_limit: int = 1
    ec2_secret: bytes = field(default_factory=partial(token_bytes, 32))


class Dialects:
    """The dialects that are served.

    Where both EC2 and GCE are, `/` is GCE's for who says its flavor or calls it by its name, and
    EC2's for everybody else; but all are told the flavor, as by that, and without saying it
    themselves, Google's clients find out where they are.
    """

    def __init__(self, options: Options) -> None:
        """Serve what the options say; raises ValueError for a name that no dialect has."""
        unknown = set(options.enabled) - set(NAMES)
        if unknown:
            raise ValueError(f"no dialect is called {', '.join(sorted(unknown))}: {NAMES}")
        every: dict[str, Dialect] = {
            "azure-v1": azure_v1.answer,
            "azure": azure_imds.AzureImds(options.azure_rate).answer,
            "ec2": ec2.Ec2(
                options.ec2_secret, imdsv1=options.ec2_imdsv1, hop_limit=options.ec2_hop_limit
            ).answer,
            "gce": gce.answer,
        }
        self._gce = "gce" in options.enabled
        self._names = [name for name in NAMES if name in options.enabled]
        self._served = [every[name] for name in self._names]

    def answer(self, view: View, request: Request, now: float) -> Outcome:
        """Give the answer of the dialect to which the path belongs, or 404."""
        if "%" in request.path or "//" in request.path:
            request = replace(request, path=_named(request.path))
        if request.path == "/" and self._gce and gce.wanted(request):
            return gce.answer(view, request, now) or NOT_FOUND
        for dialect in self._served:
            outcome = dialect(view, request, now)
            if isinstance(outcome, Response):
                return self._told(request.path, outcome)
            if outcome is not None:
                return outcome
        return NOT_FOUND

    def unavailable(self, request: Request) -> Response:
        """Give the answer while what is known is too old to be told, in the cloud's own words."""
        path, whose = self._whose(request.path)
        return self._told(path, _UNAVAILABLE.get(whose, UNAVAILABLE))

    def crowded(self, request: Request) -> Response:
        """Give the answer to a request that would wait where too many of its guest's do."""
        path, whose = self._whose(request.path)
        return self._told(path, _CROWDED.get(whose, UNAVAILABLE))

    def refusal(self, path: str | None, status: int, why: str) -> Response:
        """Give the answer to what is malformed, or not meant for here. None: who knows what for."""
        path, whose = self._whose(path or "")
        plain = Response(status, why.encode())
        return self._told(path, _REFUSAL[whose](status, why) if whose in _REFUSAL else plain)

    def _whose(self, path: str) -> tuple[str, str]:
        """Give what the path names, and the dialect to which it belongs, or ""."""
        path = _named(path)
        return path, next((name for name in self._names if _OWNS[name](path)), "")

    def _told(self, path: str, response: Response) -> Response:
        return gce.flavored(response) if path == "/" and self._gce else response


def _named(path: str) -> str:
    parts = re.split("(%2[Ff])", path)
    parts[::2] = [unquote(part) for part in parts[::2]]
    return re.sub("/+", "/", "".join(parts))
