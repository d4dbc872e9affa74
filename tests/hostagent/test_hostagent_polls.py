"""The record of what guests ask: its rows, its bounds, and the way to the one that asks for it."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from hostagent.channel.messages import AskPolls, Poll, Polls, decode, encode
from hostagent.model import EventType
from hostagent.polls_asked import PollsAsked
from hostagent.responder import poll_log
from hostagent.responder.poll_log import LEAST_ROWS, MOST_ROWS, PollLog, events_told
from hostagent.responder.server import Limits
from tests.hostagent import test_hostagent_waiting as waiting
from tests.hostagent.asking import CREATED, Asker, event
from tests.hostagent.test_hostagent_answers import REQUESTS, World, get
from tests.hostagent.test_hostagent_faults import ASK, INFO, fault, give

run = waiting.run


def poll(at=100.0, **fields):
    return Poll(at=at, **{"method": "GET", "target": INFO, "status": 200, **fields})


def test_equal_answers_of_one_second_share_a_row():
    log = PollLog(["web1"])
    for at, status in ((100.0, 200), (100.9, 200), (101.0, 200), (101.1, 500), (101.2, 200)):
        log.note("web1", poll(at, status=status))
    told = [(row.at, row.status, row.count) for row in log.of("web1")]
    assert told == [(100.0, 200, 2), (101.0, 200, 1), (101.1, 500, 1), (101.2, 200, 1)]
    assert log.of("web2") == ()


def test_the_record_is_bounded_for_each_guest_and_for_the_node(monkeypatch):
    log = PollLog(["web1"])
    for second in range(2 * MOST_ROWS):
        log.note("web1", poll(float(second)))
    assert len(log.of("web1")) == MOST_ROWS
    assert log.of("web1")[-1].at == 2 * MOST_ROWS - 1
    monkeypatch.setattr(poll_log, "ROWS", 2 * LEAST_ROWS)
    for second in range(LEAST_ROWS + 10):
        log.note("web2", poll(float(second)))
    log.note("web1", poll(1e6))
    assert len(log.of("web1")) == len(log.of("web2")) == LEAST_ROWS


def test_guests_that_have_gone_are_forgotten_in_time(monkeypatch):
    monkeypatch.setattr(poll_log, "MAX_GUESTS", 2)
    log = PollLog(["web1"])
    for name in ("web1", "gone1", "gone2", "gone3", "new"):
        log.note(name, poll())
    assert [bool(log.of(name)) for name in ("web1", "gone1", "new")] == [True, False, True]


@pytest.mark.parametrize("kept", [False, True])
def test_every_request_is_counted_whether_its_answer_is_kept_or_not(kept):
    world = World()
    for _ in range(3):
        world.told(1, REQUESTS[0])
    if not kept:
        world.answers.replies.forget()
    world.told(1, REQUESTS[0])
    world.time += 1
    world.told(1, REQUESTS[0])
    rows = world.answers.replies.polls_of("web1")
    assert sum(row.count for row in rows) == 5
    assert {(row.method, row.target, row.status) for row in rows} == {("GET", INFO, 200)}
    assert rows[-1].at == world.time


def test_a_long_target_is_cut():
    world = World()
    world.told(1, get("/" + "x" * 1000))
    assert len(world.answers.replies.polls_of("web1")[0].target) == poll_log.MAX_TARGET


def test_who_is_no_guest_is_not_recorded():
    world = World()
    world.told(3, REQUESTS[0])
    assert not world.answers._polls._rows


@pytest.mark.parametrize(
    ("kind", "after", "target", "headers", "told"),
    [
        ("Reboot", 0, "/metadata/scheduledevents?api-version=2020-07-01", {"metadata": "true"}, 1),
        ("Reboot", 0, "/metadata/v1/maintenance", {}, 0),  # not yet
        ("Reboot", 700, "/metadata/v1/maintenance", {}, 1),
        ("Reboot", 0, "/latest/meta-data/events/maintenance/scheduled", {}, 1),
        ("Preempt", 700, "/latest/meta-data/spot/instance-action", {}, 0),
        ("Preempt", 800, "/latest/meta-data/spot/instance-action", {}, 1),
        ("Preempt", 0, "/latest/meta-data/events/recommendations/rebalance", {}, 1),
        ("Reboot", 0, "/computeMetadata/v1/instance/maintenance-event",
         {"metadata_flavor": "Google"}, 0),
        ("Reboot", 850, "/computeMetadata/v1/instance/maintenance-event",
         {"metadata_flavor": "Google"}, 1),
        ("Preempt", 880, "/computeMetadata/v1/instance/preempted",
         {"metadata_flavor": "Google"}, 1),
        ("Reboot", 880, "/latest/meta-data/instance-id", {}, 0),
    ],
)  # fmt: skip
def test_which_events_an_answer_tells_of(kind, after, target, headers, told):
    ask = Asker()
    ask.tell(event(type=EventType(kind)))
    ask.now = CREATED + after
    path, _, query = target.partition("?")
    response = ask.outcome(target, **headers)
    request = waiting_request(path, query)
    found = events_told("web1", ask.view.events, request, response.status, response.body)
    assert found == (event().id,) * told


def waiting_request(path, query):
    from hostagent.http import Request

    return Request("GET", path, query or None, (1, 1), {"host": "x"}, True)


def test_a_fault_is_in_the_record_and_an_answer_that_was_not_given_is_status_0(run):
    async def scenario(world):
        give(world, fault(1, status=500, times=1), fault(2, reset=True, times=1))
        for _ in range(3):
            reader, writer = await world.connect(ASK)
            try:
                await reader.read(1)
            except ConnectionResetError:
                pass
            writer.close()
        rows = world.responder.answers.replies.polls_of("web1")
        assert [(row.status, row.fault) for row in rows] == [
            (500, fault(1).id),
            (0, fault(2).id),
            (200, None),
        ]
        reader, _ = await world.connect(b"nonsense\r\n\r\n")
        await reader.read()
        assert world.responder.answers.replies.polls_of("web1")[-1].status == 400

    run(scenario)


def test_the_last_request_of_a_connection_is_counted_once(run):
    """Its answer may not be a kept one: the connection ends with it."""

    async def scenario(world):
        for _ in range(2):
            reader, writer = await world.connect()
            for _ in range(4):
                writer.write(ASK)
                assert (await waiting.answer(reader))[0] == 200
            assert await reader.read() == b""
        rows = world.responder.answers.replies.polls_of("web1")
        assert sum(row.count for row in rows) == 8

    run(scenario, limits=Limits(requests=4))


class Peer:
    role = "responder"
    subscribed = True

    def __init__(self):
        self.sent = []
        self.resumed = 0

    def send(self, message):
        self.sent.append(decode(_map(message)))

    def resume(self):
        self.resumed += 1


def _map(message):
    from hostagent.channel.frames import Decoder

    (obj,) = Decoder().feed(encode(message))
    return obj


def asked(scenario):
    async def main():
        await scenario(PollsAsked(), Peer(), [Peer(), Peer()])

    asyncio.run(main())


def test_all_responders_are_asked_and_their_rows_are_merged():
    async def scenario(polls, asker, responders):
        polls.ask(asker, "web1", responders)
        (question,) = responders[0].sent
        assert question == AskPolls(number=1, guest="web1")
        polls.answered(responders[0], Polls(number=1, polls=(poll(2.0),)))
        polls.answered(responders[0], Polls(number=1, polls=(poll(9.0),)))  # twice: ignored
        assert asker.sent == []
        polls.answered(responders[1], Polls(number=1, polls=(poll(1.0),)))
        (answer,) = asker.sent
        assert [row.at for row in answer.polls] == [1.0, 2.0]
        assert asker.resumed == 1
        polls.answered(responders[1], Polls(number=1))  # late

    asked(scenario)


def test_a_responder_that_goes_or_hangs_is_left_out(monkeypatch):
    monkeypatch.setattr("hostagent.polls_asked.TIMEOUT", 0.05)

    async def scenario(polls, asker, responders):
        polls.ask(asker, "web1", responders)
        polls.gone(responders[0])
        polls.answered(responders[1], Polls(number=1, polls=(poll(),)))
        polls.ask(asker, "web1", responders)  # nobody answers
        began = time.monotonic()
        while len(asker.sent) < 2 and time.monotonic() - began < 10:
            await asyncio.sleep(0.01)
        assert [len(one.polls) for one in asker.sent] == [1, 0]
        polls.ask(asker, "web1", [])  # there is none
        assert len(asker.sent) == 3

    asked(scenario)


def test_an_asker_that_goes_is_forgotten():
    async def scenario(polls, asker, responders):
        polls.ask(asker, "web1", responders)
        polls.gone(asker)
        assert not polls._asked
        polls.answered(responders[0], Polls(number=1))

    asked(scenario)


def test_a_row_travels_whole():
    row = poll(told=("a", "b"), fault="00000001", count=7)
    assert decode(_map(Polls(polls=(row,)))).polls == (row,)
    assert replace(row, count=1) != row
