"""Values, keys and ids to bytes and back, equal and of the same type.

The encoding is MessagePack. What MessagePack cannot tell apart (a tuple from a list, a set, an integer
past 64 bits, the types of `datetime`, ``Decimal``, ``UUID``) becomes an extension whose payload is
encoded by the same rules. There is no way to name a class, so decoding can build nothing else.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import Any, cast
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from canister.errors import InputError, InvalidIdError, InvalidKeyError, InvalidValueError, StoreError
from canister.record import KEY, Slot
from canister.zones import read_zone, zone_name

_TEXT_ID, _BYTES_ID, _HEX_ID = b"s", b"b", b"h"
_USER_RECORD = b"u"
_ENTRY = b"e"
"""What the encoded ids begin with: of sessions, of users' records and of entries."""
_HEX_DIGITS = 32
"""What most libraries draw as a session's id: as bytes it takes half the room, in rows, log and messages."""

MAX_ID_BYTES = 512
_DIGEST_BYTES = 32
MAX_KEY_BYTES = 1024
MAX_DEPTH = 64
"""How deep a value may nest; decoding then stays far from the recursion limit."""

_TUPLE, _SET, _FROZENSET, _PAIRS, _INT, _TEXT, _DATETIME, _DATE, _TIME, _DELTA, _DECIMAL, _UUID = range(1, 13)

FIXED = frozenset((str, int, float, bool, bytes, type(None)))
"""Types whose values do not change in place."""
_PLAIN = FIXED - {str, int}
_BASES = ((str, str.__str__), (int, int.__int__), (list, list), (dict, dict))

_encoder = msgspec.msgpack.Encoder()
_encode = _encoder.encode


def encode_value(value: object, key: object = None, *, as_base: bool = False) -> bytes:
    """Return *value* as bytes.

    Args:
        value: what to store.
        key: the key it is stored under, named in errors.
        as_base: store subclasses of ``str``, ``int``, ``list`` and ``dict`` as their base type.

    Raises:
        InvalidValueError: *value* holds a type that cannot be stored; the message names the key,
            the place and the type.
    """
    if (type(value) is str and value.isascii()) or type(value) in _PLAIN:
        return _encode(value)
    return _encode(_Wrapper(key, as_base).wrap(value, 0, ""))


def decode_value(data: bytes) -> Any:
    """Return the value that `encode_value` wrote.

    Raises:
        StoreError: *data* is not an encoded value.
    """
    try:
        return _decoder.decode(data)
    except (
        msgspec.DecodeError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        RecursionError,
        OSError,  # of a time zone's name that is a directory, or too long for a file
    ) as error:
        raise StoreError(f"not an encoded value: {error}") from error


def encode_id(session: str | bytes) -> bytes:
    """Return a session id as bytes; a ``str`` and a ``bytes`` id are never the same.

    Raises:
        InvalidIdError: not a ``str`` or ``bytes``, empty, or more than 512 bytes long.
    """
    if type(session) is str:
        try:
            text = session.encode()
        except UnicodeEncodeError as error:
            raise InvalidIdError(f"session id {session!r} is not valid Unicode: {error}") from error
        if len(text) == _HEX_DIGITS and text.isalnum():  # or to find it is none would cost an error
            try:
                digits = bytes.fromhex(session)
            except ValueError:
                pass  # it is any other text
            else:
                if digits.hex() == session:  # no capitals
                    return _HEX_ID + digits
        data = _TEXT_ID + text
    elif type(session) is bytes:
        data = _BYTES_ID + session
    else:
        raise InvalidIdError(f"a session id is a str or bytes, not {type(session).__name__}")
    if not 1 < len(data) <= MAX_ID_BYTES + 1:
        raise InvalidIdError(f"a session id has 1 to {MAX_ID_BYTES} bytes, this one has {len(data) - 1}")
    return data


USER_TYPES = (str, bytes, int, UUID)
"""What a user's id may be."""


def encode_user(user: object) -> bytes:
    """Return a user's id as a session holds it.

    Raises:
        InputError: not a ``str``, ``bytes``, ``int`` or ``UUID``, empty, or more than 512 bytes long.
    """
    if type(user) not in USER_TYPES:
        raise InputError(f"a user id is a str, bytes, int or UUID, not {type(user).__name__}")
    data = encode_value(user)
    if user in ("", b"") or len(data) > MAX_ID_BYTES:
        raise InputError(f"a user id has 1 to {MAX_ID_BYTES} bytes")
    return data


def user_record_id(user: bytes) -> bytes:
    """Return where the store keeps what is true of all sessions of an encoded user id."""
    return _USER_RECORD + user


def user_in(data: bytes) -> bytes:
    """Return the encoded user id whose record has this id."""
    return data[1:]


def entry_id(namespaces: Sequence[str], key: str) -> bytes:
    """Return where the store keeps an entry: what belongs to no session.

    Args:
        namespaces: the entry's namespace and its parents, the outermost first.
        key: the entry's key, of any length.

    Raises:
        InvalidIdError: a name is empty or holds a NUL, or the names are too long.
    """
    prefix, name = entry_prefix(namespaces) + b"\0", key.encode("utf-8", "surrogatepass")
    if len(prefix) > MAX_ID_BYTES - _DIGEST_BYTES:
        raise InvalidIdError(f"the names {tuple(namespaces)!r} are too long for an id")
    if len(prefix) + 1 + len(name) <= MAX_ID_BYTES:
        return prefix + b"=" + name
    return prefix + b"#" + blake2b(name, digest_size=_DIGEST_BYTES).digest()


def entry_prefix(namespaces: Sequence[str]) -> bytes:
    """Return what the ids of all entries of a namespace, and of the namespaces in it, begin with.

    Raises:
        InvalidIdError: a name is empty or holds a NUL.
    """
    if not all(name and "\0" not in name for name in namespaces):
        raise InvalidIdError(f"a namespace's name is a text without NUL, not one of {tuple(namespaces)!r}")
    return _ENTRY + b"".join(name.encode() + b"\0" for name in namespaces)


def is_session_id(data: bytes) -> bool:
    """Tell whether an encoded id is a session's, not that of a user's record or of an entry."""
    return data[:1] not in (_USER_RECORD, _ENTRY)


def is_user_record_id(data: bytes) -> bool:
    """Tell whether an encoded id is that of a user's record."""
    return data[:1] == _USER_RECORD


def decode_id(data: bytes) -> str | bytes:
    """Return the session id that `encode_id` wrote."""
    kind, rest = data[:1], data[1:]
    if kind == _HEX_ID:
        return rest.hex()
    return rest.decode() if kind == _TEXT_ID else rest


def is_encoded_id(data: bytes) -> bool:
    """Tell whether this is what `encode_id` makes of an id, or the id of a user's record or of an entry."""
    if not 1 < len(data) <= MAX_ID_BYTES + 1:
        return False
    if data[:1] == _HEX_ID:
        return len(data) == 1 + _HEX_DIGITS // 2
    try:
        return data[:1] != _TEXT_ID or encode_id(data[1:].decode()) == data
    except UnicodeDecodeError:
        return False


def key_slot(key: object) -> Slot:
    """Return the slot of an application's key.

    Raises:
        InvalidKeyError: not a ``str``, ``bytes``, ``int`` (a ``bool`` is none) or a tuple of these,
            or more than 1,024 bytes long.
    """
    return _text_slot(key) if type(key) is str else _slot(key)


@lru_cache(maxsize=1024)
def _text_slot(key: str) -> Slot:
    """Return the slot of a text; an application has few of them and uses them at every request."""
    return _slot(key)


def _slot(key: object) -> Slot:
    _check_key(key, 0)
    try:
        data = encode_value(key)
    except InvalidValueError as error:
        raise InvalidKeyError(str(error)) from error
    if len(data) > MAX_KEY_BYTES:
        raise InvalidKeyError(f"a key has at most {MAX_KEY_BYTES} encoded bytes, this one has {len(data)}")
    return Slot(KEY + data)


@lru_cache(maxsize=1024)
def slot_key(slot: Slot) -> Any:
    """Return the application's key that `key_slot` made *slot* of. It cannot be changed, so it is kept.

    Raises:
        StoreError: *slot* is not an encoded key.
    """
    key = decode_value(slot[1:])
    try:
        hash(key)
    except TypeError as error:
        raise StoreError(f"not an encoded key: {error}") from error
    return key


def _check_key(key: object, depth: int) -> None:
    kind = type(key)
    if kind is tuple and depth < MAX_DEPTH:
        for part in cast("tuple[object, ...]", key):
            _check_key(part, depth + 1)
    elif kind is tuple:
        raise InvalidKeyError(f"a key that is a tuple nests at most {MAX_DEPTH} levels deep")
    elif kind is not str and kind is not bytes and kind is not int:
        raise InvalidKeyError(
            f"a key is a str, bytes, int or a tuple of these, not {kind.__name__} ({_show(key)})"
        )


class _Wrapper:
    """Rewrites a value into what MessagePack tells apart, or says where it cannot."""

    def __init__(self, key: object, as_base: bool) -> None:
        self.key = key
        self.as_base = as_base

    def wrap(self, value: Any, depth: int, path: str) -> Any:
        kind = cast("type[object]", type(value))
        if kind is str:
            return value if value.isascii() else _wrap_text(value)
        if kind in _PLAIN:
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**64 else Ext(_INT, _int_bytes(value))
        if depth >= MAX_DEPTH:
            raise self._refusal(f"nests deeper than {MAX_DEPTH} levels", path)
        if kind is list:
            return [self.wrap(item, depth + 1, f"{path}[{i}]") for i, item in enumerate(value)]
        if kind is dict:
            return self._wrap_dict(value, depth, path)
        return self._wrap_extension(kind, value, depth, path)

    def _wrap_dict(self, value: dict[Any, Any], depth: int, path: str) -> Any:
        if all(type(k) is str and k.isascii() for k in value):
            return {k: self.wrap(v, depth + 1, f"{path}[{k!r}]") for k, v in value.items()}
        pairs = [
            [
                self.wrap(k, depth + 1, f"{path} key {_show(k)}"),
                self.wrap(v, depth + 1, f"{path}[{_show(k)}]"),
            ]
            for k, v in value.items()
        ]
        return Ext(_PAIRS, _encode(pairs))

    def _wrap_extension(self, kind: type, value: Any, depth: int, path: str) -> Any:
        if kind is tuple:
            return Ext(
                _TUPLE, _encode([self.wrap(v, depth + 1, f"{path}[{i}]") for i, v in enumerate(value)])
            )
        if kind is set or kind is frozenset:
            # Sorted, so that equal sets have equal bytes.
            items = sorted(_encode(self.wrap(item, depth + 1, path)) for item in value)
            return Ext(_SET if kind is set else _FROZENSET, _encode(items))
        if kind is datetime or kind is time:
            zone = zone_name(value.tzinfo)
            if zone is None:
                zone_type = type(value.tzinfo).__name__
                what = f"has a time zone (a {zone_type}) that is no timezone and no ZoneInfo with a key, and"
                raise self._refusal(what, path)
            text = value.replace(tzinfo=None).isoformat()
            return Ext(_DATETIME if kind is datetime else _TIME, _encode([text, value.fold, zone]))
        simple = _SIMPLE.get(kind)
        if simple is not None:
            return simple(value)
        if self.as_base:
            for base, to_base in _BASES:
                if issubclass(kind, base):
                    return self.wrap(to_base(value), depth, path)
        raise self._refusal(f"is a {kind.__module__}.{kind.__qualname__}, which", path)

    def _refusal(self, what: str, path: str) -> InvalidValueError:
        place = f"at {path} " if path else ""
        return InvalidValueError(
            f"the value of key {self.key!r} {place}{what} cannot be stored; store None, bool, int, float, "
            "str, bytes, list, tuple, dict, set, frozenset, datetime, date, time, timedelta, Decimal or UUID"
        )


def _show(key: object) -> str:
    try:
        return f"{key!r:.80}"
    except (ValueError, RecursionError):  # Python prints no int of more than 4,300 digits, nor any depth
        return f"<{type(key).__name__}>"


def _wrap_text(value: str) -> str | Ext:
    """Return text as it is, or as an extension where it holds lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(_TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


_SIMPLE: dict[type, Callable[[Any], Ext]] = {
    date: lambda v: Ext(_DATE, v.isoformat().encode()),
    timedelta: lambda v: Ext(_DELTA, _encode([v.days, v.seconds, v.microseconds])),
    Decimal: lambda v: Ext(_DECIMAL, str(v).encode()),
    UUID: lambda v: Ext(_UUID, v.bytes),
}


def _read_datetime(data: bytes) -> datetime:
    text, fold, zone = decode_value(data)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=read_zone(zone))


def _read_time(data: bytes) -> time:
    text, fold, zone = decode_value(data)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=read_zone(zone))


def _read_items(data: bytes) -> Iterable[Any]:
    return (decode_value(item) for item in decode_value(data))


_READERS: dict[int, Callable[[bytes], Any]] = {
    _TUPLE: lambda data: tuple(decode_value(data)),
    _SET: lambda data: set(_read_items(data)),
    _FROZENSET: lambda data: frozenset(_read_items(data)),
    _PAIRS: lambda data: dict(decode_value(data)),
    _INT: lambda data: int.from_bytes(data, "big", signed=True),
    _TEXT: lambda data: data.decode("utf-8", "surrogatepass"),
    _DATETIME: _read_datetime,
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: _read_time,
    _DELTA: lambda data: timedelta(*decode_value(data)),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _UUID: lambda data: UUID(bytes=data),
}


def _read_extension(code: int, data: memoryview) -> Any:
    return _READERS[code](bytes(data))


_decoder = msgspec.msgpack.Decoder(ext_hook=_read_extension)
