"""How large a value and a session may be."""

from canister.errors import TooLargeError
from canister.record import COUNTER, EMPTY, KEY, Record, encode_record, merge


def check_value(data: bytes, key: object, most: int | None) -> bytes:
    """Return the encoded value of *key*.

    Raises:
        TooLargeError: it has more than *most* bytes.
    """
    if most is not None and len(data) > most:
        raise TooLargeError(
            f"the value of key {key!r} has {len(data)} bytes, max_value is {most}; nothing was written"
        )
    return data


def check_size(encoded: bytes, before: Record | None, delta: Record, most: int) -> None:
    """Refuse a commit that makes a session too large by what an application stores in it.

    A merge may have made it too large, or a setting that was lowered: it can be used then, made smaller, and
    ended. What the library adds by itself, such as a new secret, is never refused.

    Args:
        encoded: the session with the commit merged in.
        before: the session without it, if there was one.
        delta: the commit.
        most: the greatest size in bytes.

    Raises:
        TooLargeError: nothing may be written.
    """
    if len(encoded) <= most or not (delta.birth or _of_application(delta).cells):
        return
    if before is not None:
        own, whole = _of_application(before), _of_application(merge(before, delta))
        if len(encode_record(whole)) < len(encode_record(own)):
            return
    cells = merge(before or EMPTY, delta).cells
    removed = sum(slot[:1] == KEY and cell.value is None for slot, cell in cells.items())
    left = f"with what {removed} removed keys leave behind, " if removed else ""
    raise TooLargeError(
        f"the session would have {len(encoded)} bytes, {left}max_session is {most}; nothing was written"
    )


def _of_application(record: Record) -> Record:
    """Return the keys and counters of a session."""
    return Record(cells={slot: cell for slot, cell in record.cells.items() if slot[:1] in (KEY, COUNTER)})
