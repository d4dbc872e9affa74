"""Golden bytes of GCE's metadata server."""

import json
from base64 import urlsafe_b64decode

import pytest

from hostagent.dialects import Options
from hostagent.dialects.outcomes import Park
from hostagent.model import EventType, Request, apply
from hostagent.written import MAX_BYTES, MAX_WRITTEN
from tests.hostagent.asking import CREATED, NOT_BEFORE, Asker, event

V1 = "/computeMetadata/v1/"
EVENT = V1 + "instance/maintenance-event"
WAIT = EVENT + "?wait_for_change=true"
FLAVOR = {"metadata_flavor": "Google"}
ALWAYS = (("Metadata-Flavor", "Google"), ("X-XSS-Protection", "0"),
          ("X-Frame-Options", "SAMEORIGIN"))  # fmt: skip


class Gce(Asker):
    def outcome(self, target, *args, **headers):
        return super().outcome(target, *args, **(FLAVOR | headers))


@pytest.fixture
def ask():
    return Gce()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", "0.1/\ncomputeMetadata/\n"),
        ("/computeMetadata/", "v1/\n"),
        (V1, "instance/\noslogin/\nproject/\nuniverse/\n"),
        (V1 + "instance/name", "web1"),
        (V1 + "instance/hostname", "web1.us-central1-a.c.lab-project.internal"),
        (V1 + "instance/zone", "projects/739419398126/zones/us-central1-a"),
        (V1 + "instance/id", "7492637414333927858"),
        (V1 + "instance/machine-type", "projects/739419398126/machineTypes/e2-medium"),
        (V1 + "instance/maintenance-event", "NONE"),
        (V1 + "instance/preempted", "FALSE"),
        (V1 + "instance/attributes/", ""),
        (V1 + "instance/service-accounts/", ""),
        (V1 + "instance/network-interfaces/", "0/\n"),
        (V1 + "instance/network-interfaces/0/ip", "169.254.3.7"),
        (V1 + "instance/network-interfaces/0/dns-servers", "169.254.169.254\n"),
        (V1 + "instance/scheduling/", "automatic-restart\non-host-maintenance\npreemptible\n"),
        (V1 + "project/project-id", "lab-project"),
        (V1 + "project/numeric-project-id", "739419398126"),
        (V1 + "universe/universe-domain", "googleapis.com"),
        ("//computeMetadata//v1///instance/name", "web1"),
    ],
)
def test_paths(ask, path, body):
    response = ask.outcome(path)
    assert (response.status, response.body.decode()) == (200, body)
    assert response.content_type == "application/text"
    assert response.server == "Metadata Server for VM"
    assert response.headers == (*ALWAYS, ("ETag", "0000000000010000"))


def test_json(ask):
    get = ask.outcome(V1 + "instance/scheduling/?recursive=true")
    assert get.body == (
        b'{"automaticRestart":"TRUE","onHostMaintenance":"MIGRATE","preemptible":"FALSE"}'
    )
    assert get.content_type == "application/json"
    assert ask(EVENT + "?alt=json")[1] == '"NONE"'
    assert ask(V1 + "instance/id?alt=json")[1] == "7492637414333927858"
    assert ask(V1 + "?alt=json")[1] == '["instance/","oslogin/","project/","universe/"]'
    text = V1 + "instance/scheduling/?recursive=true&alt=text"
    lines = "automatic-restart TRUE\non-host-maintenance MIGRATE\npreemptible FALSE\n"
    assert ask(text)[1] == lines
    assert ask(EVENT + "?alt=xml")[0] == 400
    assert ask(V1 + "instance/tags") == (200, "[]")
    assert ask(V1 + "instance/tags?alt=text") == (200, "")
    whole = json.loads(ask("/computeMetadata/v1//?recursive=True&alt=JSON")[1])
    assert whole["instance"]["networkInterfaces"][0]["ip"] == "169.254.3.7"
    assert whole["instance"]["id"] == 7492637414333927858
    assert whole["instance"]["maintenanceEvent"] == "NONE"
    assert whole["project"] == {
        "attributes": {},
        "numericProjectId": 739419398126,
        "projectId": "lab-project",
    }


def test_what_was_given():
    ask = Gce(
        properties={
            "attributes.foo-bar": "x y",
            "project_attributes.p-q": "1",
            "user_data": "#cloud-config\n",
            "service_account": "a@b.example",
            "lifecycle": "spot",
            "gce.zone": "europe-west1-b",
        }
    )
    assert ask(V1 + "instance/attributes/")[1] == "foo-bar\nuser-data\n"
    assert ask(V1 + "instance/attributes/foo-bar")[1] == "x y"
    whole = json.loads(ask(V1 + "?recursive=true")[1])
    assert whole["instance"]["attributes"] == {"foo-bar": "x y", "user-data": "#cloud-config\n"}
    assert whole["project"]["attributes"] == {"p-q": "1"}
    assert whole["instance"]["scheduling"]["preemptible"] == "TRUE"
    assert whole["instance"]["zone"].endswith("/zones/europe-west1-b")
    assert whole["instance"]["region"].endswith("/regions/europe-west1")
    account = V1 + "instance/service-accounts/default/"
    assert ask(account)[1] == "aliases\nemail\nidentity\nscopes\ntoken\n"
    assert json.loads(ask(account + "?recursive=true")[1]) == {
        "aliases": ["default"],
        "email": "a@b.example",
        "scopes": ["https://www.googleapis.com/auth/cloud-platform"],
    }
    response = ask.outcome(account + "token")
    assert response.content_type == "application/json"
    token = json.loads(response.body)
    assert token["token_type"] == "Bearer"
    assert token["expires_in"] > 3600
    for email in ("a@b.example", "a%40b.example"):
        assert ask(V1 + f"instance/service-accounts/{email}/email")[1] == "a@b.example"


def test_the_flavor():
    ask = Asker()
    for headers in ({}, {"metadata_flavor": "google"}, FLAVOR | {"x_forwarded_for": ""}):
        response = ask.outcome(EVENT, **headers)
        assert (response.status, response.headers) == (403, ALWAYS)
        assert response.server == "Metadata Server for VM"
    for yes in ("True", "true"):  # as older clients say it
        assert ask(EVENT, x_google_metadata_request=yes) == (200, "NONE")
    assert ask(EVENT, x_google_metadata_request="")[0] == 403
    assert ask(EVENT)[1] == (
        "<!DOCTYPE html>\n<html lang=en>\n  <meta charset=utf-8>\n"
        "  <title>Error 403 (Forbidden)!!1</title>\n"
        "  <p><b>403.</b> <ins>That's an error.</ins>\n"
        "  <p>Your client does not have permission to get URL "
        "<code>/computeMetadata/v1/instance/maintenance-event</code> from this server. "
        "Missing Metadata-Flavor:Google header. <ins>That's all we know.</ins>\n"
    )


def test_who_asks_for_the_root():
    """Google's clients look there for where they are, and do not say their flavor yet."""
    root = "0.1/\ncomputeMetadata/\n"
    both = Asker()
    for headers in ({"host": "metadata.google.internal"}, {"host": "Metadata:80"}, FLAVOR):
        assert both("/", **headers) == (200, root)
    ec2 = both.outcome("/", host="169.254.169.254")
    assert ec2.body.startswith(b"1.0\n")
    assert ("Metadata-Flavor", "Google") in ec2.headers
    assert ("Metadata-Flavor", "Google") not in both.outcome("/latest/").headers
    assert both.outcome("/", "POST").status == 405
    alone = Asker(Options(enabled=("gce",)))
    assert alone("/") == (200, root)
    assert alone.outcome("/").headers == (*ALWAYS, ("ETag", "0000000000010000"))
    assert alone.outcome("/", x_forwarded_for="1.2.3.4").status == 403
    without = Asker(Options(enabled=("ec2",)))
    assert ("Metadata-Flavor", "Google") not in without.outcome("/", **FLAVOR).headers
    nobody = Asker(Options(enabled=("azure",)))
    assert nobody.outcome("/", **FLAVOR).status == 404


def identity_claims(ask, query):
    status, token = ask(V1 + f"instance/service-accounts/default/identity?{query}")
    assert status == 200
    part = token.split(".")[1]
    return json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_a_full_identity_token_says_what_the_instance_is():
    ask = Gce(properties={"service_account": "a@b.example", "licenses": "12 345"})
    told = identity_claims(ask, "audience=x&format=full")["google"]["compute_engine"]
    assert told == {
        "instance_creation_timestamp": 1704067200,
        "instance_id": "7492637414333927858",
        "instance_name": "web1",
        "project_id": "lab-project",
        "project_number": 739419398126,
        "zone": "us-central1-a",
    }
    full = identity_claims(ask, "audience=x&format=full&licenses=TRUE")
    assert full["google"]["compute_engine"] == told | {"license_id": ["12", "345"]}
    assert "google" not in identity_claims(ask, "audience=x&licenses=TRUE")
    for wrong in ("format=none", "format=full&licenses=maybe"):
        url = V1 + f"instance/service-accounts/default/identity?audience=x&{wrong}"
        assert ask(url)[0] == 400
    assert json.loads(ask(V1 + "instance/licenses/?recursive=true")[1]) == [
        {"id": "12"},
        {"id": "345"},
    ]


def test_a_token_of_other_scopes_is_another_token():
    ask = Gce(properties={"service_account": "a@b.example"})
    url = V1 + "instance/service-accounts/default/token"
    tokens = {
        json.loads(ask(url + query)[1])["access_token"] for query in ("", "?scopes=a", "?scopes=b")
    }
    assert len(tokens) == 3


def test_a_public_address():
    ask = Gce(properties={"public_ipv4": "203.0.113.7"})
    path = V1 + "instance/network-interfaces/0/access-configs/0/external-ip"
    assert ask(path) == (200, "203.0.113.7")


def test_who_a_service_account_is():
    ask = Gce(properties={"service_account": "a@b.example"})
    url = V1 + "instance/service-accounts/default/identity"
    assert ask(url) == (400, "non-empty audience parameter required\n")
    claims = identity_claims(ask, "audience=https://me")
    assert (claims["aud"], claims["email"]) == ("https://me", "a@b.example")
    assert claims["iat"] <= ask.now < claims["exp"]
    assert len(claims["sub"]) == 21
    assert "google" not in claims
    assert identity_claims(ask, "audience=https://me&format=standard") == claims
    assert Gce()(url + "?audience=x")[0] == 404


def test_guest_attributes_are_disabled(ask):
    for method in ("GET", "PUT", "DELETE"):
        answer = ask(V1 + "instance/guest-attributes/a/b", method)
        assert answer == (403, "Guest attributes endpoint access is disabled.\n")


def test_what_googles_guest_agent_asks(ask):
    url = V1 + "?alt=json&last_etag=NONE&recursive=true&timeout_sec=60&wait_for_change=true"
    response = ask.outcome(url)
    told = json.loads(response.body)
    assert isinstance(told["instance"]["id"], int)
    (interface,) = told["instance"]["networkInterfaces"]
    assert interface["forwardedIps"] == interface["targetInstanceIps"] == []
    assert told["project"]["attributes"] == {}
    parked = ask.outcome(url.replace("NONE", dict(response.headers)["ETag"]))
    assert isinstance(parked, Park)
    assert parked.until == ask.now + 60


def test_not_there_and_not_allowed(ask):
    for path in ("instance/else", "instance/name/", "instance/name/x", "else/",
                 "instance/service-accounts/default/", "instance/disks/1/index",
                 "instance/attributes/x"):  # fmt: skip
        status, body = ask(V1 + path)
        assert (status, "was not found on this server" in body) == (404, True)
    assert "<code>/computeMetadata/&amp;x</code>" in ask("/computeMetadata/&x")[1]
    for path in (V1 + "instance/%6eame", V1 + "instance/./name", V1 + "x/../instance/name"):
        assert ask(path)[0] == 404
    response = ask.outcome(EVENT, "POST")
    assert (response.status, response.headers[-1]) == (405, ("Allow", "GET, HEAD"))
    assert ask("/computemetadata/v1/")[1] == "Not Found"


def test_redirects(ask):
    response = ask.outcome(V1 + "instance?alt=text", host="metadata")
    assert response.status == 301
    location = "http://metadata/computeMetadata/v1/instance/?alt=text"
    assert response.headers == (*ALWAYS, ("Location", location))
    assert ask.outcome("/computeMetadata").status == 301
    assert ask.outcome(V1 + "instance?recursive=true").status == 200


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (EventType.FREEZE, "MIGRATE_ON_HOST_MAINTENANCE"),
        *(
            (kind, "TERMINATE_ON_HOST_MAINTENANCE")
            for kind in (EventType.REBOOT, EventType.REDEPLOY, EventType.TERMINATE)
        ),
    ],
)
def test_maintenance(ask, kind, told):
    ask.tell(event(type=kind))
    seen = []
    for ask.now in (CREATED, NOT_BEFORE - 60.1, NOT_BEFORE - 60, NOT_BEFORE, NOT_BEFORE + 60):
        seen.append((ask(EVENT)[1], ask.outcome(EVENT).headers[-1][1][-5:]))
        assert ask.outcome(EVENT).valid_until > ask.now
    assert seen == [("NONE", "20000"), ("NONE", "20000"), (told, "20001"), (told, "20002"),
                    ("NONE", "20003")]  # fmt: skip
    assert ask(V1 + "instance/preempted")[1] == "FALSE"
    ask.now = NOT_BEFORE
    ask.tell(event(type=kind, guests=("web2",)))
    assert ask(EVENT)[1] == "NONE"


def test_preemption(ask):
    ask.tell(event(type=EventType.PREEMPT))
    for ask.now, told in ((NOT_BEFORE - 30.1, "FALSE"), (NOT_BEFORE - 30, "TRUE"),
                          (NOT_BEFORE + 59, "TRUE"), (NOT_BEFORE + 60, "FALSE")):  # fmt: skip
        assert ask(V1 + "instance/preempted")[1] == told
        assert ask(EVENT)[1] == "NONE"


# Waiting


def test_waiting_for_a_change(ask):
    assert ask(WAIT + "&last_etag=0") == (200, "NONE")
    assert ask(WAIT + "&last_etag=NONE") == (200, "NONE")
    for target in (WAIT, WAIT + "&last_etag=0000000000010000"):
        park = ask.outcome(target)
        assert isinstance(park, Park)
        assert isinstance(park.resume(ask.view, CREATED + 1e6), Park)
        ask.tell(event(), incarnation=2)
        assert park.resume(ask.view, CREATED).body == b"NONE"
        assert park.resume(ask.view, CREATED).headers[-1] == ("ETag", "0000000000020000")
        ask.tell(incarnation=1)


def test_waiting_is_ended_by_time_alone(ask):
    ask.tell(event())
    park = ask.outcome(WAIT)
    assert park.until == NOT_BEFORE - 60
    assert park.resume(ask.view, park.until).body == b"TERMINATE_ON_HOST_MAINTENANCE"
    park = ask.outcome(WAIT + "&timeout_sec=10")
    assert park.until == CREATED + 10
    assert isinstance(park.resume(ask.view, CREATED + 9.9), Park)
    assert park.resume(ask.view, CREATED + 10).body == b"NONE"
    assert ask(WAIT + "&timeout_sec=0") == (200, "NONE")
    for wrong in ("x", "-1", "1.5", "9999999999", "%C2%B2"):
        assert ask(WAIT + f"&timeout_sec={wrong}")[0] == 400


def test_there_and_back_is_a_change(ask):
    before = ask.outcome(EVENT)
    ask.tell(event())
    ask.tell(history=[apply(event(), Request.CANCEL, CREATED)])
    after = ask.outcome(EVENT)
    assert after.body == before.body
    assert after.headers[-1] > before.headers[-1]
    etag = before.headers[-1][1]
    assert ask(WAIT + f"&last_etag={etag}") == (200, "NONE")


def test_what_is_not_there_is_not_waited_for(ask):
    assert ask(V1 + "instance/else?wait_for_change=true")[0] == 404
    assert ask(V1 + "instance?wait_for_change=true")[0] == 301
    park = ask.outcome(V1 + "?recursive=true&wait_for_change=true")
    ask.tell(event())
    assert json.loads(park.resume(ask.view, NOT_BEFORE - 1).body)["instance"][
        "maintenanceEvent"
    ] == ("TERMINATE_ON_HOST_MAINTENANCE")


# Maintenance that is announced, and the end of an instance

UPCOMING = V1 + "instance/upcoming-maintenance"
NOTHING = (503, '{ "error": "no notifications have been received yet, try again later" }')


def test_no_upcoming_maintenance_is_told_by_the_type_of_machine(ask):
    assert ask(UPCOMING) == (200, "NONE")
    assert ask(UPCOMING + "?alt=json") == (200, '"NONE"')
    for kind in ("z3-highmem-88", "c3-highcpu-192-metal"):
        announced = Gce(properties={"machine_type": kind})
        assert announced(UPCOMING) == announced(UPCOMING + "?alt=json") == NOTHING
    assert Gce(properties={"machine_type": "c3-standard-4"})(UPCOMING) == (200, "NONE")
    assert "upcoming-maintenance" not in ask(V1 + "instance/")[1]
    assert ask(UPCOMING + "/")[0] == 404


def test_upcoming_maintenance_is_pending_then_ongoing_then_complete(ask):
    """A user's program plans for maintenance by its seven members."""
    ask.tell(event())
    told = {
        "can_reschedule": "true",
        "latest_window_start_time": "2026-03-09T06:57:51Z",
        "maintenance_reasons": ["PLANNED_UPDATE"],
        "maintenance_status": "PENDING",
        "type": "SCHEDULED",
        "window_end_time": "2026-03-09T06:58:51Z",
        "window_start_time": "2026-03-09T06:57:51Z",
    }
    for url in (UPCOMING, UPCOMING + "?alt=json"):
        response = ask.outcome(url)
        assert (json.loads(response.body), response.content_type) == (told, "application/json")
    assert ask.outcome(UPCOMING).valid_until <= NOT_BEFORE
    ask.now = NOT_BEFORE
    ongoing = told | {"can_reschedule": "false", "maintenance_status": "ONGOING"}
    assert json.loads(ask(UPCOMING)[1]) == ongoing
    started = apply(event(), Request.START, NOT_BEFORE)
    ended = apply(started, Request.COMPLETE, NOT_BEFORE + 30)
    ask.tell(history=[ended])
    complete = json.loads(ask(UPCOMING)[1])
    assert complete["maintenance_status"] == "COMPLETE"
    assert complete["window_end_time"] == "2026-03-09T06:58:21Z"
    ask.tell(event(7), history=[ended])
    assert json.loads(ask(UPCOMING)[1])["maintenance_status"] == "ONGOING"
    ask.tell(history=[apply(event(), Request.CANCEL, CREATED)])
    assert ask(UPCOMING) == (200, "NONE")


@pytest.mark.parametrize(
    ("kind", "fields", "reason", "how"),
    [
        (EventType.FREEZE, {}, "PLANNED_UPDATE", "SCHEDULED"),
        (EventType.REDEPLOY, {"not_before": CREATED}, "FAILURE_INFRA", "UNSCHEDULED"),
        (EventType.TERMINATE, {}, "INFRASTRUCTURE_RELOCATION", "SCHEDULED"),
    ],
)
def test_upcoming_maintenance_by_type(ask, kind, fields, reason, how):
    ask.tell(event(type=kind, duration=None, **fields))
    told = json.loads(ask(UPCOMING)[1])
    assert (told["maintenance_reasons"], told["type"]) == ([reason], how)
    assert told["window_start_time"] != told["window_end_time"]


def test_upcoming_maintenance_among_the_rest(ask):
    ask.tell(event())
    whole = json.loads(ask(V1 + "instance/?recursive=true")[1])
    assert whole["upcomingMaintenance"]["maintenanceStatus"] == "PENDING"
    assert ask(UPCOMING + "/maintenance-status") == (200, "PENDING")
    assert "maintenance-reasons\n" in ask(UPCOMING + "/")[1]
    for other in (event(type=EventType.PREEMPT), event(guests=("web2",))):
        ask.tell(other)
        assert ask(UPCOMING) == (200, "NONE")


def test_upcoming_maintenance_is_waited_for():
    ask = Gce(properties={"machine_type": "x4-480-8t-metal"})
    park = ask.outcome(UPCOMING + "?wait_for_change=true")
    assert isinstance(park, Park)
    ask.tell(event())
    assert json.loads(park.resume(ask.view, CREATED).body)["maintenance_status"] == "PENDING"


def test_shutdown_details(ask):
    details = V1 + "instance/shutdown-details/"
    assert ask(details)[0] == 404
    ask.tell(event(type=EventType.TERMINATE))
    assert json.loads(ask(details + "?recursive=true")[1]) == {
        "maxDuration": 900,
        "requestTimestamp": "2026-03-09T06:42:51Z",
        "stopState": "PENDING_STOP",
        "targetState": "DELETED",
    }
    assert ask(details)[1] == "max-duration\nrequest-timestamp\nstop-state\ntarget-state\n"
    ask.now = NOT_BEFORE
    assert ask(details + "stop-state") == (200, "STOPPING")
    ask.tell(event())
    assert ask(details)[0] == 404


@pytest.mark.parametrize(("asked", "lead"), [("120", 120), ("0", 0), (None, 30)])
def test_a_preemption_is_told_as_early_as_is_asked_for(asked, lead):
    ask = Gce(properties={} if asked is None else {"preemption_notice": asked})
    ask.tell(event(type=EventType.PREEMPT))
    park = ask.outcome(V1 + "instance/preempted?wait_for_change=true")
    assert park.until == min(NOT_BEFORE - lead, NOT_BEFORE - 60 if lead < 60 else NOT_BEFORE - lead)
    ask.now = NOT_BEFORE - lead - 0.1
    before = ask.outcome(V1 + "instance/preempted")
    assert before.body == b"FALSE"
    ask.now = NOT_BEFORE - lead
    after = ask.outcome(V1 + "instance/preempted")
    assert after.body == b"TRUE"
    assert after.headers[-1] > before.headers[-1]


# Guest attributes

ON = {"attributes.enable-guest-attributes": "TRUE"}
ATTRIBUTES = V1 + "instance/guest-attributes/"


def test_guest_attributes_are_written_read_and_deleted():
    """A user's startup script says that it is done, and reads it back."""
    ask = Gce(properties=ON)
    assert ask(ATTRIBUTES) == (200, "")
    assert ask(ATTRIBUTES + "boot/state", "PUT", b"done") == (200, "")
    assert ask(ATTRIBUTES + "boot/host-key", "PUT", "schl\u00fcssel".encode()) == (200, "")
    assert ask(ATTRIBUTES + "other/x", "PUT", b"") == (200, "")
    assert ask(ATTRIBUTES + "boot/state") == (200, "done")
    assert ask(ATTRIBUTES) == (200, "boot/\nother/\n")
    assert ask(ATTRIBUTES + "boot/") == (200, "host-key\nstate\n")
    told = {"boot": {"host-key": "schl\u00fcssel", "state": "done"}, "other": {"x": ""}}
    assert json.loads(ask(ATTRIBUTES + "?recursive=true")[1]) == told
    whole = json.loads(ask(V1 + "instance/?recursive=true")[1])
    assert whole["guestAttributes"] == told
    assert ask(ATTRIBUTES + "boot/state", "PUT", b"again")[0] == 200
    assert ask(ATTRIBUTES + "boot/state") == (200, "again")
    assert ask(ATTRIBUTES + "boot/state", "DELETE") == (200, "")
    assert ask(ATTRIBUTES + "boot/state")[0] == 404
    assert ask(ATTRIBUTES + "boot/state", "DELETE")[0] == 404
    assert ask(ATTRIBUTES + "boot/", "DELETE")[0] == 200
    assert ask(ATTRIBUTES, "DELETE")[0] == 404
    assert ask(ATTRIBUTES) == (200, "other/\n")


@pytest.mark.parametrize(
    ("properties", "status"),
    [
        (ON, 200),
        ({"attributes.enable-guest-attributes": "yes"}, 200),
        ({"project_attributes.enable-guest-attributes": "1"}, 200),
        ({"project_attributes.enable-guest-attributes": "TRUE",
          "attributes.enable-guest-attributes": "FALSE"}, 403),
        ({"attributes.enable-guest-attributes": "FALSE"}, 403),
        ({}, 403),
    ],
)  # fmt: skip
def test_guest_attributes_are_switched_on_by_a_metadata_attribute(properties, status):
    ask = Gce(properties=properties)
    assert ask(ATTRIBUTES)[0] == status
    assert ask(ATTRIBUTES + "a/b", "PUT", b"x")[0] == status


def test_what_is_no_guest_attribute():
    ask = Gce(properties=ON)
    for path, body in (("a", b"x"), ("a/b/c", b"x"), ("", b"x"), ("a/b", b"\xff"),
                       ("a/b", b"x" * (MAX_BYTES + 1)), ("a/" + "k" * 129, b"x")):  # fmt: skip
        assert ask(ATTRIBUTES + path, "PUT", body)[0] == 400, path
    for number in range(MAX_WRITTEN):
        assert ask(ATTRIBUTES + f"n/{number}", "PUT", b"x")[0] == 200
    assert ask(ATTRIBUTES + "n/more", "PUT", b"x")[0] == 400
    assert ask(ATTRIBUTES + "n/0", "PUT", b"y")[0] == 200
    assert ask(ATTRIBUTES + "n/0", "POST")[0] == 405
    assert ask.outcome(ATTRIBUTES + "n/0", "PUT", b"x", metadata_flavor="").status == 403


def test_a_guest_attribute_is_waited_for():
    ask = Gce(properties=ON)
    ask(ATTRIBUTES + "a/b", "PUT", b"1")
    park = ask.outcome(ATTRIBUTES + "a/b?wait_for_change=true")
    assert isinstance(park.resume(ask.view, CREATED + 1), Park)
    ask(ATTRIBUTES + "a/b", "PUT", b"2")
    assert park.resume(ask.view, CREATED + 2).body == b"2"


# What was before v1


def test_old_endpoints_are_switched_off_unless_they_are_on():
    off = Asker()
    text = "Legacy metadata endpoints are disabled. Please use the /v1/ endpoint.\n"
    assert off("/computeMetadata/v1beta1/instance/name") == (403, text)
    assert off("/computeMetadata/v1beta1/instance/name", **FLAVOR) == (403, text)
    on = Asker(properties={"project_attributes.disable-legacy-endpoints": "FALSE"})
    assert on("/computeMetadata/v1beta1/instance/name") == (200, "web1")
    assert on("/computeMetadata/v1/instance/name")[0] == 403
    assert on("/computeMetadata/v1beta1/instance/name", x_forwarded_for="1.2.3.4")[0] == 403
    whole = json.loads(on("/computeMetadata/v1beta1/instance/?recursive=true")[1])
    assert whole["name"] == "web1"
