"""Golden bytes of Azure's Instance Metadata Service and Scheduled Events."""

import json
from base64 import urlsafe_b64decode
from math import inf

import pytest
from msgspec.structs import replace

from hostagent.dialects import Options
from hostagent.dialects.azure_events import DESCRIPTIONS, EVENT_VERSIONS, MAX_APPROVALS
from hostagent.dialects.azure_imds import VERSIONS
from hostagent.dialects.outcomes import Approval
from hostagent.model import EventSource, EventType, Request, apply
from tests.hostagent.asking import CREATED, ID, NOT_BEFORE, Asker, event

NO_HEADER = '{ "error": "Bad request: . Required metadata header not specified" }'
BAD_VERSION = (
    '{"error":"Bad request. api-version is invalid or was not specified in the request. For more '
    'information refer to aka.ms/azureimds","newest-versions":["2025-04-07","2024-07-17",'
    '"2024-03-15"]}'
)
EVENTS = "/metadata/scheduledevents?api-version="
FULL = (
    '{"DocumentIncarnation":2,"Events":[{"EventId":"6f0a13a3-dc0d-4bbe-ab24-df710a3917e6",'
    '"EventStatus":"Scheduled","EventType":"Reboot","ResourceType":"VirtualMachine",'
    '"Resources":["web1"],"NotBefore":"Mon, 09 Mar 2026 06:57:51 GMT",'
    '"Description":"a new kernel","EventSource":"Platform","DurationInSeconds":60}]}'
)


@pytest.fixture
def ask():
    return Asker()


def test_nothing_scheduled(ask):
    response = ask.outcome(EVENTS + "2020-07-01", metadata="true")
    assert response.body == b'{"DocumentIncarnation":1,"Events":[]}'
    assert response.content_type == "application/json; charset=utf-8"
    assert response.valid_until == inf


@pytest.mark.parametrize(
    ("version", "body"),
    [
        (
            "2017-03-01",
            FULL.replace('["web1"]', '["_web1"]').partition(',"Description"')[0] + "}]}",
        ),
        *((v, FULL.partition(',"Description"')[0] + "}]}") for v in EVENT_VERSIONS[1:4]),
        ("2019-04-01", FULL.partition(',"EventSource"')[0] + "}]}"),
        ("2019-08-01", FULL.partition(',"DurationInSeconds"')[0] + "}]}"),
        ("2020-07-01", FULL),
        ("2021-12-13", FULL),
    ],
)
def test_every_version_of_the_document(ask, version, body):
    ask.tell(event())
    assert ask(EVENTS + version, metadata="True") == (200, body)


def test_started_and_unknown_duration(ask):
    ask.tell(apply(event(duration=None, source=EventSource.USER), Request.START, NOT_BEFORE))
    body = FULL.replace("Scheduled", "Started").replace("Mon, 09 Mar 2026 06:57:51 GMT", "")
    body = body.replace("Platform", "User").replace(":60", ":-1")
    assert ask(EVENTS + "2020-07-01", metadata="true") == (200, body)


def test_types_appear_with_the_version_that_brought_them(ask):
    ask.tell(event(1, type=EventType.PREEMPT), event(2, type=EventType.TERMINATE))
    for version in EVENT_VERSIONS:
        told = json.loads(ask(EVENTS + version, metadata="true")[1])["Events"]
        assert len(told) == (version >= "2017-11-01") + (version >= "2019-01-01")


def test_headers_versions_and_names(ask):
    url = EVENTS + "2020-07-01"
    assert ask(url) == (400, NO_HEADER)
    assert ask(url, metadata="1") == (400, NO_HEADER)
    assert ask("/metadata/versions") == (400, NO_HEADER)
    assert ask(EVENTS + "2017-03-01")[0] == 200  # the preview asked for none
    assert ask("/metadata/instance?api-version=2017-03-01") == (400, NO_HEADER)
    for query in ("", "?api-version=", "?api-version=2020-07-02", "?api-version=2020-07-01%20"):
        for path in ("scheduledevents", "instance", "instance/compute/name"):
            assert ask(f"/metadata/{path}{query}", metadata="true") == (400, BAD_VERSION)
    assert ask(url, metadata="true", x_forwarded_for="")[0] == 400
    for query in ("api-version=2020-07-01&api-version=2020-07-01", "a=1&A=2", "a&a"):
        assert "Duplicate" in ask(f"/metadata/scheduledevents?{query}", metadata="true")[1]
    assert ask("/METADATA/ScheduledEvents?API-Version=2020-07-01", metadata="TRUE")[0] == 200


def test_versions(ask):
    status, body = ask("/metadata/versions", metadata="true")
    assert (status, json.loads(body)) == (200, {"apiVersions": list(VERSIONS)})
    assert body.startswith('{"apiVersions":["2017-03-01","2017-04-02",')


def test_what_is_not_there_and_what_is_not_allowed(ask):
    for path in ("/metadata", "/metadata/", "/metadata/else", "/metadata/instance/compute/else",
                 "/metadata/instance/network/interface/1", "/metadata/instance/compute/name/x",
                 "/metadata/scheduledevents/x"):  # fmt: skip
        assert ask(path + "?api-version=2021-02-01", metadata="true") == (
            404,
            '{ "error": "Not found" }',
        )
    for path, allow in (("scheduledevents", "GET, POST"), ("instance", "GET, HEAD"),
                        ("versions", "GET, HEAD")):  # fmt: skip
        response = ask.outcome(
            f"/metadata/{path}?api-version=2020-07-01", "DELETE", metadata="true"
        )
        assert (response.status, response.headers) == (405, (("Allow", allow),))


INSTANCE = (
    '{"compute":{"location":"westeurope","name":"web1","offer":"debian-12","osType":"Linux",'
    '"platformFaultDomain":"1","platformUpdateDomain":"3","publisher":"Debian","sku":"12-gen2",'
    '"version":"0.20240201.1644","vmId":"7c3c4f8a-63ca-5da2-bb74-dc6f8fc4553a",'
    '"vmSize":"Standard_D2s_v3"},"network":{"interface":[{"ipv4":{"ipAddress":'
    '[{"privateIpAddress":"169.254.3.7","publicIpAddress":""}],"subnet":[{"address":'
    '"169.254.0.0","prefix":"16"}]},"ipv6":{"ipAddress":[]},"macAddress":"024E61957F52"}]}}'
)


def test_the_instance(ask):
    assert ask("/metadata/instance?api-version=2017-04-02", metadata="true") == (200, INSTANCE)

    def get(path, query="api-version=2021-08-01"):
        return ask(f"/metadata/instance/{path}?{query}", metadata="true")

    network = json.loads(INSTANCE)["network"]
    assert get("network")[1] == json.dumps(network, separators=(",", ":"))
    assert json.loads(get("network/interface/0")[1]) == network["interface"][0]
    assert json.loads(get("network/interface/0/ipv4/ipaddress")[1])[0]["publicIpAddress"] == ""
    text = "api-version=2021-08-01&format=text"
    assert get("compute/name", text) == (200, "web1")
    assert get("COMPUTE/vmsize", text) == (200, "Standard_D2s_v3")
    assert get("compute/placementGroupId", text) == (200, "")
    assert get("network/interface", text) == (200, "0/")
    assert get("network/interface/0", text) == (200, "ipv4/\nipv6/\nmacAddress")
    assert get("", text) == (200, "compute/\nnetwork/")
    assert get("compute/name") == (
        400,
        '{ "error": "Bad request: . A value needs format=text" }',
    )
    assert get("compute", "api-version=2021-08-01&format=xml")[0] == 400


def test_members_by_version():
    ask = Asker(
        properties={
            "tags.a": "1",
            "tags.b": "2",
            "user_data": "#!",
            "vm_scale_set": "front",
            "lifecycle": "spot",
            "ssh_public_key": "ssh-ed25519 AAAA x",
            "zone": "b",
            "azure.region": "northeurope",
        }
    )

    def compute(version, extra=""):
        url = f"/metadata/instance?api-version={version}{extra}"
        return json.loads(ask(url, metadata="true")[1])["compute"]

    assert not {"tags", "zone"} & compute("2017-04-02").keys()
    assert compute("2017-08-01")["tags"] == "a:1;b:2"
    assert compute("2017-12-01")["zone"] == "2"
    assert compute("2017-12-01")["vmScaleSetName"] == "front"
    assert compute("2019-06-04")["tagsList"][1] == {"name": "b", "value": "2"}
    assert compute("2020-12-01")["priority"] == "Spot"
    newest = compute(VERSIONS[-1])
    assert newest["userData"] == "IyE="
    assert newest["location"] == "northeurope"
    assert newest["publicKeys"][0]["keyData"] == "ssh-ed25519 AAAA x"
    assert newest["osProfile"]["computerName"] == "web1"
    assert list(newest) == sorted(newest, key=str.lower)
    url = "/metadata/instance?api-version=2021-08-01&extended=true"
    assert json.loads(ask(url, metadata="true")[1])["extended"]["compute"]["ppsType"] == "None"


def approve(ask, body, **headers):
    headers = {"metadata": "true"} | headers
    return ask.outcome(EVENTS + "2020-07-01", "POST", body, **headers)


def test_approval(ask):
    started = apply(event(7), Request.START, NOT_BEFORE)
    ask.tell(event(), started, event(8))
    outcome = approve(ask, b'{"StartRequests":[{"EventId":"%b"}]}' % ID.encode())
    assert isinstance(outcome, Approval)
    assert outcome.event_ids == (ID,)
    assert (outcome.done.status, outcome.done.body) == (200, b"")
    assert (outcome.refused.status, outcome.failed.status) == (400, 500)
    body = {
        "DocumentIncarnation": 5,
        "StartRequests": [{"EventId": one.id, "x": 1} for one in (event(8), started, event())],
    }
    assert approve(ask, json.dumps(body).encode()).event_ids == (ID, event(8).id)
    only = {"StartRequests": [{"EventId": started.id}]}
    assert approve(ask, json.dumps(only).encode()).status == 200  # somebody has approved already


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"StartRequests":[]}',
        b'{"StartRequests":{}}',
        b'{"StartRequests":[{}]}',
        b'{"StartRequests":[{"EventId":1}]}',
        b'{"StartRequests":[{"EventId":"nothing"}]}',
        b'{"StartRequests":[{"EventId":"%b"},{"EventId":"x"}]}' % ID.encode(),
        b"[" * 60000,
        json.dumps({"StartRequests": [{"EventId": str(i)} for i in range(101)]}).encode(),
    ],
)
def test_what_is_no_approval(ask, body):
    ask.tell(event())
    assert approve(ask, body).status == 400
    assert MAX_APPROVALS == 100


def test_an_approval_after_a_byte_order_mark(ask):
    """.NET's writers put one before UTF-8 unless told not to."""
    ask.tell(event())
    body = b'\xef\xbb\xbf{"StartRequests":[{"EventId":"%b"}]}' % ID.encode()
    assert isinstance(approve(ask, body), Approval)


def test_an_approval_needs_the_header(ask):
    ask.tell(event())
    body = b'{"StartRequests":[{"EventId":"%b"}]}' % ID.encode()
    assert approve(ask, body, metadata="").status == 400
    assert approve(ask, body, x_forwarded_for="1.2.3.4").status == 400


def test_the_rate():
    ask = Asker(Options(azure_rate=2))
    url = "/metadata/versions"
    assert [ask(url, metadata="true")[0] for _ in range(4)] == [200, 200, 429, 429]
    response = ask.outcome(url, metadata="true")
    assert response.body == b'{ "error": "Too many requests" }'
    assert response.headers == (("Retry-After", "1"),)
    assert ask.outcome("/metadata/v1/maintenance").status == 200  # another service
    ask.now += 0.5
    assert [ask(url, metadata="true")[0] for _ in range(2)] == [200, 429]
    ask.now += 100
    assert ask.outcome(url, metadata="true").valid_until < CREATED  # each one is counted
    assert [ask(url, metadata="true")[0] for _ in range(2)] == [200, 429]
    ask.view = type(ask.view)(guest=type(ask.view.guest)(name="web2"), incarnation=1)
    assert ask(url, metadata="true")[0] == 200


def test_there_is_no_identity(ask):
    url = "/metadata/identity/oauth2/token?api-version=2018-02-01"
    assert ask(url + "&resource=https://x/", metadata="true") == (
        400,
        '{"error":"invalid_request","error_description":"Identity not found"}',
    )
    assert ask(url) == (
        400,
        '{"error":"invalid_request","error_description":"Required metadata header not specified"}',
    )
    assert "'resource'" in ask(url, metadata="true")[1]


def test_a_managed_identity():
    client = "1d9e4a0b-6f5c-4d2e-9a7b-3c8f0e1d2b4a"
    ask = Asker(properties={"managed_identity": client, "tenant_id": ID})
    url = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x/"
    told = json.loads(ask(url, metadata="true")[1])
    assert told | {"access_token": ""} == {
        "access_token": "",
        "client_id": client,
        "expires_in": str(86400 - 42 * 60),
        "expires_on": str(int(CREATED) - 42 * 60 - 51 + 86400),
        "ext_expires_in": "86400",
        "not_before": str(int(CREATED) - 42 * 60 - 51),
        "resource": "https://x/",
        "token_type": "Bearer",
    }
    part = told["access_token"].split(".")[1]
    claims = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert (claims["aud"], claims["appid"], claims["tid"]) == ("https://x/", client, ID)
    assert claims["xms_az_rid"].endswith("/providers/Microsoft.Compute/virtualMachines/web1")
    assert "/userAssignedIdentities/" in claims["xms_mirid"]
    assert ask(f"{url}&client_id={client.upper()}", metadata="true")[0] == 200
    principal = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))["oid"]
    resource_id = (
        "/subscriptions/8d10da13-8125-4ba9-a717-bf7490507b3d/resourcegroups/LAB/providers"
        "/Microsoft.ManagedIdentity/userAssignedIdentities/lab"
    )
    for known in (f"object_id={principal}", f"msi_res_id={resource_id}", "bypass_cache=true",
                  f"mi_res_id={resource_id}", f"authority=https://login.x/{ID}/"):  # fmt: skip
        assert ask(f"{url}&{known}", metadata="true")[0] == 200, known
    for other in (f"object_id={ID}", "msi_res_id=/subscriptions/x", "bypass_cache=false",
                  f"client_id={client}&object_id={principal}",
                  f"authority=https://login.x/{client}"):  # fmt: skip
        status, body = ask(f"{url}&{other}", metadata="true")
        assert (status, json.loads(body)["error"]) == (400, "invalid_request"), other
    assert ask(f"{url}&client_id={ID}", metadata="true") == (
        400,
        '{"error":"invalid_request","error_description":"Identity not found"}',
    )
    info = "/metadata/identity/info?api-version=2018-02-01"
    assert ask(info, metadata="true") == (200, f'{{"tenantId":"{ID}"}}')
    for version in ("", "?api-version=2017-12-01", "?api-version=2018-02-02"):
        assert ask("/metadata/identity/info" + version, metadata="true") == (400, BAD_VERSION)
    # Its life is told in minutes, and told again as they pass.
    response = ask.outcome(url, metadata="true")
    assert ask.now < response.valid_until <= ask.now + 60
    ask.now = response.valid_until
    assert int(json.loads(ask(url, metadata="true")[1])["expires_in"]) == 86400 - 43 * 60


def test_there_is_no_load_balancer(ask):
    url = "/metadata/loadbalancer"
    assert ask(url + "?api-version=2020-10-01", metadata="true") == (
        404,
        '{ "error": "No load balancer metadata is found. Please check if your VM is using any '
        'non-basic SKU load balancer and retry later." }',
    )
    assert ask(url, metadata="true")[0] == 400


def test_the_load_balancer_and_the_public_ipv4():
    ask = Asker(
        properties={
            "public_ipv4": "203.0.113.7",
            "load_balancer": "203.0.113.1 tcp/80:8080 udp/53:5353",
        }
    )
    url = "/metadata/loadbalancer?api-version=2020-10-01"
    assert ask(url, metadata="true") == (
        200,
        '{"loadbalancer":{"publicIpAddresses":[{"frontendIpAddress":"203.0.113.7",'
        '"privateIpAddress":"169.254.3.7"}],"inboundRules":[{"frontendIpAddress":"203.0.113.1",'
        '"protocol":"tcp","frontendPort":80,"backendPort":8080,"privateIpAddress":"169.254.3.7"},'
        '{"frontendIpAddress":"203.0.113.1","protocol":"udp","frontendPort":53,"backendPort":5353,'
        '"privateIpAddress":"169.254.3.7"}],"outboundRules":[{"frontendIpAddress":"203.0.113.1",'
        '"privateIpAddress":"169.254.3.7"}]}}',
    )
    assert ask(url.replace("2020-10-01", "2020-09-01"), metadata="true") == (400, BAD_VERSION)
    ask = Asker(properties={"public_ipv4": "203.0.113.7"})
    balancer = json.loads(ask(url, metadata="true")[1])["loadbalancer"]
    assert balancer["publicIpAddresses"]
    assert not balancer["inboundRules"] + balancer["outboundRules"]


def test_custom_data_is_not_told_but_that_there_is_some():
    ask = Asker(properties={"custom_data": "#!/bin/sh"})
    url = "/metadata/instance/compute/customData?api-version=2021-08-01&format=text"
    assert ask(url, metadata="true") == (200, "")
    url = "/metadata/instance/extended/compute/hasCustomData?api-version=2021-08-01&format=text"
    assert ask(url + "&extended=true", metadata="true") == (200, "true")


def test_an_event_without_a_description_is_described_in_azures_words(ask):
    assert DESCRIPTIONS.keys() == {(kind, who) for kind in EventType for who in EventSource}
    for (kind, who), words in DESCRIPTIONS.items():
        ask.tell(event(type=kind, source=who, description=""))
        (told,) = json.loads(ask(EVENTS + "2020-07-01", metadata="true")[1])["Events"]
        assert told["Description"] == words != ""
    ask.tell(event(source=EventSource.USER, description=""))
    assert (
        "going to be restarted as requested by authorized user."
        in (ask(EVENTS + "2020-07-01", metadata="true")[1])
    )


def test_a_document_that_begins_anew_on_another_node():
    ask = Asker(Options(azure_rate=0, azure_incarnation_restarts=True))
    ask.view = replace(ask.view, incarnation=9, arrived=9)
    url = EVENTS + "2020-07-01"
    assert json.loads(ask(url, metadata="true")[1])["DocumentIncarnation"] == 1
    ask.view = replace(ask.view, incarnation=11)
    assert json.loads(ask(url, metadata="true")[1])["DocumentIncarnation"] == 3
    plain = Asker()
    plain.view = ask.view
    assert json.loads(plain(url, metadata="true")[1])["DocumentIncarnation"] == 11
