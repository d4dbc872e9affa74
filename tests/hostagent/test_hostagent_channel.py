import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hostagent.channel.frames import MAX_DEPTH, MAX_FRAME, Decoder, FrameError, pack
from hostagent.channel.messages import (
    VERSION,
    Applied,
    Clock,
    Delta,
    Done,
    Events,
    Failed,
    Guests,
    Heartbeat,
    Hello,
    Left,
    MessageError,
    Responders,
    Snapshot,
    Welcome,
    decode,
    encode,
    parts,
    snapshot,
)
from hostagent.channel.requests import (
    WITHDRAWN_AT_ONCE,
    Adopt,
    Advance,
    Approve,
    Cancel,
    Complete,
    ListEvents,
    ListGuests,
    ListResponders,
    Now,
    Place,
    Placed,
    Schedule,
    Start,
    Withdraw,
)
from hostagent.faults import MAX_FAULTS, Fault
from hostagent.model import MAX_GUESTS, Event, EventSource, EventType, Guest

ID = "6f0a13a3-dc0d-4bbe-ab24-df710a3917e6"
GUEST = Guest(name="web1", port=7, address="169.254.3.4", availability_set="front")
EVENT = Event(
    id=ID,
    type=EventType.REBOOT,
    source=EventSource.USER,
    description="für alle",
    guests=("web1",),
    created=1.5,
    not_before=900.0,
    duration=60.0,
)
FAULT = Fault(id="0000000a", at=1.5, until=2.5, status=500, methods=("PUT",), used=3, times=5)
LONG = "n" * 63
EVERY_MESSAGE = [
    Hello(version=VERSION, role="responder"),
    Welcome(version=VERSION, node="node1"),
    Place(command_id="c", guests=(GUEST, Guest(name="web2"))),
    Withdraw(command_id="c", names=("web1",)),
    Schedule(command_id="c", event_id=ID, type=EventType.FREEZE, guests=("web1",), notice=0.0),
    Start(command_id="c", event_id=ID),
    Complete(command_id="c", event_id=ID),
    Cancel(command_id="c", event_id=ID),
    Approve(command_id="c", event_id=ID),
    Advance(command_id="c", seconds=600.0),
    Advance(command_id="c", to=600.0),
    Applied(sequence=7),
    ListResponders(),
    Responders(sequence=7, applied=(7, 5)),
    Adopt(
        command_id="c",
        clock_offset=5.0,
        guests=(Placed(guest=GUEST, incarnation=3, edits=1),),
        events=(EVENT,),
        before={"web1": ("0000000a",)},
    ),
    Now(),
    ListEvents(history=True),
    ListGuests(),
    Done(command_id="c", now=3.0, event=EVENT, left={"web1": Left(7, 2, (FAULT,))}),
    Clock(now=4.5, clock_offset=1.5),
    Failed(code="conflict", reason="no"),
    Events(events=(EVENT,), more=True),
    Guests(guests=(Placed(guest=GUEST, incarnation=3),)),
    Snapshot(sequence=4, node="node1", clock_offset=0.5, events=(EVENT,)),
    Delta(sequence=5, withdrawn=("web1",), incarnations={"web2": 9}, forgotten=(ID,)),
    Heartbeat(sequence=5),
    Hello(version=VERSION, role="watcher"),
]


def test_the_longest_answer_to_a_withdrawal_fits_a_frame():
    methods = ("M" * 16,) * 8
    long = replace(FAULT, path="\U0001f600" * 256, methods=methods, truncate=1 << 20, throttle=1e-9)
    left = {f"{LONG[:-4]}{n:04}": Left(1 << 60, 1 << 60, (long,) * MAX_FAULTS)
            for n in range(WITHDRAWN_AT_ONCE)}  # fmt: skip
    (done,) = read(encode(Done(command_id="c" * 64, now=3.0, sequence=1 << 60, left=left)))
    assert done.left == left


def read(data):
    return [decode(obj) for obj in Decoder().feed(data)]


@pytest.mark.parametrize("message", EVERY_MESSAGE, ids=lambda m: type(m).__name__)
def test_every_message_survives_the_wire(message):
    assert read(encode(message)) == [message]


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 60)))
def test_any_chunking_decodes_the_same(cuts):
    stream = b"".join(encode(message) for message in EVERY_MESSAGE)
    decoder = Decoder()
    got = []
    for cut in [*cuts, len(stream)]:
        got += [decode(obj) for obj in decoder.feed(stream[:cut])]
        stream = stream[cut:]
    assert got == EVERY_MESSAGE


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_raises_only_typed_errors(data):
    for candidate in (data, len(data).to_bytes(4, "big") + data):
        try:
            got = read(candidate)
        except (FrameError, MessageError):
            continue
        assert all(message in read(encode(message)) for message in got)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(
    base=st.sampled_from([m for m in EVERY_MESSAGE if m.__struct_fields__]),
    junk=JUNK,
    data=st.data(),
)
def test_a_message_with_one_thing_wrong_is_refused_or_equal(base, junk, data):
    obj = msgpack.unpackb(encode(base)[4:])
    field = data.draw(st.sampled_from([*obj, "surplus"]))
    obj[field] = junk
    try:
        message = decode(obj)
    except MessageError:
        return
    assert field != "surplus"
    assert read(encode(message)) == [message]


def test_errors_say_where():
    with pytest.raises(MessageError, match=r"\$\.guests\[1\]\.port"):
        decode(
            {
                "message": "place",
                "command_id": "c",
                "guests": [{"name": "a"}, {"name": "b", "port": "x"}],
            }
        )
    with pytest.raises(MessageError, match="unknown field `sudo`"):
        decode({"message": "listguests", "sudo": True})
    with pytest.raises(MessageError, match="nonsense"):
        decode({"message": "nonsense"})


@pytest.mark.parametrize(
    "field",
    [
        {"notice": float("nan")},
        {"notice": -1},
        {"notice": float("inf")},
        {"duration": 0},
        {"elsewhere": ["a/b"]},
        {"sets_elsewhere": [""]},
        {"guests": ["a\n"]},
        {"guests": ["../a"]},
        {"guests": ["a" * 64]},
        {"event_id": ID.upper()},
        {"event_id": ID + "\n"},
        {"type": "Meteor"},
        {"description": "x" * 1025},
        {"command_id": ""},
        {"command_id": "x" * 65},
    ],
)
def test_bounds_of_a_schedule(field):
    obj = {
        "message": "schedule",
        "command_id": "c",
        "event_id": ID,
        "type": "Reboot",
        "guests": ["a"],
    }
    decode(dict(obj))
    with pytest.raises(MessageError):
        decode(obj | field)


@pytest.mark.parametrize(
    "address", ["1.2.3", "256.1.1.1", "1.2.3.4\n", "01.2.3.4", "1.2.3.4/8", "::1", "localhost"]
)
def test_addresses_are_addresses(address):
    with pytest.raises(MessageError):
        decode(
            {"message": "place", "command_id": "c", "guests": [{"name": "a", "address": address}]}
        )


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not msgpack"),
        (b"\xc1", "not msgpack"),
        (b"\x81\xa1a", "not msgpack"),
        (b"\x80\x80", "not msgpack"),  # two objects
        (b"\x90", "must hold a map, not list"),
        (b"\x01", "must hold a map, not int"),
        (b"\x81\x01\x02", "not msgpack"),  # a key that is no string
        (b"\x81\xa1\xff\x01", "not msgpack"),  # no UTF-8
        (b"\x81\xa1a" + b"\x91" * MAX_DEPTH + b"\xc0", "deeper"),
        (b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0", "not msgpack"),  # beyond msgpack's own stack
        (b"\xdf\xff\xff\xff\xff", "not msgpack"),  # a map of four thousand million
    ],
)
def test_bad_frames(body, why):
    with pytest.raises(FrameError, match=why):
        list(Decoder().feed(len(body).to_bytes(4, "big") + body))


def test_a_frame_of_just_the_deepest_level_passes():
    obj = {"a": 1}
    for _ in range(MAX_DEPTH - 1):
        obj = {"a": obj}
    assert list(Decoder().feed(pack(obj))) == [obj]


def test_a_length_beyond_the_bound_is_refused_before_it_is_buffered():
    with pytest.raises(FrameError, match="bound"):
        list(Decoder().feed((MAX_FRAME + 1).to_bytes(4, "big")))
    assert list(Decoder().feed(MAX_FRAME.to_bytes(4, "big"))) == []
    with pytest.raises(FrameError, match="exceeds"):
        pack({"a": b"x" * MAX_FRAME})


def test_frames_before_a_bad_one_are_yielded():
    decoder = Decoder().feed(encode(ListGuests()) + b"\xff\xff\xff\xff")
    assert decode(next(decoder)) == ListGuests()
    with pytest.raises(FrameError):
        next(decoder)


def full_node():
    guests = [
        Placed(
            guest=Guest(
                name=f"{i:04}" + LONG[4:],
                port=2**32 - 1 - i,
                address="169.254.255.255",
                update_domain=1023,
                fault_domain=1023,
                availability_set=LONG,
            ),
            incarnation=2**40,
        )
        for i in range(MAX_GUESTS)
    ]
    names = tuple(placed.guest.name for placed in guests)
    events = [
        Event(
            id=f"{i:08x}" + ID[8:],
            type=EventType.TERMINATE,
            source=EventSource.PLATFORM,
            description="ü" * 1024,
            guests=names,
            created=1.7e9 + 0.1,
            not_before=1.7e9 + 0.1,
            availability_sets=(LONG,),
        )
        for i in range(300)
    ]
    return guests, events


def test_the_largest_snapshot_goes_in_parts_far_below_the_bound():
    guests, events = full_node()
    sent = list(snapshot(sequence=9, node="node1", clock_offset=0.0, guests=guests, events=events))
    frames = [encode(part) for part in sent]
    assert max(map(len, frames)) < MAX_FRAME // 2
    got = read(b"".join(frames))
    assert [part.more for part in got] == [True] * (len(got) - 1) + [False]
    assert [g for part in got for g in part.guests] == guests
    assert [e for part in got for e in part.events] == events


def test_the_largest_single_messages_fit():
    guests, events = full_node()
    place = Place(command_id="c" * 64, guests=tuple(placed.guest for placed in guests))
    change = Delta(
        sequence=2**60,
        events=(events[0],),
        incarnations={placed.guest.name: 2**40 for placed in guests},
    )
    for message in (place, change):
        assert len(encode(message)) < MAX_FRAME // 2
        assert read(encode(message)) == [message]


def test_an_empty_list_is_one_part():
    assert list(parts([])) == [()]
    assert [
        part.more for part in snapshot(sequence=0, node="n", clock_offset=0.0, guests=[], events=[])
    ] == [
        True,
        False,
    ]
