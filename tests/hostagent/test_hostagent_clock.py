"""The metadata plane's clock: moved on request, never back, and never twice."""

import contextlib
from math import inf, nan

import pytest

from hostagent.channel.messages import Done, Failed, MessageError, decode
from hostagent.channel.requests import Adopt, Advance, Place, Placed, Schedule
from hostagent.commands import execute
from hostagent.model import MAX_CLOCK_OFFSET, Event, EventSource, EventType, Guest
from hostagent.repository import Repository

NOW = 1_700_000_000.0
DAY = 86400.0
ID = "00000001-0000-4000-8000-000000000000"


class Node:
    """A repository, on a machine whose clock can be set."""

    def __init__(self, path):
        self.path = path
        self.wall = NOW
        self.commands = 0
        self.deltas = []
        self.repository = Repository.open(path)

    def __call__(self, kind, **fields):
        self.commands += 1
        with self.repository.transaction():
            command = kind(command_id=f"c{self.commands}", **fields)
            answer, deltas = execute(self.repository, command, self.wall)
        self.deltas += deltas
        return answer

    def look(self):
        with self.repository.transaction():
            self.deltas += self.repository.settle(self.wall)

    def restart(self):
        self.repository.close()
        self.repository = Repository.open(self.path)

    @property
    def now(self):
        return self.wall + self.repository.clock_offset


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path / "n1")
    made(Place, guests=(Guest(name="web1"),))
    yield made
    made.repository.close()


def test_a_clock_that_an_adoption_has_moved_is_not_moved_again(node):
    guest = Placed(guest=Guest(name="web2"), incarnation=3)
    node(Adopt, clock_offset=3 * DAY, guests=(guest,))
    told = len(node.deltas)
    answer = node(Advance, to=3 * DAY)
    assert isinstance(answer, Done)
    assert answer.now == NOW + 3 * DAY
    assert node(Advance, to=2 * DAY).now == NOW + 3 * DAY
    assert node.deltas[told:] == []
    assert node(Advance, to=4 * DAY).now == NOW + 4 * DAY
    assert node(Advance, seconds=DAY).now == NOW + 5 * DAY


@pytest.mark.parametrize("seconds", [11000 * DAY, MAX_CLOCK_OFFSET + 1, 1e300, inf])
def test_more_than_ten_years_are_refused_in_words(node, seconds):
    for fields in ({"seconds": seconds}, {"to": seconds}):
        refused = node(Advance, **fields)
        assert isinstance(refused, Failed)
        assert refused.code == "clock"
        assert "3660 days ahead at most" in refused.reason
    refused = node(Adopt, clock_offset=seconds)
    assert refused.code == "clock"
    assert node.repository.clock_offset == 0


@pytest.mark.parametrize(
    "fields",
    [
        *({}, {"seconds": 1.0, "to": 1.0}, {"seconds": nan}, {"to": nan}, {"seconds": 0.0}),
        *({"to": -1.0}, {"seconds": -inf}, {"seconds": "1"}, {"seconds": True}),
    ],
)
def test_what_is_no_move_of_the_clock_is_no_message(fields):
    with pytest.raises(MessageError):
        decode({"message": "advance", "command_id": "c", **fields})


def test_a_machine_whose_clock_is_set_back_keeps_no_guest_off_for_longer(node):
    node(Schedule, event_id=ID, type=EventType.REBOOT, guests=("web1",), notice=0.0, duration=10.0)
    node.wall -= 3600
    node.look()
    assert node.now == NOW  # no earlier than it was, and told to those who follow the node
    assert node.deltas[-1].clock_offset == 3600
    node.wall += 10
    node.look()
    (event,) = node.repository.events()
    assert (event.status, event.ended) == ("Completed", NOW + 10)


def test_a_move_of_the_clock_that_is_not_stored_has_not_been(node):
    command = Advance(command_id="x", seconds=DAY)
    with contextlib.suppress(ZeroDivisionError), node.repository.transaction():
        execute(node.repository, command, node.wall)
        raise ZeroDivisionError
    node.look()
    assert node.now == NOW
    assert node(Advance, seconds=DAY).now == NOW + DAY


def test_a_machine_that_restarts_with_an_earlier_time_goes_on_from_what_is_stored(node):
    node.wall += 100
    node(Schedule, event_id=ID, type=EventType.REBOOT, guests=("web1",), notice=0.0, duration=10.0)
    node.wall -= 3600
    node.restart()
    answer = node(Place, guests=(Guest(name="web2"),))
    assert answer.now == NOW + 100
    node.wall -= 50  # and again, while it runs
    assert node(Place, guests=(Guest(name="web3"),)).now == NOW + 100


def test_a_clock_that_was_wrong_by_more_than_ten_years_goes_back(node):
    node.wall += 70 * 366 * DAY
    node.look()
    node.wall -= 70 * 366 * DAY
    node.look()
    assert node.now == NOW
    assert isinstance(node(Advance, seconds=DAY), Done)


def test_the_latest_dates_that_a_message_can_say_are_kept(node):
    last = 253402300799.0
    event = Event(
        id=ID,
        type=EventType.REBOOT,
        source=EventSource.PLATFORM,
        description="",
        guests=("web1",),
        created=last,
        not_before=last,
        started=last,
        status="Started",
        duration=366 * DAY,
    )
    assert isinstance(node(Adopt, clock_offset=0.0, events=(event,)), Done)
    node.restart()
    node.look()
    assert node.repository.events() == [event]
