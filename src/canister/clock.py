"""Time: the clock by which facts are stamped, and the one by which the replication counts intervals.

A node reads the wall clock nowhere else for what it stores or sends. (Sessions on servers go by the clock of
the servers: `canister.store.redis.clock`.) Time-outs and pauses within one process are measured where they
are, by clocks that nobody sets.

Inside Canister an instant is an ``int`` of microseconds since 1970 UTC and a duration an ``int`` of
microseconds; datetimes exist only at the public edge.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

SECOND = 1_000_000
DAY = 86_400 * SECOND

Steady = Callable[[], int]
"""Returns microseconds since some instant, by a clock that nobody sets: for intervals."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STEADY: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On Linux only this one counts the time for which the machine was suspended."""


class Clock(Protocol):
    """Source of wall-clock time."""

    def now(self) -> int:
        """Return the wall-clock time in microseconds since 1970 UTC."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        """Return the wall-clock time in microseconds since 1970 UTC."""
        return time.time_ns() // 1000


def steady() -> int:
    """Return microseconds since some instant, by a clock of the machine that nobody sets."""
    return time.clock_gettime_ns(_STEADY) // 1000


def next_stamp(last: int, now: int) -> int:
    """Return the stamp after *last*: wall time where it moves forward, one more where it does not.

    This is the hybrid logical clock of Kulkarni et al., "Logical Physical Clocks" (2014), with
    the logical part folded into the microseconds, so that a stamp is one integer.
    """
    return now if now > last else last + 1


def micros(duration: timedelta) -> int:
    """Return *duration* in whole microseconds."""
    return duration // _MICROSECOND


def instant(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 UTC.

    Raises:
        ValueError: *moment* is naive.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone; pass an aware datetime such as datetime.now(UTC)")
    return (moment - _EPOCH) // _MICROSECOND


def to_datetime(at: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=at)
