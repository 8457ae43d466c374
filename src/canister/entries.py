"""Entries: values under a key with an end of their own, for caches, rate limits and the like.

An entry is a record of one cell beside the sessions: it replicates, merges and ends by the same rules,
and shows in no list of sessions. What is set anew is born anew, so an entry may be kept up for ever; a
session's birth must not be moved, because a destroyed one could come back. Entries are never destroyed:
their keys are used again, so they are cleared.
"""

from datetime import timedelta
from typing import NamedTuple

from canister.clock import micros
from canister.codec import decode_value, encode_value, key_slot
from canister.edits import LONGEST, Moment
from canister.errors import TooLargeError
from canister.life import is_live
from canister.record import Birth, Cell, Expiry, Record, Slot, Touch

_VALUE = key_slot("value")


class Entry(NamedTuple):
    """A live entry.

    Attributes:
        value: what was set.
        until: the instant at which it ends, in microseconds since 1970; None if none was set.
    """

    value: bytes
    until: int | None


def read(record: Record | None, now: int) -> Entry | None:
    """Return the entry that a record holds at *now*, None if it holds none."""
    cell = record.cells.get(_VALUE) if record is not None and is_live(record, now) else None
    if record is None or cell is None or cell.value is None:
        return None
    return Entry(decode_value(cell.value), record.expiry.until if record.expiry is not None else None)


def put(moment: Moment, value: bytes, lifetime: timedelta | None, grace: int, most: int) -> Record:
    """Set an entry.

    Args:
        moment: version and time of the commit.
        value: what to keep.
        lifetime: how long; None or more than 400 days: for 400 days.
        grace: for how many microseconds it is kept after its end.
        most: the greatest size of a value.

    Raises:
        TooLargeError: *value* has more than *most* bytes.
    """
    if len(value) > most:
        raise TooLargeError(f"the entry has {len(value)} bytes, max_value is {most}; nothing was written")
    cell = Cell(moment.version, encode_value(value))
    return _lasting(moment, lifetime, grace, {_VALUE: cell})


def renew(record: Record | None, moment: Moment, lifetime: timedelta, grace: int) -> Record | None:
    """Let a live entry that has an end last for *lifetime* from now on; None if it is none."""
    entry = read(record, moment.now)
    return None if entry is None or entry.until is None else _lasting(moment, lifetime, grace, {})


def drop(record: Record | None, moment: Moment) -> Record | None:
    """Remove an entry, and hide what was set before and has not arrived yet.

    None where there is nothing: what is not here at all may be set elsewhere, and stays.
    """
    if record is None or record.birth is None or read(record, moment.now) is None:
        return None
    kept = timedelta(microseconds=record.birth.absolute)
    return _lasting(moment, kept, record.birth.grace, {}, clear=True)


def _lasting(
    moment: Moment, lifetime: timedelta | None, grace: int, cells: dict[Slot, Cell], *, clear: bool = False
) -> Record:
    version, now = moment.version, moment.now
    span = LONGEST if lifetime is None else min(max(micros(lifetime), 1), LONGEST)
    return Record(
        birth=Birth(version, now, span, span, 0, grace),
        expiry=Expiry(version, None, 0, None if lifetime is None else now + span),
        reach=span,
        touch=Touch(version, now),
        clear=version if clear else None,
        cells=cells,
    )
