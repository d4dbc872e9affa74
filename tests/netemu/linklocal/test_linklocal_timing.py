import pytest
from msgspec.structs import asdict

from netemu.linklocal.timing import Timing

DURATIONS = {
    "probe_wait": 1.0,
    "probe_min": 1.0,
    "probe_max": 2.0,
    "announce_wait": 2.0,
    "announce_interval": 2.0,
    "rate_limit_interval": 60.0,
    "defend_interval": 10.0,
}
COUNTS = {"probe_num": 3, "announce_num": 2, "max_conflicts": 10}


def test_the_constants_are_those_of_section_9() -> None:
    assert asdict(Timing()) == DURATIONS | COUNTS


def test_one_multiplier_scales_every_duration_and_no_count() -> None:
    timing = Timing().scaled(0.25)
    for name, duration in DURATIONS.items():
        assert getattr(timing, name) == duration * 0.25
    for name, count in COUNTS.items():
        assert getattr(timing, name) == count
    assert timing.scaled(4) == Timing()


@pytest.mark.parametrize("x", [0, -1, float("nan")])
def test_time_does_not_stand_still_nor_run_backwards(x: float) -> None:
    with pytest.raises(ValueError, match="not above zero"):
        Timing().scaled(x)


def test_it_is_a_constant() -> None:
    with pytest.raises(AttributeError):
        Timing().probe_num = 1  # type: ignore[misc]
