"""Whatever a guest sends: nothing crashes, everything is bounded, and no other guest notices."""

import asyncio
import contextlib
import json
import socket
import time

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from hostagent.channel.messages import Snapshot
from hostagent.channel.requests import Placed
from hostagent.dialects import NAMES, Dialects, Options
from hostagent.dialects.outcomes import Approval, Park
from hostagent.http import REASONS, BadRequest, Request, RequestReader, Response
from hostagent.model import Event, EventSource, EventType, Guest, View
from hostagent.responder.answers import BY_ADDRESS, host_headers
from hostagent.responder.approvals import Approvals
from hostagent.responder.knowledge import Knowledge
from hostagent.responder.server import Limits, Responder
from tests.hostagent.asking import CREATED, ID, event
from tests.thorough import cases

PIECES = st.sampled_from(
    [
        *("/", "//", "?", "&", "=", "%2e", "%C2%B2", "%80", ".", "..", "0", "1", "-1", "x", "a b"),
        *("metadata", "METADATA", "v1", "latest", "instance", "compute", "network", "interface"),
        *("scheduledevents", "versions", "maintenance", "InstanceInfo", "identity/oauth2/token"),
        *("api-version=2021-12-13", "api-version=2017-03-01", "format=text", "extended=true"),
        *("2021-03-23", "meta-data", "dynamic", "user-data", "api/token", "public-keys", "tags"),
        *("placement/availability-zone/", "spot/instance-action", "events/maintenance/history"),
        *("iam/security-credentials", "instance-identity/document", "macs", "0=default"),
        *("computeMetadata", "maintenance-event", "preempted", "attributes", "service-accounts"),
        *("default", "token", "recursive=true", "alt=json", "alt=text", "wait_for_change=true"),
        *("openstack", "meta_data.json", "network_data.json", "user_data", "2018-08-27"),
        *("last_etag=0", "timeout_sec=0", "timeout_sec=1", "timeout_sec=99999999999", "disks"),
    ]
)
TARGETS = st.lists(PIECES, max_size=12).map(lambda parts: "/" + "/".join(parts)) | st.lists(
    PIECES, max_size=12
).map(lambda parts: "/" + "".join(parts))
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("metadata", "metadata-flavor", "x-forwarded-for", "x-aws-ec2-metadata-token"),
            *("x-aws-ec2-metadata-token-ttl-seconds", "host", "content-type"),
        ]
    ),
    st.sampled_from(["true", "True", "Google", "", "60", "-1", "²", "A" * 44, "\xff\x80"])
    | st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60),
    max_size=5,
)
BODIES = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just(ID),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["StartRequests", "EventId", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
).map(lambda one: json.dumps(one).encode())
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "get", "PATCH"])
EVENTS = tuple(
    event(number, type=kind, guests=guests)
    for number, (kind, guests) in enumerate(
        [(kind, guests) for kind in EventType for guests in (("web1",), ("web2", "web1"))]
    )
)
GUEST = Guest(
    name="web1",
    properties={
        "iam_role": "r",
        "service_account": "a@b.c",
        "ssh_public_key": "k",
        "user_data": "<&\r\n\x00\"'>",
        "attributes.token": "t",
        "tags.a": "<b>",
    },
)
DIALECTS = Dialects(Options(enabled=NAMES, azure_rate=0))


@settings(max_examples=cases(100, 600), deadline=None)
@given(METHODS, TARGETS, HEADERS, BODIES, st.floats(CREATED - 100, CREATED + 1e5))
def test_every_request_has_an_answer(method, target, headers, body, now):
    path, mark, query = target.partition("?")
    view = View(guest=GUEST, incarnation=3, events=EVENTS, history=EVENTS)
    request = Request(method, path, query if mark else None, (1, 1), headers, True, body)
    outcome = DIALECTS.answer(view, request, now)
    if isinstance(outcome, Park):
        assert outcome.until > now
        outcome = outcome.resume(view, now + 1e10)
        assert isinstance(outcome, Response)
    if isinstance(outcome, Approval):
        assert set(outcome.event_ids) <= {one.id for one in EVENTS}
        return
    assert outcome.status in REASONS
    for name, text in outcome.headers:  # nothing that a guest sent can end a line
        assert (name + text).isprintable()
    assert DIALECTS.unavailable(request).status in (410, 503)


@settings(max_examples=cases(60, 300), deadline=None)
@given(TARGETS, HEADERS)
def test_a_guest_is_told_nothing_of_another(target, headers):
    """What another guest is and does makes no difference to any answer."""
    path, mark, query = target.partition("?")
    request = Request("GET", path, query if mark else None, (1, 1), headers, True)
    answers = []
    for other in ({}, {"user_data": "SECRET", "tags.SECRET": "1", "iam_role": "SECRET"}):
        knowledge = Knowledge()
        events = (EVENTS[0],) if not other else (EVENTS[0], event(9, guests=("web2",)))
        guests = (
            Placed(guest=Guest(name="web1", port=1), incarnation=4),
            Placed(guest=Guest(name="web2", port=2, properties=other), incarnation=9),
        )
        knowledge.apply(
            Snapshot(sequence=1, node="n", clock_offset=0.0, guests=guests, events=events), 0.0
        )
        outcome = DIALECTS.answer(knowledge.by_port(1), request, CREATED)
        answers.append(outcome if isinstance(outcome, Response) else type(outcome))
    assert answers[0] == answers[1]


@settings(max_examples=cases(60, 300), deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=8), METHODS, TARGETS, HEADERS, BODIES)
def test_any_bytes_are_read_or_refused(noise, method, target, headers, body):
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    data = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body
    reader = RequestReader()
    with contextlib.suppress(BadRequest):
        for piece in [data, *noise]:
            reader.feed(piece)
            while (request := reader.next()) is not None:
                view = View(guest=GUEST, incarnation=3, events=EVENTS)
                assert DIALECTS.answer(view, request, CREATED) is not None


def test_a_bad_guest_does_not_change_what_its_neighbour_is_told():
    """The same on the wire, with everything at once: noise, floods, half requests, parked ones."""
    good = {
        name: text.encode()
        for name, text in {
            "azure-v1": "GET /metadata/v1/InstanceInfo HTTP/1.1\r\n",
            "azure": "GET /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1\r\n"
            "Metadata: true\r\n",
            "ec2": "GET /latest/meta-data/instance-id HTTP/1.1\r\n",
            "gce": "GET /computeMetadata/v1/instance/maintenance-event HTTP/1.1\r\n"
            "Metadata-Flavor: Google\r\n",
            "openstack": "GET /openstack/latest/meta_data.json HTTP/1.1\r\n",
        }.items()
    }
    assert set(good) == set(NAMES)
    end = b"Host: 169.254.169.254\r\nConnection: close\r\n\r\n"
    post = b'{"StartRequests":[{"EventId":"%b"}]}' % ID.encode()
    bad = [
        b"\x00" * 5000,
        b"GET " + b"/" * 5000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100,
        *(text + b"Host: evil\r\n\r\n" for text in good.values()),
        *(text + b"Host: 169.254.169.254\r\nX-Forwarded-For: a\r\n\r\n" for text in good.values()),
        *(text[:20] for text in good.values()),
        (good["gce"] + b"Host: 169.254.169.254\r\n\r\n").replace(
            b"event ", b"event?wait_for_change=true "
        ),
        good["azure"].replace(b"GET", b"POST")
        + b"Host: 169.254.169.254\r\nContent-Length: %d\r\n\r\n" % len(post)
        + post,
        good["azure"].replace(b"GET", b"POST")
        + b"Host: 169.254.169.254\r\nContent-Length: 60000\r\n\r\n"
        + b"[" * 60000,
        b"PUT /latest/api/token HTTP/1.1\r\nHost: 169.254.169.254\r\n"
        b"X-aws-ec2-metadata-token-ttl-seconds: 99999999999999999999\r\n\r\n",
    ]

    async def main():
        knowledge = Knowledge(1000.0)
        guests = tuple(
            Placed(guest=Guest(name=f"web{i}", address=f"127.0.0.{i}"), incarnation=1)
            for i in (1, 2)
        )
        now = time.time()
        mine = Event(
            id=ID, type=EventType.REBOOT, source=EventSource.USER, description="", guests=("web1",),
            created=now, not_before=now + 900,
        )  # fmt: skip
        knowledge.apply(
            Snapshot(sequence=1, node="n", clock_offset=0.0, guests=guests, events=(mine,)),
            time.monotonic(),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        responder = Responder(
            knowledge,
            identity=BY_ADDRESS,
            allowed_hosts=host_headers([], [listener]),
            limits=Limits(held_per_guest=8),
            dialects=Dialects(Options(enabled=NAMES, azure_rate=0)),
            approvals=Approvals(),
        )
        stop, heard = asyncio.Event(), asyncio.Event()
        heard.set()
        serving = asyncio.create_task(responder.serve([listener], stop, heard))
        await asyncio.sleep(0.05)

        async def ask(name):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=("127.0.0.2", 0)
            )
            writer.write(good[name] + end)
            answer = await reader.read()
            writer.close()
            head, _, body = answer.partition(b"\r\n\r\n")
            return head.split(b"\r\n")[0], body

        before = {name: await ask(name) for name in good}
        assert {first for first, _ in before.values()} == {b"HTTP/1.1 200 OK"}
        writers = []
        for text in bad * 3:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, local_addr=("127.0.0.1", 0)
            )
            writers.append(writer)
            writer.write(text)
            if text is bad[0]:
                writer.transport.abort()
            began = time.process_time()  # others may keep the machine busy
            assert {name: await ask(name) for name in good} == before
            assert time.process_time() - began < 2
            assert responder._held_by["127.0.0.1"] <= 8
        for writer in writers:
            writer.close()
        stop.set()
        await serving
        await asyncio.sleep(0.1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
