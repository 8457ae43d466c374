"""Text and JSON on standard output."""

import json
import math
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, cast

from canister.canister import SessionId
from canister.texts import shown


def print_json(value: Any) -> None:
    """Print a value of the library as one line of JSON."""
    with _all_digits():
        print(json.dumps(to_json(value)))


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns under their heads."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and what they are, one a line, aligned."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, text in pairs:
        print(f"{name.ljust(width)}  {text}")


def show_value(value: object) -> str:
    """Return a value as Python writes it."""
    with _all_digits():
        return repr(value)


def show_id(session: SessionId) -> str:
    """Return a session id on one line; one of bytes as it is given on the command line."""
    return shown(session) if isinstance(session, str) else f"--bytes-id {session.hex()}"


def show_time(moment: datetime | None) -> str:
    """Return a time in UTC to the millisecond, ``-`` for none."""
    return "-" if moment is None else utc(moment, "milliseconds")


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 peer`` and ``2 peers``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def utc(moment: datetime, precision: str = "auto") -> str:
    """Return a time in UTC as ISO text."""
    return moment.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def to_json(value: Any) -> Any:
    """Return a value in what JSON has; other types become ``{"type": ..., "value": ...}``."""
    kind = cast("type[object]", type(value))
    if kind in _PLAIN or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return _items(value)
    if kind is dict and _is_object(value):
        return {key: to_json(item) for key, item in value.items()}
    return {"type": kind.__name__, "value": _PAYLOADS.get(kind, str)(value)}


def _is_object(value: dict[Any, Any]) -> bool:
    """Tell whether a dict can be a JSON object, and is not taken for one of ours."""
    return all(type(key) is str for key in value) and value.keys() != {"type", "value"}


def _items(values: Iterable[Any]) -> list[Any]:
    return [to_json(item) for item in values]


def _sorted_items(values: Iterable[Any]) -> list[Any]:
    return sorted(_items(values), key=json.dumps)


def _pairs(value: dict[Any, Any]) -> list[list[Any]]:
    return [[to_json(key), to_json(item)] for key, item in value.items()]


_PLAIN = frozenset((type(None), bool, int, str))
_PAYLOADS: dict[type, Callable[[Any], Any]] = {
    bytes: bytes.hex,
    tuple: _items,
    set: _sorted_items,  # so that equal sets print alike
    frozenset: _sorted_items,
    dict: _pairs,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: lambda value: str(value.total_seconds()),
}


@contextmanager
def _all_digits() -> Generator[None]:
    """Let Python print integers of any length."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)
