"""When a session ends and when its data may go: pure functions of replicated facts and an instant.

Every node computes the same answers from the same record; nothing here depends on sweeping. All
instants are microseconds since 1970 UTC.
"""

from enum import StrEnum

from canister.record import COUNTER, KEY, Record, stamp_of

NEVER = 2**62
"""An instant after all others."""

_DATA = (KEY[0], COUNTER[0])


class Status(StrEnum):
    """What a session is at an instant.

    `CLEARED` is one that lives and is empty: it was cleared, or begun afresh after it had expired, and
    holds no key now.
    """

    UNKNOWN = "unknown"
    LIVE = "live"
    EXPIRED = "expired"
    CLEARED = "cleared"
    DESTROYED = "destroyed"


def hard_end(record: Record) -> int:
    """Return the end that nothing can move: creation plus absolute lifetime. 0 without a birth."""
    birth = record.birth
    return birth.born + birth.absolute if birth else 0


def interval_of(record: Record) -> int:
    """Return the touch interval in force, in microseconds."""
    if record.expiry is not None and record.expiry.idle is not None:
        return record.expiry.interval
    return record.birth.interval if record.birth else 0


def accessed(record: Record) -> int:
    """Return the last recorded access."""
    return record.touch.access if record.touch else 0


def due(record: Record) -> int:
    """Return the instant from which an access is to be recorded: the touch interval has passed then."""
    return accessed(record) + max(1, interval_of(record))


def is_touch_due(record: Record | None, when: int) -> bool:
    """Tell whether an access at *when* is to be recorded."""
    return record is not None and when >= due(record)


def idle_from(record: Record, span: int) -> int:
    """Return the instant from which nobody has surely accessed the session for *span* microseconds."""
    return accessed(record) + span + interval_of(record)


def deadline(record: Record) -> int:
    """Return the instant at which readers see the session end. 0 for a destroyed or unborn one."""
    birth, expiry, touch = record.birth, record.expiry, record.touch
    if record.destroy is not None or birth is None:
        return 0
    # Every write asks this: the terms are spelled out rather than called.
    if expiry is not None and expiry.idle is not None:
        span = expiry.idle + expiry.interval
    else:
        span = birth.idle + birth.interval
    end = (touch.access if touch is not None else 0) + span
    last = birth.born + birth.absolute
    if last < end:
        end = last
    return end if expiry is None or expiry.until is None or expiry.until > end else expiry.until


def retention(record: Record) -> int:
    """Return the instant from which the record's data may be dropped.

    What shortens a session (a smaller idle timeout, an ``until``) does not count: merging never
    lowers the retention, so an older copy of a dropped session is past its retention as well.
    """
    if record.destroy is not None:
        return record.destroy.keep
    birth, touch = record.birth, record.touch
    if birth is None:
        return 0
    end = (touch.access if touch is not None else 0) + record.reach
    last = birth.born + birth.absolute
    return (end if end < last else last) + birth.grace


def last_retention(record: Record, drift: int) -> int:
    """Return the instant at which the record goes whether or not all members have reconciled.

    By then the session is over on every node, however late a touch may still arrive. *drift* is
    the greatest clock difference between members, in microseconds.
    """
    if record.destroy is not None:
        return record.destroy.keep
    grace = record.birth.grace if record.birth else 0
    return hard_end(record) + grace + 2 * drift


def has_keys(record: Record) -> bool:
    """Tell whether any key or counter of the application has a value."""
    return any(slot[0] in _DATA and cell.value is not None for slot, cell in record.cells.items())


def updated(record: Record) -> int:
    """Return when a key or counter was last written, removed or cleared; 0 if never."""
    stamps = [stamp_of(cell.version) for slot, cell in record.cells.items() if slot[0] in _DATA]
    if record.clear is not None:
        stamps.append(stamp_of(record.clear))
    return max(stamps, default=0)


def status(record: Record | None, now: int) -> Status:
    """Return what the session is at *now*."""
    if record is None or retention(record) <= now:
        return Status.UNKNOWN
    if record.destroy is not None:
        return Status.DESTROYED
    if deadline(record) <= now:
        return Status.EXPIRED
    if record.clear is not None and not has_keys(record):
        return Status.CLEARED
    return Status.LIVE


def is_live(record: Record | None, now: int) -> bool:
    """Tell whether readers see the session at *now*."""
    return record is not None and deadline(record) > now
