"""Golden bytes of Azure's v1 metadata service."""

import json
import re
from datetime import UTC, datetime

import pytest

from hostagent.dialects import NOT_FOUND, Dialects, Options
from hostagent.dialects.azure_v1 import NOTICE
from hostagent.http import Request
from hostagent.model import Event, EventSource, EventStatus, EventType, Guest, View, apply
from hostagent.model import Request as Move

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"
CREATED = datetime(2015, 9, 15, 6, 42, 51, tzinfo=UTC).timestamp()
NOT_BEFORE = CREATED + 900
ONLY = Dialects(Options(enabled=("azure-v1",)))
GUEST = Guest(name="web1", update_domain=3, fault_domain=1)
PLAIN = b'{"ID":"_web1","UD":"3","FD":"1"}'
TOLD = (
    b'{"ID":"_web1","UD":"3","FD":"1","MaintenanceEvent":{"EventID":'
    b'"6f0a13a3-dc0d-4bbe-ab24-df710a3917e6","EventCreationTime":'
    rb'"9\/15\/2015 6:42:51 AM","EventType":"Reboot"}}'
)
MAINTENANCE = (
    b'{"EventID":"6f0a13a3-dc0d-4bbe-ab24-df710a3917e6",'
    rb'"EventCreationTime":"9\/15\/2015 6:42:51 AM"}'
)


def event(**fields):
    values = {
        "id": ID,
        "type": EventType.REBOOT,
        "source": EventSource.PLATFORM,
        "description": "a Reboot, a Freeze, and everything else",
        "guests": ("web1",),
        "created": CREATED,
        "not_before": NOT_BEFORE,
        "duration": 60.0,
    }
    return Event(**(values | fields))


def ask(path, *events, now=CREATED, method="GET", query=None, **headers):
    view = View(guest=GUEST, incarnation=1, events=events)
    headers = {"host": "169.254.169.254"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return ONLY.answer(view, Request(method, path, query, (1, 1), headers, True), now)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/metadata/v1/InstanceInfo", PLAIN),
        ("/metadata/v1/instanceInfo", PLAIN),
        ("/metadata/v1/instanceinfo", PLAIN),
        ("/METADATA/V1/INSTANCEINFO", PLAIN),
        ("/metadata/latest/InstanceInfo", PLAIN),
        ("/metadata/v1/InstanceInfo/ID", b"_web1"),
        ("/metadata/v1/InstanceInfo/UD", b"3"),
        ("/metadata/v1/InstanceInfo/FD", b"1"),
        ("/metadata/latest/instanceinfo/fd", b"1"),
        ("/metadata/v1/maintenance", b"{}"),
        ("/metadata/v1/Maintenance", b"{}"),
        ("/metadata/latest/maintenance", b"{}"),
    ],
)
def test_without_an_event(path, body):
    response = ask(path)
    assert (response.status, response.body) == (200, body)
    json_wanted = body.startswith(b"{")
    assert response.content_type.startswith("application/json" if json_wanted else "text/plain")
    assert response.headers == ()
    assert b"\n" not in response.body


def test_during_the_notice():
    now = NOT_BEFORE - NOTICE
    assert ask("/metadata/v1/InstanceInfo", event(), now=now).body == TOLD
    assert ask("/metadata/v1/maintenance", event(), now=now).body == MAINTENANCE
    assert ask("/metadata/v1/InstanceInfo/FD", event(), now=now).body == b"1"
    assert json.loads(TOLD)["MaintenanceEvent"]["EventType"] == "Reboot"


def test_what_clients_cut_out_of_it():
    assert re.search(r'.*"FD":"([^"]*)".*', TOLD.decode())[1] == "1"
    assert len(json.loads(ask("/metadata/v1/maintenance").body)) == 0


@pytest.mark.parametrize("kind", EventType)
def test_the_type_is_found_from_the_notice_until_the_end_and_never_otherwise(kind):
    def hits(now, known):
        text = ask("/metadata/v1/InstanceInfo", known, now=now).body.decode().lower()
        found = {k for k in EventType if k.lower() in text}
        assert found <= {kind}
        assert bool(found) == (ask("/metadata/v1/maintenance", known, now=now).body != b"{}")
        return bool(found)

    scheduled = event(type=kind)
    started = apply(scheduled, Move.START, NOT_BEFORE)
    assert not hits(CREATED, scheduled)
    assert not hits(NOT_BEFORE - 300.001, scheduled)
    assert hits(NOT_BEFORE - 300, scheduled)
    assert hits(NOT_BEFORE, scheduled)  # the agent has not told of the start yet
    assert hits(NOT_BEFORE + 59.9, started)
    assert not hits(NOT_BEFORE + 60, started)  # nor of the end
    assert not hits(NOT_BEFORE + 60, scheduled)
    assert not hits(NOT_BEFORE, apply(scheduled, Move.CANCEL, NOT_BEFORE - 1))
    assert not hits(NOT_BEFORE + 30, apply(started, Move.COMPLETE, NOT_BEFORE + 20))


def test_an_event_started_early_is_told_at_once():
    early = apply(event(), Move.APPROVE, CREATED + 1)
    assert early.status is EventStatus.STARTED
    assert ask("/metadata/v1/InstanceInfo", early, now=CREATED + 1).body == TOLD


def test_of_several_each_is_found_by_its_type():
    other = event(id=ID.replace("6", "7"), type=EventType.FREEZE, not_before=NOT_BEFORE + 10)
    third = event(id=ID.replace("6", "8"), type=EventType.REDEPLOY, not_before=NOT_BEFORE + 9999)
    body = ask("/metadata/v1/InstanceInfo", event(), other, third, now=NOT_BEFORE - 1).body
    told = json.loads(body)
    assert told["MaintenanceEvent"]["EventType"] == "Reboot"
    assert [one["EventType"] for one in told["OtherMaintenanceEvents"]] == ["Freeze"]
    assert told["OtherMaintenanceEvents"][0]["EventID"] == other.id
    assert b"\n" not in body
    later = ask("/metadata/v1/InstanceInfo", event(), other, now=NOT_BEFORE + 60).body.decode()
    assert "Freeze" in later
    assert "Reboot" not in later


def test_of_several_the_earliest_is_told():
    other = event(id=ID.replace("6", "7"), type=EventType.FREEZE, not_before=NOT_BEFORE + 10)
    now = NOT_BEFORE - 1
    assert ask("/metadata/v1/maintenance", event(), other, now=now).body == MAINTENANCE
    ended = apply(apply(event(), Move.START, now), Move.COMPLETE, now)
    body = json.loads(ask("/metadata/v1/maintenance", ended, other, now=now).body)
    assert body["EventID"] == other.id


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ((2026, 1, 2, 0, 5, 9), r"1\/2\/2026 12:05:09 AM"),
        ((2026, 12, 31, 12, 0, 0), r"12\/31\/2026 12:00:00 PM"),
        ((2026, 10, 9, 13, 59, 59), r"10\/9\/2026 1:59:59 PM"),
        ((2026, 10, 9, 11, 59, 59), r"10\/9\/2026 11:59:59 AM"),
    ],
)
def test_dates(moment, text):
    created = datetime(*moment, tzinfo=UTC).timestamp()
    known = event(created=created, not_before=created)
    body = ask("/metadata/v1/maintenance", known, now=created).body.decode()
    assert f'"EventCreationTime":"{text}"' in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
def test_other_methods(method):
    response = ask("/metadata/v1/InstanceInfo", method=method)
    assert (response.status, response.headers) == (405, (("Allow", "GET, HEAD"),))
    assert ask("/elsewhere", method=method) == NOT_FOUND


def test_head_is_get():
    assert ask("/metadata/v1/InstanceInfo", method="HEAD").body == PLAIN


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata",
        "/metadata/v1",
        "/metadata/v1/",
        "/metadata/v2/InstanceInfo",
        "/metadata/v1/InstanceInfo/",
        "/metadata/v1/InstanceInfo/XD",
        "/metadata/v1/InstanceInfo/ID/",
        "/metadata/v1/maintenance/",
        "/metadata//v1/InstanceInfo",
        "//metadata/v1/InstanceInfo",
        "/metadata/v1/%49nstanceInfo",
        "/metadata/v1/../v1/InstanceInfo",
        "/metadata/v1/./InstanceInfo",
        "/metadata/v1/InstanceInfo%2FID",
        "/metadata/v1/InstanceInfo;a=b",
    ],
)
def test_other_paths(path):
    assert ask(path).status == 404


def test_what_v1_does_not_have_is_not_asked_for_a_header():
    """Its clients send none, and are not to be told of one by what was made after it."""
    every = Dialects(Options())
    for path in ("/metadata/v1", "/metadata/v1/", "/metadata/latest/else", "/METADATA/V1/x"):
        request = Request("GET", path, None, (1, 1), {"host": "x"}, True)
        told = every.answer(View(guest=GUEST, incarnation=1), request, CREATED)
        assert (told.status, told.body) == (404, b"Not Found")


def test_a_query_is_ignored():
    assert ask("/metadata/v1/InstanceInfo", query="api-version=1").body == PLAIN


def test_what_a_proxy_forwards_is_refused():
    assert ask("/metadata/v1/InstanceInfo", x_forwarded_for="10.0.0.1").status == 400
    assert ask("/metadata/v1/InstanceInfo", x_forwarded_for="").status == 400


def test_an_event_of_the_set_is_not_mine():
    other = event(guests=("web2",), availability_sets=("s",))
    assert ask("/metadata/v1/InstanceInfo", other, now=NOT_BEFORE).body == PLAIN
    assert ask("/metadata/v1/maintenance", other, now=NOT_BEFORE).body == b"{}"
    mine = event(id=ID.replace("6", "7"), not_before=NOT_BEFORE + 10)
    body = ask("/metadata/v1/maintenance", other, mine, now=NOT_BEFORE).body
    assert mine.id.encode() in body


def test_how_long_an_answer_holds():
    def until(now, *events):
        return ask("/metadata/v1/InstanceInfo", *events, now=now).valid_until

    assert until(CREATED) == float("inf")
    assert until(CREATED, event()) == NOT_BEFORE - NOTICE
    assert until(NOT_BEFORE - NOTICE, event()) == NOT_BEFORE
    assert until(NOT_BEFORE, event()) == NOT_BEFORE + 60
