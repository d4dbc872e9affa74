"""The dialects: each cloud's metadata API, one module a cloud; what it tells may stand beside it.

A dialect has one function,

    answer(view: View, request: Request, now: float) -> Outcome | None

that gives None when the path is not its own. `view` is what is known of the guest that asks, and
nothing of any other guest; `now` the metadata plane's time, epoch seconds. A dialect opens nothing,
stores nothing but how often each guest has asked, and looks at no clock. An outcome is a response,
or a request to park until something changes, or an approval to pass on (`outcomes`).

Requests that have passed through a proxy were not asked by the guest itself: each dialect refuses
X-Forwarded-For as its cloud does, EC2 only where a token is asked for.
"""

from functools import partial
from secrets import token_bytes
from typing import Final

from msgspec import Struct, field

from hostagent.dialects import azure_imds, azure_v1, ec2, gce
from hostagent.dialects.outcomes import Dialect, Outcome
from hostagent.http import Request, Response
from hostagent.model import View

NAMES: Final = ("azure-v1", "azure", "ec2", "gce")
"""In this order they are asked. Azure's v1 has exact paths below /metadata, IMDS all others; EC2
and GCE share `/`: see `Dialects`."""

NOT_FOUND: Final = Response(404, b"Not Found")
UNAVAILABLE: Final = Response(
    # An agent that has been gone for a minute is not back at once.
    503,
    b"the host agent has not been heard for too long",
    headers=(("Retry-After", "5"),),
)


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
        self._served = [every[name] for name in NAMES if name in options.enabled]
        self._azure = "azure" in options.enabled
        self._gce = "gce" in options.enabled

    def answer(self, view: View, request: Request, now: float) -> Outcome:
        """Give the answer of the dialect to which the path belongs, or 404."""
        if request.path == "/" and self._gce and gce.wanted(request):
            return gce.answer(view, request, now) or NOT_FOUND
        for dialect in self._served:
            outcome = dialect(view, request, now)
            if outcome is not None:
                if request.path == "/" and self._gce and isinstance(outcome, Response):
                    return gce.flavored(outcome)
                return outcome
        return NOT_FOUND

    def unavailable(self, request: Request) -> Response:
        """Give the answer while what is known is too old to be told."""
        if self._azure and azure_imds.owns(request) and not azure_v1.owns(request):
            return azure_imds.GONE
        return UNAVAILABLE
