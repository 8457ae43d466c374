"""What each verb writes: pure functions from a session and an instant to the commit's record.

An edit takes the stored record (None when there is none), the commit's version and the wall clock, and
returns the part to merge, or None to write nothing. The store runs it again where the session has changed
before the commit is written, so that an edit decides on what it will really be merged with.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from canister.clock import DAY, instant, micros
from canister.config import Policy, parse_duration
from canister.errors import ConfigError, InputError, SessionDestroyedError, SessionEndedError
from canister.life import deadline, hard_end, interval_of, is_touch_due, retention
from canister.record import META, Birth, Cell, Destroy, Expiry, Record, Slot, Touch, Version, stamp_of

LONGEST = 400 * DAY
"""The longest absolute lifetime any node may have configured."""

REVOKED = Slot(META + b"revoked")
"""Where a user's record says when the user's sessions were ended all at once."""

Writes = Mapping[Slot, bytes | None]
"""Encoded values by slot; None removes."""


class Moment(msgspec.Struct, frozen=True, gc=False):
    """When an edit happens: its version and the wall clock in microseconds."""

    version: Version
    now: int


class Times(NamedTuple):
    """A session's own times in microseconds; None is the default."""

    idle: int | None
    until: int | None

    def beyond(self, absolute: int, end: int) -> str:
        """Return what to say where they pass a session's absolute lifetime and end; "" where they do not."""
        if self.until is not None and self.until > end:
            return "until is past the session's absolute lifetime, which was fixed at its creation"
        if self.idle is not None and self.idle > absolute:
            return "idle is longer than the session's absolute lifetime, fixed at its creation"
        return ""


def own_times(idle: timedelta | str | None, until: datetime | None) -> Times:
    """Return a session's own times as given by an application.

    Raises:
        InputError: *idle* is not more than zero, or *until* has no time zone.
    """
    try:
        span = None if idle is None else micros(parse_duration(idle, "idle"))
    except ConfigError as error:
        raise InputError(str(error)) from error
    if span is not None and span <= 0:
        raise InputError(f"idle must be more than zero, not {idle}")
    return Times(span, None if until is None else aware_instant(until, "until"))


def aware_instant(moment: object, name: str) -> int:
    """Return the instant of a datetime that an application gave.

    Raises:
        InputError: it has no time zone.
    """
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InputError(f"{name} must be an aware datetime such as datetime.now(UTC), not {moment!r}")
    return instant(moment)


def write(
    record: Record | None, moment: Moment, policy: Policy, writes: Writes, *, clear: bool = False
) -> Record:
    """Store or remove keys, creating the session or starting it afresh where it is over.

    Args:
        record: what is stored.
        moment: version and time of the commit.
        policy: the times a new session is born with.
        writes: the keys.
        clear: also hide everything written before.

    Raises:
        SessionDestroyedError: the id was destroyed.
        SessionEndedError: the session is past its absolute lifetime.
    """
    version, now = moment.version, moment.now
    cells: dict[Slot, Cell] = {}
    for slot in sorted(writes):
        cells[slot] = Cell(version, writes[slot])
    if record is not None and deadline(record) > now:
        touch = _due_touch(record, moment, interval_of(record))
        return Record(touch=touch, clear=version if clear else None, cells=cells)
    if record is None or retention(record) <= now:
        # A leftover that nobody swept yet is hidden like everything else of the former life.
        return _newborn(moment, policy, cells, clear=clear or record is not None)
    if record.destroy is not None:
        raise SessionDestroyedError("the session was destroyed, its id cannot be used again; make a new one")
    if clear and not cells:
        # Nobody sees the session, but a later touch from behind a split may bring it back.
        return Record(clear=version)
    return _afresh(record, moment, policy, cells)


def touch(record: Record | None, moment: Moment, when: int) -> Record | None:
    """Record an access at *when*, if the session is live and the touch interval has passed."""
    if record is None or deadline(record) <= moment.now or not is_touch_due(record, when):
        return None
    return Record(touch=Touch(moment.version, when))


def destroy(record: Record | None, moment: Moment, policy: Policy, *, followed: bool = False) -> Record:
    """Write a tombstone that outlives every copy of the session there could be.

    Args:
        record: the session.
        moment: the instant and the version of the commit.
        policy: the node's times.
        followed: whether the commit also creates the session that its client goes on with.
    """
    if record is not None and record.destroy is not None:
        return Record(destroy=Destroy(moment.version, record.destroy.keep, followed))
    if record is None or record.birth is None or retention(record) <= moment.now:
        keep = stamp_of(moment.version) + LONGEST + policy.grace + policy.drift
    else:
        keep = hard_end(record) + record.birth.grace + 2 * policy.drift
    return Record(destroy=Destroy(moment.version, keep, followed))


def set_expiry(
    record: Record | None, moment: Moment, policy: Policy, idle: int | None, until: int | None
) -> Record | None:
    """Give a live session times of its own; None is the session's default. None if it is not live.

    Raises:
        SessionEndedError: they would pass the session's absolute lifetime.
    """
    if record is None or record.birth is None or deadline(record) <= moment.now:
        return None
    too_long = Times(idle, until).beyond(record.birth.absolute, hard_end(record))
    if too_long:
        raise SessionEndedError(too_long)
    interval = record.birth.interval if idle is None else policy.interval_for(idle)
    reach = (record.birth.idle if idle is None else idle) + interval
    return Record(
        expiry=Expiry(moment.version, idle, interval, until),
        reach=reach,
        # Where the interval gets shorter, the last access that was recorded may be so old that the session
        # would be over by its new times.
        touch=_due_touch(record, moment, min(interval, interval_of(record))),
    )


def revoke(record: Record | None, moment: Moment, policy: Policy) -> Record:
    """Mark in a user's record that the user's sessions of before are over.

    The mark outlives every session it covers: those of other nodes may be born up to a drift later.
    """
    version, now = moment.version, moment.now
    return Record(
        birth=Birth(version, now, LONGEST, LONGEST, 0, policy.grace + 2 * policy.drift),
        reach=LONGEST,
        touch=Touch(version, now),
        cells={REVOKED: Cell(version, b"")},
    )


def _newborn(moment: Moment, policy: Policy, cells: dict[Slot, Cell], *, clear: bool) -> Record:
    version, now = moment.version, moment.now
    return Record(
        birth=Birth(version, now, policy.absolute, policy.idle, policy.interval, policy.grace),
        # With a clear there may be leftovers of a former life: an `until`, or a birth with other times.
        expiry=Expiry(version, policy.idle, policy.interval, None) if clear else None,
        reach=policy.idle + policy.interval,
        touch=Touch(version, now),
        clear=version if clear else None,
        cells=cells,
    )


def _afresh(record: Record, moment: Moment, policy: Policy, cells: dict[Slot, Cell]) -> Record:
    version, now = moment.version, moment.now
    if hard_end(record) <= now:
        raise SessionEndedError("the session is past its absolute lifetime; go on with a new id")
    return Record(
        expiry=Expiry(version, policy.idle, policy.interval, None),
        reach=policy.idle + policy.interval,
        touch=Touch(version, now),
        clear=version,
        cells=cells,
    )


def _due_touch(record: Record, moment: Moment, interval: int) -> Touch | None:
    touch = record.touch
    if touch is not None and moment.now < touch.access + interval:
        return None
    return Touch(moment.version, moment.now)
