"""What callers of the library are shown of a session."""

from datetime import datetime
from typing import Any, NamedTuple

from canister.clock import to_datetime
from canister.codec import FIXED, decode_value, slot_key
from canister.life import Status, accessed, deadline, status, updated
from canister.record import KEY, Record, Slot, decode_record, stamp_of
from canister.store.base import Stored

_KEY = KEY[0]


class SessionInfo(NamedTuple):
    """A live session's data and times (aware UTC datetimes)."""

    data: dict[Any, Any]
    created: datetime
    accessed: datetime
    updated: datetime | None
    cleared: datetime | None
    """When it was last cleared, or begun afresh after it had expired; None if never."""
    ends: datetime
    """When it ends unless it is accessed again before."""


class RecordStatus(NamedTuple):
    """What this node holds of an id: its status and the times it knows (aware UTC datetimes)."""

    status: Status
    created: datetime | None
    accessed: datetime | None
    updated: datetime | None
    deleted: datetime | None
    """When it was destroyed; for one that is `Status.CLEARED` when that was."""


def value_of(record: Record | None, slot: Slot, default: Any) -> Any:
    """Return the value in a slot, or *default* if the session or the value is not there."""
    cell = record.cells.get(slot) if record else None
    return default if cell is None or cell.value is None else decode_value(cell.value)


def data_of(stored: Stored) -> dict[Any, Any]:
    """Return all keys of the application and their values; the caller may change them."""
    values = stored.values
    if values is None:
        encoded = stored.encoded
        record = stored.decoded if encoded is None else decode_record(encoded)
        if record is None:
            return {}
        values = dict[Any, Any]()
        are_fixed = True
        for slot, cell in record.cells.items():
            if slot[0] == _KEY and cell.value is not None:
                values[slot_key(slot)] = value = decode_value(cell.value)
                are_fixed = are_fixed and type(value) in FIXED
        if not are_fixed:  # else it is they that are asked for again, not the record
            stored.keep_decoded(record)
            return values
        stored.values = values
    return values.copy()


def datetime_of(at: int) -> datetime | None:
    """Return an instant as a datetime, None for 0."""
    return to_datetime(at) if at else None


def info_of(stored: Stored) -> SessionInfo | None:
    """Return data and times of a live session, None if there is none."""
    record = stored.record
    if record is None or record.birth is None:
        return None
    return SessionInfo(
        data=data_of(stored),
        created=to_datetime(record.birth.born),
        accessed=to_datetime(accessed(record)),
        updated=datetime_of(updated(record)),
        cleared=datetime_of(stamp_of(record.clear)) if record.clear else None,
        ends=to_datetime(deadline(record)),
    )


def status_of(record: Record | None, now: int) -> RecordStatus:
    """Return the status of an id at *now*, and its times."""
    kind = status(record, now)
    if record is None or kind is Status.UNKNOWN:
        return RecordStatus(Status.UNKNOWN, None, None, None, None)
    deleted = None
    if record.destroy is not None:
        deleted = to_datetime(stamp_of(record.destroy.version))
    elif kind is Status.CLEARED and record.clear is not None:
        deleted = to_datetime(stamp_of(record.clear))
    created = to_datetime(record.birth.born) if record.birth else None
    return RecordStatus(kind, created, datetime_of(accessed(record)), datetime_of(updated(record)), deleted)
