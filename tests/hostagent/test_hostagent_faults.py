"""Faults on command: what a request meets, what becomes of the answer, and when it is over."""

import asyncio
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hostagent.channel.messages import Delta, Done, Failed, Used, decode
from hostagent.channel.replica import Replica
from hostagent.channel.requests import (
    AddFaults,
    Adopt,
    Advance,
    ClearFaults,
    Place,
    Placed,
    Withdraw,
)
from hostagent.commands import execute
from hostagent.dialects import Dialects, Options
from hostagent.faults import MAX_FAULTS, PLAYBOOK, Fault, in_words, is_over, matches
from hostagent.http import Request, Response
from hostagent.model import TRANSITIONS, Guest, View, apply
from hostagent.model import Request as Asked
from hostagent.repository import Repository
from hostagent.responder.faults import Faults, as_of, asked_as, cut, late, spoiled
from hostagent.transactions import Transactions
from tests.hostagent import test_hostagent_waiting as waiting
from tests.hostagent.asking import CREATED, Asker, event
from tests.thorough import cases

NOW = 1_700_000_000.0
INFO = "/metadata/v1/InstanceInfo"
ASK = f"GET {INFO} HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n".encode()
WHOLE = b'{"ID":"_web1","UD":"0","FD":"0"}'
run = waiting.run


def fault(number=1, at=0.0, **fields):
    return Fault(id=f"{number:08x}", at=at, **fields)


def asking(path=INFO, method="GET"):
    return Request(method, path, None, (1, 1), {"host": "x"}, True)


# Which request meets which fault.


@pytest.mark.parametrize(
    ("glob", "methods", "met"),
    [
        ("*", (), True),
        ("/metadata/*", (), True),
        ("/METADATA/V1/instanceinfo", (), True),
        ("/latest/*", (), False),
        ("*", ("GET", "HEAD"), True),
        ("*", ("POST",), False),
    ],
)
def test_a_fault_is_about_paths_and_methods(glob, methods, met):
    assert matches(fault(path=glob, methods=methods), "GET", INFO) is met


def test_a_request_meets_the_first_that_is_active_and_matches():
    faults = (
        fault(1, path="/latest/*", status=500),
        fault(2, at=10.0, status=501),
        fault(3, at=1.0, until=5.0, status=502),
        fault(4, status=503),
    )
    met = [Faults().met("web1", faults, asking(), now) for now in (0.0, 1.0, 5.0, 10.0)]
    assert [one and one.status for one in met] == [503, 502, 503, 501]


def test_faults_with_times_are_met_in_turn_by_each_guest():
    faults = (fault(1, status=500, times=2), fault(2, times=1), fault(3, garble=True, times=1))
    met = Faults()
    told = [met.met("web1", faults, asking(), NOW) for _ in range(5)]
    assert [one and one.id[-1] for one in told] == ["1", "1", "2", "3", None]
    assert met.met("web2", faults, asking(), NOW) is faults[0]


def test_the_agent_is_told_each_count_and_all_of_them_when_it_returns():
    met, sent = Faults(), []
    met.connected(lambda frame: sent.append(frame))
    spent = (fault(1, status=500, times=2, used=1),)
    assert met.met("web1", spent, asking(), NOW) is not None
    assert met.met("web1", spent, asking(), NOW) is None  # the agent has not said so yet
    met.disconnected()
    met.connected(lambda frame: sent.append(frame))
    assert len(sent) == 2
    assert sent[0] == sent[1]


def test_a_throttle_bites_above_its_rate():
    met, faults = Faults(), (fault(throttle=1.0),)
    told = [met.met("web1", faults, asking(), NOW + after) for after in (0, 0.1, 0.2, 1.1)]
    assert [one is not None for one in told] == [False, True, True, False]


# What becomes of the answer.


def test_a_stale_answer_is_what_was_answered_then():
    ask = Asker()
    events = (event(6), event(7, created=CREATED + 10, not_before=CREATED + 500))
    ask.tell(events[0], incarnation=5)
    ask.now = CREATED + 5
    target = "/metadata/scheduledevents?api-version=2020-07-01"
    before = ask(target, metadata="true")
    then = ask.view
    # Another comes, both start, one ends.
    started = [apply(one, Asked.APPROVE, CREATED + 20) for one in events]
    ended = apply(started[0], Asked.COMPLETE, CREATED + 30)
    ask.tell(started[1], incarnation=9, history=(ended,))
    assert ask(target, metadata="true") != before
    assert as_of(ask.view, CREATED + 5) == then
    later = fault(at=CREATED + 5, stale=True)
    view, _, now = asked_as(later, ask.view, CREATED + 40, asking())
    ask.view, ask.now = view, now
    assert ask(target, metadata="true") == before


@settings(max_examples=cases(40, 100), deadline=None)
@given(st.lists(st.sampled_from(["add", "approve", "complete", "cancel"]), max_size=12), st.data())
def test_a_view_of_the_past_is_the_view_that_was(script, data):
    """Each view of a guest is found again from every later one."""
    views = {CREATED: View(guest=Guest(name="web1"), incarnation=1)}
    known = {}
    for step, verb in enumerate(script, start=1):
        now = CREATED + step
        active = [one for one in known.values() if one.ended is None]
        if verb == "add":
            known[step] = event(step, created=now, not_before=now + 1000)
        elif active:
            one = data.draw(st.sampled_from(active))
            wanted = Asked(verb)
            if TRANSITIONS.get((one.status, wanted), one.status) is one.status:
                continue
            number = next(n for n, other in known.items() if other is one)
            known[number] = apply(one, wanted, now)
        else:
            continue
        views[now] = View(
            guest=Guest(name="web1"),
            incarnation=views[max(views)].incarnation + 1,
            events=tuple(
                sorted(
                    (one for one in known.values() if one.ended is None),
                    key=lambda one: one.not_before,
                )
            ),
            history=tuple(
                sorted(
                    (one for one in known.values() if one.ended is not None),
                    key=lambda one: one.ended,
                    reverse=True,
                )
            ),
        )
    last = views[max(views)]
    for then, view in views.items():
        assert as_of(last, then) == view


@pytest.mark.parametrize(
    ("target", "headers", "member"),
    [
        ("/latest/meta-data/iam/security-credentials/role", {}, "Expiration"),
        (
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://x",
            {"metadata": "true"},
            "expires_on",
        ),
        (
            "/computeMetadata/v1/instance/service-accounts/default/token",
            {"metadata_flavor": "Google"},
            "expires_in",
        ),
    ],
)
def test_credentials_have_expired_in_each_cloud(target, headers, member):
    ask = Asker(
        properties={
            "iam_role": "role",
            "managed_identity": "00000000-0000-4000-8000-000000000001",
            "service_account": "a@b.iam.gserviceaccount.com",
        }
    )
    one = fault(expired=True)
    view, _, ask.now = asked_as(one, ask.view, CREATED, asking(target.partition("?")[0]))
    assert view is ask.view
    response = spoiled(one, ask.outcome(target, **headers))
    assert response.status == 200
    value = json.loads(response.body)[member]
    if member == "Expiration":
        assert value < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(CREATED))
    elif member == "expires_on":
        assert int(value) < CREATED
    else:
        assert value == 0


def test_what_is_no_credential_does_not_expire():
    ask = Asker()
    assert asked_as(fault(expired=True), ask.view, CREATED, asking()) == (
        ask.view,
        asking(),
        CREATED,
    )


@pytest.mark.parametrize(
    ("path", "status", "words", "after"),
    [
        ("/metadata/scheduledevents", 410, b"Gone: try again within 70 seconds", "5"),
        ("/metadata/instance", 429, b"Too many requests", "1"),
        ("/metadata/v1/maintenance", 429, b"Too Many Requests", "1"),
        ("/latest/meta-data/", 401, b"401 - Unauthorized", None),
        ("/latest/meta-data/", 503, b"503 - Service Unavailable", "5"),
        ("/computeMetadata/v1/", 503, b"Error 503 (Service Unavailable)!!1", "5"),
        ("/elsewhere", 499, b"Unassigned", None),
    ],
)
def test_a_failure_is_said_as_the_cloud_says_it(path, status, words, after):
    response = Dialects(Options()).failure(path, status)
    assert response.status == status
    assert words in response.body
    assert dict(response.headers).get("Retry-After") == after


def test_what_is_sent_of_an_answer():
    frame = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd"
    assert cut(fault(status=500), frame) == frame
    assert cut(fault(truncate=2), frame).endswith(b"\r\n\r\nab")
    assert cut(fault(truncate=99), frame).endswith(b"\r\n\r\nabc")  # something is missing
    assert cut(fault(truncate=2, reset=True), frame).endswith(b"\r\n\r\nab")
    assert cut(fault(reset=True), frame) == b""
    assert cut(fault(hang=True), frame) == b""


def test_garbage_is_as_long_as_the_answer_and_no_text():
    garbage = spoiled(fault(garble=True), Response(200, b'{"a": 1}')).body
    assert len(garbage) == 8
    with pytest.raises(UnicodeDecodeError):
        garbage.decode()


def test_when_the_reply_is_sent():
    assert late(fault(status=500), NOW) is None
    assert late(fault(delay=3.0), NOW) == NOW + 3
    assert late(fault(reset=True), NOW) == NOW
    assert late(fault(hang=True, delay=10.0), NOW) == NOW + 10
    assert late(fault(hang=True, until=NOW + 5), NOW) == NOW + 5
    assert late(fault(hang=True), NOW) == float("inf")


def test_the_playbook_fits_a_guest_and_lets_a_request_through_between_any_two():
    assert len(PLAYBOOK) <= MAX_FAULTS
    words = [in_words(fault(**{f: getattr(s, f) for f in s.__struct_fields__ if f != "times"}))
             for s in PLAYBOOK]  # fmt: skip
    assert words[1::2] == ["lets requests through"] * (len(PLAYBOOK) // 2)
    assert len(set(words[::2])) == 8


# In the agent.


@pytest.fixture
def store(tmp_path):
    made = Repository.open(tmp_path / "r.sqlite")
    execute(made, Place(command_id="p", guests=(Guest(name="web1"), Guest(name="web2"))), NOW)
    yield made
    made.close()


def do(store, kind, now=NOW, **fields):
    do.number += 1
    return execute(store, kind(command_id=f"c{do.number}", **fields), now)


do.number = 0


def add(store, *faults, guests=("web1",), now=NOW):
    answer, deltas = do(store, AddFaults, now, guests=guests, faults=faults)
    assert isinstance(answer, Done), answer
    return deltas


def known(store, name="web1"):
    return store.placed(name).faults


def test_a_fault_is_stored_with_its_guest_and_is_no_change_of_the_guest(tmp_path, store):
    before = store.placed("web1")
    (delta,) = add(store, fault(1, at=5.0, until=35.0, status=500))
    (placed,) = delta.placed
    assert placed == replace(before, faults=(fault(1, NOW + 5, until=NOW + 35, status=500),))
    store.close()
    again = Repository.open(tmp_path / "r.sqlite")  # the agent has been killed
    assert again.placed("web1") == placed
    assert again.placed("web2").faults == ()
    assert again.next_change() == NOW + 35
    again.close()


def test_a_fault_is_over_at_its_time_and_gone(store):
    add(store, fault(1, until=30.0, status=500), fault(2, hang=True))
    assert store.settle(NOW + 29) == []
    (delta,) = store.settle(NOW + 30)
    assert [one.id for one in delta.placed[0].faults] == [fault(2).id]
    assert store.next_change() is None


def test_a_clock_that_is_moved_ends_a_fault(store):
    add(store, fault(1, until=3600.0, status=500))
    do(store, Advance, seconds=3600.0)
    assert known(store) == ()


def test_a_fault_that_has_met_its_times_is_gone(store):
    add(store, fault(1, status=500, times=2))
    assert store.use("web1", fault(1).id, 1)
    assert known(store)[0].used == 1
    assert store.use("web1", fault(1).id, 1) == []  # told again
    assert store.use("web1", fault(1).id, 2)
    assert known(store) == ()
    assert store.use("web1", fault(1).id, 3) == []
    assert store.use("nobody", fault(1).id, 3) == []


def test_faults_are_cleared_by_guest_and_by_id(store):
    add(store, fault(1, status=500), fault(2, status=501), guests=("web1", "web2"))
    do(store, ClearFaults, guests=("web1",), ids=(fault(1).id,))
    assert [one.id for one in known(store)] == [fault(2).id]
    assert len(known(store, "web2")) == 2
    do(store, ClearFaults)
    assert known(store) == known(store, "web2") == ()


def test_a_guest_takes_its_faults_along(store, tmp_path):
    add(store, fault(1, status=500, times=3), fault(2, hang=True))
    store.use("web1", fault(1).id, 1)
    left = store.placed("web1")
    other = Repository.open(tmp_path / "other.sqlite")
    do(other, Adopt, clock_offset=0.0, guests=(left,))
    assert known(other) == left.faults
    # The old node has told it more meanwhile.
    store.use("web1", fault(1).id, 2)
    do(store, ClearFaults, ids=(fault(2).id,))
    add(store, fault(3, hang=True))
    # So has the new one.
    add(other, fault(4, hang=True))
    before = {"web1": (fault(1).id, fault(2).id)}
    do(other, Adopt, clock_offset=0.0, guests=(store.placed("web1"),), before=before)
    told = [(fault(1).id, 2), (fault(4).id, 0), (fault(3).id, 0)]
    assert [(one.id, one.used) for one in known(other)] == told
    do(other, ClearFaults, ids=(fault(1).id,))
    do(other, Adopt, clock_offset=0.0, guests=(store.placed("web1"),), before=before)
    assert [one.id for one in known(other)] == [fault(4).id, fault(3).id]
    do(other, Adopt, clock_offset=0.0, guests=(left,))  # it has been elsewhere meanwhile
    assert known(other) == left.faults
    do(other, Withdraw, names=("web1",))
    do(other, Place, guests=(Guest(name="web1"),))
    assert known(other) == ()
    other.close()


def test_a_guest_that_is_placed_again_keeps_its_faults(store):
    add(store, fault(1, status=500))
    do(store, Place, guests=(Guest(name="web1", address="169.254.1.2"),))
    assert len(known(store)) == 1


@pytest.mark.parametrize(
    ("guests", "count", "code"),
    [(("web1", "nobody"), 1, "unknown-guest"), (("web1",), MAX_FAULTS, "too-many")],
)
def test_what_cannot_be_added_changes_nothing(store, guests, count, code):
    add(store, fault(99, status=500))
    faults = tuple(fault(n, status=500) for n in range(count))
    answer, deltas = do(store, AddFaults, guests=guests, faults=faults)
    assert isinstance(answer, Failed)
    assert (answer.code, deltas) == (code, [])
    assert len(known(store)) == 1


def test_two_faults_of_one_id_are_refused(store):
    add(store, fault(1, status=500))
    answer, _ = do(store, AddFaults, guests=("web1",), faults=(fault(1, hang=True),))
    assert answer.code == "conflict"


def test_a_count_comes_by_the_feed_and_is_not_answered(store):
    add(store, fault(1, status=500, times=2))
    worker = Transactions(store, "n1", lambda: NOW)
    outcome = worker.run([Used(guest="web1", fault_id=fault(1).id, used=1)], False)
    assert outcome.answers == [[]]
    assert outcome.deltas[0].placed[0].faults[0].used == 1


def test_an_incarnation_does_not_take_the_faults_away():
    replica = Replica()
    placed = Placed(guest=Guest(name="web1"), incarnation=1, faults=(fault(1, status=500),))
    replica._place(placed)
    replica.sequence = 1
    replica.take(Delta(sequence=2, incarnations={"web1": 2}))
    assert replica.guests["web1"] == replace(placed, incarnation=2)


def test_a_fault_is_over_only_by_time_or_times():
    assert not is_over(fault(status=500), NOW)
    assert is_over(fault(until=NOW), NOW)
    assert is_over(fault(times=1, used=1), NOW)


# At the guest's end of a connection.


def give(world, *faults, number=[1]):  # noqa: B006
    number[0] += 1
    placed = replace(world.knowledge.guests["web1"], faults=faults)
    world.change(placed=(placed,))


async def ask(world, data=ASK):
    reader, writer = await world.connect(data)
    if b"close" not in data:
        writer.write_eof()
    return reader


def test_a_connection_sees_each_ending(run):
    """Whole, cut short, reset at once, reset in the body, late, and well again."""

    async def scenario(world):
        give(world, fault(truncate=4))
        reader = await ask(world)
        assert (await reader.read()).endswith(b'\r\n\r\n{"ID')
        give(world, fault(truncate=4, reset=True))
        reader, _ = await world.connect(ASK)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readexactly(4) == b'{"ID'
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        give(world, fault(reset=True))
        reader, _ = await world.connect(ASK)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        give(world, fault(delay=0.2))
        reader, _ = await world.connect(ASK)
        began = time.monotonic()
        assert (await waiting.answer(reader))[2] == WHOLE
        assert time.monotonic() - began >= 0.15
        give(world)
        reader, _ = await world.connect(ASK)
        assert (await waiting.answer(reader))[2] == WHOLE

    run(scenario)


def test_a_kept_connection_meets_a_fault_and_stays_open_where_the_answer_is_whole(run):
    async def scenario(world):
        reader, writer = await world.connect(ASK)
        assert (await waiting.answer(reader))[0] == 200
        give(world, fault(status=500, times=2))
        for status in (500, 500, 200, 200):
            writer.write(ASK)
            assert (await waiting.answer(reader))[0] == status

    run(scenario)


def test_a_request_hangs_until_the_fault_is_cleared(run):
    async def scenario(world):
        give(world, fault(hang=True))
        reader, _ = await world.connect(ASK)
        await waiting.parked(world, 1)
        give(world)
        assert await reader.read() == b""

    run(scenario)


def test_a_hang_of_some_seconds_outlives_its_count(run):
    async def scenario(world):
        give(world, fault(hang=True, delay=0.2, times=1))
        reader, _ = await world.connect(ASK)
        await waiting.parked(world, 1)
        give(world)  # the agent says that it is over
        began = time.monotonic()
        assert await reader.read() == b""
        assert time.monotonic() - began >= 0.1

    run(scenario)


def test_a_request_that_waits_meets_a_failure_that_comes_meanwhile(run):
    async def scenario(world):
        reader, _ = await world.connect(waiting.WAIT)
        await waiting.parked(world, 1)
        give(world, fault(path="/latest/*", status=500))
        give(world, fault(status=503))
        assert (await waiting.answer(reader))[0] == 503

    run(scenario)


def test_a_request_that_waits_for_a_stale_service_waits_in_vain(run):
    """It is answered at its time-out, with what was so when the fault began."""

    async def scenario(world):
        give(world, fault(at=time.time() - 60, stale=True))
        target = f"{waiting.PATH}?wait_for_change=true&timeout_sec=1"
        reader, _ = await world.connect(f"GET {target} HTTP/1.1\r\n{waiting.HEAD}".encode())
        await waiting.parked(world, 1)
        began = time.monotonic()
        world.start()
        status, _, body = await waiting.answer(reader)
        assert (status, body) == (200, b"NONE")
        assert time.monotonic() - began >= 0.5

    run(scenario)


def test_the_answer_to_an_approval_is_lost_and_the_approval_is_not(run):
    body = b'{"StartRequests":[{"EventId":"%s"}]}' % waiting.ID.encode()
    post = (
        b"POST /metadata/scheduledevents?api-version=2020-07-01 HTTP/1.1\r\n"
        b"Host: 169.254.169.254\r\nMetadata: true\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body

    async def scenario(world):
        world.start(not_before=time.time() + 900)
        give(world, fault(methods=("POST",), reset=True, times=1))
        reader, _ = await world.connect(post)
        for _ in range(500):
            if world.sent:
                break
            await asyncio.sleep(0.01)
        (approve,) = [decode(one) for one in waiting.Decoder().feed(b"".join(world.sent))]
        assert approve.event_id == waiting.ID
        world.approvals.answered(Done(command_id=approve.command_id, now=time.time()))
        with pytest.raises(ConnectionResetError):
            await reader.read(1)

    run(scenario)


def test_a_fault_that_begins_later_is_met_then(run):
    """No answer of before is repeated once it has begun."""

    async def scenario(world):
        give(world, fault(at=time.time() + 0.3, status=500))
        reader, writer = await world.connect()
        seen = []
        for _ in range(400):
            writer.write(ASK)
            seen.append((await waiting.answer(reader))[0])
            if seen[-1] == 500:
                break
            await asyncio.sleep(0.01)
        assert seen[0] == 200
        assert seen[-1] == 500

    run(scenario)


def test_a_clock_is_wrong_in_every_head(run):
    async def scenario(world):
        give(world, fault(clock=-3600.0))
        reader, _ = await world.connect(ASK)
        _, headers, _ = await waiting.answer(reader)
        wrong = time.mktime(time.strptime(headers["Date"], "%a, %d %b %Y %H:%M:%S GMT"))
        assert -3610 < wrong - time.timezone - time.time() < -3590

    run(scenario)
