from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canister.clock import SystemClock, instant, micros, next_stamp, to_datetime
from canister.testing.clock import ManualClock


@pytest.mark.parametrize(
    ("last", "now", "stamp"),
    [(0, 100, 100), (99, 100, 100), (100, 100, 101), (100, 99, 101), (10**15, 5, 10**15 + 1)],
)
def test_next_stamp(last: int, now: int, stamp: int) -> None:
    """A stamp is the wall time where that moves forward, and one more than the last where not."""
    assert next_stamp(last, now) == stamp


@given(st.lists(st.integers(0, 100)))
def test_stamps_strictly_increase(walls: list[int]) -> None:
    """Whatever the wall clock does, each stamp is greater than the one before and not behind it."""
    last = 0
    for wall in walls:
        stamp = next_stamp(last, wall)
        assert stamp > last
        assert stamp >= wall
        last = stamp


def test_system_clock_is_the_wall_clock() -> None:
    """The system clock counts microseconds since 1970 UTC."""
    before = datetime.now(UTC)
    now = to_datetime(SystemClock().now())
    after = datetime.now(UTC)
    assert before <= now <= after


@pytest.mark.parametrize(
    ("duration", "count"),
    [
        (timedelta(0), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(minutes=20), 1_200_000_000),
        (timedelta(microseconds=-1), -1),
        (timedelta.max, 86399999999999999999),
    ],
)
def test_micros(duration: timedelta, count: int) -> None:
    """A duration becomes whole microseconds, exactly, however long it is."""
    assert micros(duration) == count


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-11, minutes=-30))])))
def test_instants_round_trip(moment: datetime) -> None:
    """An aware datetime of any zone comes back as the same instant in UTC."""
    try:
        again = to_datetime(instant(moment))
    except OverflowError:
        assert moment.astimezone(timezone(timedelta(hours=-11, minutes=-30))).year in (1, 9999)
        return
    assert again == moment
    assert again.tzinfo is UTC


def test_instant_of_1970() -> None:
    """The count of microseconds begins with 1970 UTC, whatever the zone of the datetime."""
    assert instant(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert instant(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    assert instant(datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)) == -1


def test_naive_datetimes_are_refused() -> None:
    """A datetime without a zone names no instant."""
    with pytest.raises(ValueError, match=r"datetime\.datetime\(2026, 1, 1, 0, 0\) has no time zone"):
        instant(datetime(2026, 1, 1))


def test_manual_clock() -> None:
    """The test kit's clock stands still until it is set or advanced, by any kind of duration."""
    clock = ManualClock(1_000)
    assert (clock.now(), clock.now()) == (1_000, 1_000)
    assert clock.advance(timedelta(seconds=1)) == clock.now() == 1_001_000
    assert clock.advance(-1_000) == clock.now() == 1_000_000
    clock.set(5)
    assert clock.now() == 5
