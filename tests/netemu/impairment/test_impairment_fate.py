"""What happens to each frame, and when: against the terms, with no clock and no socket."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netemu.impairment import trace
from netemu.impairment.fate import Departure, Fate
from netemu.impairment.terms import Terms
from netemu.impairment.trace import Playing

FRAMES = 10_000


def fates(terms: Terms, *, seed: int = 1, name: str = "web1/to") -> list[list[Departure]]:
    fate = Fate(seed, name, terms)
    return [fate.offer(100, n / 2000) for n in range(FRAMES)]


def test_a_clean_wire_changes_nothing() -> None:
    assert fates(Terms(limit=FRAMES)) == [[Departure(n / 2000, -1)] for n in range(FRAMES)]


def test_5_percent_loss_of_10_000_frames_from_a_fixed_seed() -> None:
    """σ is 0.22 %: the seed makes it exact, and the same every time."""
    terms = Terms(loss=0.05, limit=FRAMES)
    lost = [n for n, one in enumerate(fates(terms)) if not one]
    assert lost == [n for n, one in enumerate(fates(terms)) if not one]
    assert 0.047 < len(lost) / FRAMES < 0.053
    assert lost != [n for n, one in enumerate(fates(terms, seed=2)) if not one]
    assert lost != [n for n, one in enumerate(fates(terms, name="web1/from")) if not one]


def test_to_change_other_terms_does_not_change_which_frames_are_lost() -> None:
    plain = [bool(one) for one in fates(Terms(loss=0.3, limit=FRAMES))]
    more = Terms(
        loss=0.3, delay=0.05, jitter=0.01, duplicate=0.1, reorder=0.1, corrupt=0.1, limit=2 * FRAMES
    )
    assert plain == [bool(one) for one in fates(more)]


@pytest.mark.parametrize("term", ["duplicate", "corrupt", "reorder"])
def test_shares_are_as_they_are_said(term: str) -> None:
    fate = Fate(7, "x", Terms(delay=0.01, limit=2 * FRAMES, **{term: 0.02}))
    for n in range(FRAMES):
        fate.offer(100, n / 2000)
    counted = {"duplicate": fate.counts.duplicated, "corrupt": fate.counts.corrupted,
               "reorder": fate.counts.reordered}  # fmt: skip
    assert 0.015 < counted.pop(term) / FRAMES < 0.025
    assert list(counted.values()) == [0, 0]


def test_a_gilbert_elliott_wire_loses_in_bursts() -> None:
    lost = [not one for one in fates(Terms(gemodel=(0.01, 0.25, 1.0, 0.0), limit=FRAMES))]
    # The share of time in the bad state: p / (p + r).
    assert 0.02 < sum(lost) / FRAMES < 0.06
    bursts = sum(1 for before, one in pairwise(lost) if one and not before)
    assert 3 < sum(lost) / bursts < 5  # 1 / r


@given(
    delay=st.floats(0, 1), share=st.floats(0, 1), seed=st.integers(0, 9),
    normal=st.booleans(), ordered=st.booleans(),
)  # fmt: skip
def test_jitter_stays_within_its_bounds_and_never_before_the_frame(
    delay: float, share: float, seed: int, normal: bool, ordered: bool
) -> None:
    jitter = delay * share
    fate = Fate(
        seed,
        "x",
        Terms(
            delay=delay,
            jitter=jitter,
            ordered=ordered,
            distribution="normal" if normal else "uniform",
        ),
    )
    dues = [one.due for n in range(100) for one in fate.offer(100, n / 100)]
    assert all(due >= n / 100 for n, due in enumerate(dues))
    if not normal and not ordered:
        assert all(abs(due - n / 100 - delay) <= jitter + 1e-9 for n, due in enumerate(dues))
    if ordered:
        assert dues == sorted(dues)


def test_a_rate_sends_one_frame_after_another() -> None:
    fate = Fate(1, "x", Terms(rate=1e6))
    dues = [fate.offer(1250, 0.0)[0].due for _ in range(5)]  # 10 ms each
    assert dues == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert fate.offer(1250, 1.0)[0].due == pytest.approx(1.01)  # nothing is saved up


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_the_queue_is_never_longer_than_its_limit(steps: list[bool], limit: int) -> None:
    fate, waiting = Fate(1, "x", Terms(delay=1.0, duplicate=0.5, limit=limit)), 0
    for leave in steps:
        waiting += len(fate.offer(100, 0.0))
        if leave and waiting:
            fate.left()
            waiting -= 1
        assert fate.queued == waiting <= limit


def test_a_burst_takes_the_room_of_as_many_frames_as_it_is_long() -> None:
    """Else a guest's root could have the relay keep 64 KiB a frame."""
    fate = Fate(1, "x", Terms(delay=1.0, limit=50))
    (departure,) = fate.offer(64_000, 0.0)
    assert departure.room == fate.queued == 43
    assert fate.offer(64_000, 0.0) == []
    fate.left(departure.room)
    assert fate.queued == 0


def test_a_blackhole_and_a_wire_that_is_down_pass_nothing() -> None:
    for terms in (Terms(blackhole=True), Terms(down=True)):
        fate = Fate(1, "x", terms)
        assert fate.offer(100, 0.0) == []
        assert fate.counts.blackholed == 1
        fate.change(Terms(), {}, 1.0)
        assert fate.offer(100, 1.0) == [Departure(1.0, -1)]


@given(st.integers(1, 70_000), st.integers(0, 200))
def test_the_flipped_bit_is_within_the_frame(length: int, seed: int) -> None:
    (departure,) = Fate(seed, "x", Terms(corrupt=1.0)).offer(length, 0.0)
    assert 0 <= departure.flip < length * 8


# Traces.


def test_a_trace_delivers_1500_bytes_at_each_of_its_times_and_begins_again() -> None:
    playing = Playing(trace.read("1\n3\n3\n10\n"), 100.0)
    dues = [round(playing.departure(1500, 100.0) - 100.0, 6) for _ in range(6)]
    assert dues == [0.001, 0.003, 0.003, 0.010, 0.011, 0.013]


def test_small_frames_share_an_opportunity_and_what_is_not_used_is_lost() -> None:
    playing = Playing(trace.read("10\n20\n30\n"), 0.0)
    assert [playing.departure(750, 0.0) for _ in range(3)] == pytest.approx([0.01, 0.01, 0.02])
    assert playing.departure(100, 0.025) == pytest.approx(0.03)
    assert playing.departure(3000, 0.035) == pytest.approx(0.05)


@given(
    times=st.lists(st.integers(0, 50), min_size=1, max_size=20).map(sorted),
    offers=st.lists(st.tuples(st.integers(1, 9000), st.floats(0, 0.2)), max_size=30),
)
def test_a_trace_never_delivers_early_out_of_order_or_too_much(
    times: list[int], offers: list[tuple[int, float]]
) -> None:
    times[-1] += 1
    playing, now, dues, total = Playing(array("I", times), 0.0), 0.0, [0.0], 0
    for length, pause in offers:
        now += pause
        dues.append(playing.departure(length, now))
        total += length
        assert dues[-1] >= now
        assert dues[-1] >= dues[-2]
    opportunities = (dues[-1] * 1000 / times[-1] + 1) * len(times)
    assert total <= (opportunities + len(times)) * trace.BYTES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a time after 0"), ("0\n0\n", "a time after 0"), ("1\nx\n", "line 2: 'x'"),
        ("5\n4\n", "line 2: 4 is before 5"), ("-1\n", "line 1"), ("9" * 30, "49 days"),
        ("²", "line 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_trace_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trace.read(text)


@given(st.text())
def test_any_text_is_a_trace_or_is_refused(text: str) -> None:
    try:
        assert trace.read(text)[-1] > 0
    except ValueError:
        pass
