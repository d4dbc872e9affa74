"""What the dialects have in common: whose a path is, and what is said while nothing can be told."""

import pytest

from hostagent.dialects import NAMES, Dialects, Options
from hostagent.dialects.azure_imds import SERVER as IMDS
from hostagent.http import Request
from tests.hostagent.asking import Asker

FLAVOR = ("Metadata-Flavor", "Google")
V1 = "/metadata/v1/InstanceInfo"
EVENTS = "/metadata/scheduledevents"
MAC = "/latest/meta-data/mac"
NAME = "/computeMetadata/v1/instance/name"


def instead(path, what="unavailable", enabled=NAMES):
    """Return the status, the server, and what stands in the headers besides."""
    request = Request("GET", path, None, (1, 1), {"host": "x"}, True)
    response = getattr(Dialects(Options(enabled=enabled)), what)(request)
    return response.status, response.server, dict(response.headers)


@pytest.mark.parametrize(
    ("path", "unavailable", "crowded", "server"),
    [
        (V1, 503, 503, "hostagent"),
        (EVENTS, 410, 429, IMDS),
        ("/metadata/else", 410, 429, IMDS),
        (MAC, 503, 503, "EC2ws"),
        ("/2099-01-01/", 503, 503, "EC2ws"),
        (NAME, 503, 503, "Metadata Server for VM"),
        ("/else", 503, 503, "hostagent"),
    ],
)
def test_what_cannot_be_told_is_refused_as_the_cloud_does(path, unavailable, crowded, server):
    """Clients try again after what their cloud says, and know Google's by a header."""
    for what, status in (("unavailable", unavailable), ("crowded", crowded)):
        told, who, headers = instead(path, what)
        assert (told, who) == (status, server)
        assert "Retry-After" in headers
        assert (FLAVOR[0] in headers) == (path == NAME or "compute" in path)


@pytest.mark.parametrize(
    ("path", "headers", "statuses"),
    [
        ("/metadata/versions", {"metadata": "true"}, (200, 405)),
        ("/metadata/else", {"metadata": "true"}, (404, 404)),
        ("/metadata/versions", {}, (400, 400)),
        (NAME, {"metadata_flavor": "Google"}, (200, 405)),
        (f"{NAME}/x", {"metadata_flavor": "Google"}, (404, 405)),
        (NAME, {}, (403, 403)),
    ],
)
def test_azure_and_gce_keep_connections_also_after_an_error(path, headers, statuses):
    """As those clouds do; EC2 ends each. A refusal does not cost a client its connection."""
    ask = Asker()
    told = [ask.outcome(path, method, **headers) for method in ("GET", "POST")]
    assert tuple(one.status for one in told) == statuses
    assert not any(one.close for one in told)


@pytest.mark.parametrize(
    ("path", "server", "body"),
    [
        (V1, "hostagent", "a Host header is required"),
        (EVENTS, IMDS, '{ "error": "Bad request: . a Host header is required" }'),
        (MAC, "EC2ws", "<h1>400 - Bad Request</h1>"),
        (NAME, "Metadata Server for VM", "<p>A Host header is required. <ins>"),
        ("/else", "hostagent", "a Host header is required"),
        (None, "hostagent", "a Host header is required"),
    ],
)
def test_what_is_malformed_is_refused_in_the_clouds_words(path, server, body):
    response = Dialects(Options()).refusal(path, 400, "a Host header is required")
    assert (response.status, response.server) == (400, server)
    assert body in response.body.decode()
    assert (FLAVOR in response.headers) == (path == NAME)
    off = Dialects(Options(enabled=())).refusal(path, 400, "a Host header is required")
    assert (off.server, off.body) == ("hostagent", b"a Host header is required")


@pytest.mark.parametrize("status", [400, 413, 414, 417, 421, 431, 501, 505])
def test_every_refusal_of_http_has_a_form_in_each_cloud(status):
    for path in (EVENTS, MAC, NAME, "/"):
        response = Dialects(Options()).refusal(path, status, "why")
        assert response.status == status
        assert response.body


@pytest.mark.parametrize(
    "path",
    [
        *("//metadata/v1/InstanceInfo", "/metadata//v1/InstanceInfo", "/metadata/v1//InstanceInfo"),
        *("/metadata/v1/../v1/InstanceInfo", "/./metadata/v1/InstanceInfo", "/metadata/v1/."),
        *("/metadata%2fv1%2fInstanceInfo", "/%6detadata/v1/InstanceInfo", "/metadata/%2e%2e/x"),
        *("/metadata//instance", "/metadata/instance/..", "/metadata/instance/%63ompute"),
        *("/latest/../metadata/v1/InstanceInfo", "//latest/../latest/", "/latest/%6deta-data/"),
        *("/computeMetadata/v1/../v1/", "//computeMetadata/./v1/", "/computeMetadata/v1/%2e%2e/"),
        *("/../../etc/passwd", "/%2e%2e/", "/..", "/.", "//else"),
    ],
)
def test_a_path_names_what_it_says_and_nothing_else(path):
    """Whatever header is missing: there is nothing there."""
    ask = Asker()
    assert ask(path)[0] == 404
    assert ask(path, metadata="true", metadata_flavor="Google")[0] == 404
    assert ask(path, "POST")[0] == 404


def test_a_cloud_that_is_switched_off_says_nothing():
    assert instead(EVENTS, enabled=("ec2", "gce"))[:2] == (503, "hostagent")
    assert instead(V1, enabled=("azure",))[:2] == (410, IMDS)
    assert instead(MAC, enabled=("azure", "gce"))[:2] == (503, "hostagent")
    assert instead(NAME, enabled=("ec2",))[:2] == (503, "hostagent")


def test_the_root_is_flavored_by_every_dialect():
    assert instead("/")[1:] == ("EC2ws", {"Retry-After": "5", FLAVOR[0]: FLAVOR[1]})
    assert instead("/", enabled=("gce",))[2][FLAVOR[0]] == FLAVOR[1]
    assert FLAVOR[0] not in instead("/", enabled=("ec2",))[2]


@pytest.mark.parametrize(
    ("enabled", "server", "closes"),
    [
        (("ec2",), "EC2ws", True),
        (("gce",), "Metadata Server for VM", False),
        (NAMES, "hostagent", False),
    ],
)
def test_a_path_of_no_cloud_is_refused_as_the_only_cloud_does(enabled, server, closes):
    """A detector that asks an instance of EC2 for GCE's paths is told so by EC2."""
    ask = Asker(Options(enabled=enabled))
    response = ask.outcome("/opc/v2/instance/")
    assert (response.status, response.server, response.close) == (404, server, closes)
    assert (FLAVOR in response.headers) == (enabled == ("gce",))
