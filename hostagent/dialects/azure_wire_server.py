"""Azure's wire server, at an address of its own: what agents are told of their machine's goal, and
where they report that it is ready.

It is asked by its Host header, for it has paths in common with no other dialect and none of IMDS.
There are no certificates, no extensions and no settings to fetch. Choices where no record of the
original was at hand:

- Reports (health, role properties, telemetry, status) are taken and forgotten.
- Paths match as they are written, `/machine` with and without the slash.
- A request without x-ms-version is answered as one with it, and the reply's version is always
  2012-11-30.
"""

from typing import Final
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from hostagent.addresses import WIRE_SERVER
from hostagent.dialects.outcomes import NOT_FOUND
from hostagent.http import Request, Response
from hostagent.model import View
from hostagent.properties import value

_VERSION: Final = "2012-11-30"
_XML: Final = "text/xml; charset=utf-8"
_HEAD: Final = '<?xml version="1.0" encoding="utf-8"?>'
_HOSTS: Final = (WIRE_SERVER, f"{WIRE_SERVER}:80")
_REPORTS: Final = ("health", "roleProperties", "telemetrydata", "status")
_NOT_ALLOWED: Final = Response(405, b"Method Not Allowed", headers=(("Allow", "GET, POST"),))
_VERSIONS: Final = (
    f"{_HEAD}<Versions><Preferred><Version>2015-04-05</Version></Preferred><Supported>"
    f"<Version>2015-04-05</Version><Version>{_VERSION}</Version></Supported></Versions>"
)


def asked(request: Request) -> bool:
    """Whether the request is the wire server's."""
    return request.headers.get("host") in _HOSTS


def answer(view: View, request: Request) -> Response:
    """Answer a request to the wire server."""
    asked_for = parse_qs(request.query or "", keep_blank_values=True)
    what = asked_for.get("comp", [""])[0]
    root, _, rest = request.path.removeprefix("/").partition("/")
    if request.method == "POST":
        reported = root == "machine" and not rest and what in _REPORTS
        return Response(200, b"") if reported else NOT_FOUND
    if request.method not in ("GET", "HEAD"):
        return _NOT_ALLOWED
    if request.path == "/" and what == "versions":
        return _told(_VERSIONS)
    if root != "machine":
        return NOT_FOUND
    if not rest:
        return _told(_goal_state(view)) if what == "goalstate" else NOT_FOUND
    if rest != _container(view) or what != "config":
        return NOT_FOUND
    made = _CONFIGS.get(asked_for.get("type", [""])[0])
    return NOT_FOUND if made is None else _told(made.format(name=_escaped(view.guest.name)))


def _escaped(text: str) -> str:
    return escape(text, {'"': "&quot;"})


def _told(text: str) -> Response:
    return Response(200, text.encode(), _XML, headers=(("x-ms-version", _VERSION),))


def _container(view: View) -> str:
    """The path of a machine's configuration: its container and its instance."""
    return f"{value(view.guest, 'vm_id')}/_{view.guest.name}"


def _goal_state(view: View) -> str:
    vm_id, name = value(view.guest, "vm_id"), _escaped(view.guest.name)
    at = f"http://{WIRE_SERVER}:80/machine/{_container(view)}?comp=config&type="
    configs = "".join(
        f"<{member}>{escape(f'{at}{kind}&incarnation=1')}</{member}>"
        for member, kind in ((f"{kind[0].upper()}{kind[1:]}", kind) for kind in _CONFIGS)
    )
    return (
        f"{_HEAD}<GoalState><Version>{_VERSION}</Version><Incarnation>1</Incarnation>"
        "<Machine><ExpectedState>Started</ExpectedState>"
        "<StopRolesDeadlineHint>300000</StopRolesDeadlineHint>"
        "<LBProbePorts><Port>16001</Port></LBProbePorts>"
        "<ExpectHealthReport>FALSE</ExpectHealthReport></Machine>"
        f"<Container><ContainerId>{vm_id}</ContainerId><RoleInstanceList><RoleInstance>"
        f"<InstanceId>_{name}</InstanceId><State>Started</State>"
        f"<Configuration>{configs}<ConfigName>{name}.1.xml</ConfigName></Configuration>"
        "</RoleInstance></RoleInstanceList></Container></GoalState>"
    )


_CONFIGS: Final = {
    "hostingEnvironmentConfig": (
        f'{_HEAD}<HostingEnvironmentConfig version="1.0.0.0" goalStateIncarnation="1">'
        "<StoredCertificates/>"
        '<Deployment name="{name}" guid="" incarnation="0"><Service name="{name}"/></Deployment>'
        '<Incarnation number="1" instance="_{name}"/><Role name="{name}"/>'
        "</HostingEnvironmentConfig>"
    ),
    "sharedConfig": (
        f'{_HEAD}<SharedConfig version="1.0.0.0" goalStateIncarnation="1">'
        '<Deployment name="{name}" guid="" incarnation="0"><Service name="{name}"/></Deployment>'
        '<Incarnation number="1" instance="_{name}"/><Role name="{name}"/>'
        "</SharedConfig>"
    ),
}
