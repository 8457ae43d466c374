import copy
import enum
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import TZPATH, ZoneInfo, reset_tzpath

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from canister.codec import (
    MAX_DEPTH,
    MAX_ID_BYTES,
    MAX_KEY_BYTES,
    decode_id,
    decode_value,
    encode_id,
    encode_value,
    is_encoded_id,
    key_slot,
    slot_key,
)
from canister.errors import ConfigError, InvalidIdError, InvalidKeyError, InvalidValueError, StoreError
from canister.record import KEY

PARIS = ZoneInfo("Europe/Paris")
AMBIGUOUS = datetime(2026, 10, 25, 2, 30)

VALUES: list[Any] = [
    None,
    True,
    False,
    *(0, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**30, -(10**30), 7**6000),
    *(0.0, -0.0, 1.5, inf, -inf, 5e-324),
    *("", "plain", "naïve ✓ 🐍", "\ud800", "a\udfffb", "\x00"),
    *(b"", b"\x00\xff"),
    *([], [1, [2, [3]]], (), (1,), (1, (2, (3, ()))), [(1, [2])], ([],)),
    *({}, {"a": 1}, {"ü": 1, "a": 2}, {(1, ("a", b"b")): [1], 2: {}, None: (), 10**30: {}, 7**6000: 1}),
    *(set(), {1, 2}, {(1, 2), (3,)}, frozenset(), frozenset({frozenset({1}), "a"}), {10**30}),
    *(date.min, date(2026, 2, 28), date.max),
    *(datetime.min, datetime.max, AMBIGUOUS, AMBIGUOUS.replace(fold=1)),
    *(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC)),
    *(AMBIGUOUS.replace(tzinfo=PARIS), AMBIGUOUS.replace(tzinfo=PARIS, fold=1)),
    datetime(1937, 1, 1, tzinfo=timezone(timedelta(minutes=19, seconds=32, microseconds=130000))),
    datetime(2026, 1, 1, tzinfo=timezone(-timedelta(hours=11, minutes=30))),
    *(time.min, time.max, time(1, 2, 3, fold=1), time(1, 2, tzinfo=UTC), time(1, 2, tzinfo=PARIS)),
    *(timedelta.min, timedelta.max, timedelta(0), timedelta(microseconds=-1)),
    *(Decimal("1.10"), Decimal("-0"), Decimal("1E+5000"), Decimal("-Infinity")),
    *(Decimal("NaN"), Decimal("-NaN42"), Decimal("sNaN7")),
    UUID("12345678-1234-5678-1234-567812345678"),
]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def extension(code: int, payload: Any) -> bytes:
    return msgspec.msgpack.encode(Ext(code, msgspec.msgpack.encode(payload)))


def assert_same(got: Any, want: Any) -> None:
    """Compare with types, order, folds, zones and the bits of floats; ``==`` overlooks all of them."""
    assert type(got) is type(want)
    match want:
        case float():
            assert struct.pack(">d", got) == struct.pack(">d", want)
        case Decimal():
            assert got.as_tuple() == want.as_tuple()
        case datetime() | time():
            assert got.replace(tzinfo=None) == want.replace(tzinfo=None)
            assert (got.fold, got.tzinfo) == (want.fold, want.tzinfo)
            assert type(got.tzinfo) is type(want.tzinfo)
        case list() | tuple():
            assert len(got) == len(want)
            for one, other in zip(got, want, strict=True):
                assert_same(one, other)
        case dict():
            assert_same(list(got.items()), list(want.items()))
        case set() | frozenset():
            assert got == want
            assert {type(item) for item in got} == {type(item) for item in want}
        case _:
            assert got == want


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_round_trip(value: Any) -> None:
    """Every supported value comes back equal and of the same type, alone and inside containers."""
    assert_same(decode_value(encode_value(value)), value)
    assert_same(decode_value(encode_value([{"a": (value, "ü")}])), [{"a": (value, "ü")}])


zones = st.sampled_from([None, UTC, PARIS, timezone(timedelta(hours=-3, seconds=7))])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
        st.datetimes() | st.times(),
        zones,
        st.integers(0, 1),
    )
)
hashables = st.recursive(
    scalars.filter(lambda value: not (isinstance(value, Decimal) and value.is_nan())),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.sets(hashables, max_size=4)
        | st.frozensets(hashables, max_size=4)
    ),
    max_leaves=15,
)


@given(values)
@settings(deadline=None)
def test_round_trip_of_anything(value: Any) -> None:
    """Whatever can be nested comes back equal and of the same type, and encodes to the same bytes."""
    data = encode_value(value)
    again = decode_value(data)
    assert_same(again, value)
    assert encode_value(again) == data


@given(st.permutations([1, "a", b"b", (2, 3), None, 10**30]))
@settings(deadline=None)
def test_equal_sets_have_equal_bytes(items: list[Any]) -> None:
    """The order in which a set was filled does not show in its bytes."""
    assert encode_value(set(items)) == encode_value({1, "a", b"b", (2, 3), None, 10**30})


def test_not_a_number_is_kept() -> None:
    """A float NaN, which equals nothing, comes back as one."""
    got = decode_value(encode_value([float("nan")]))
    assert got[0] != got[0]


class Colour(enum.StrEnum):
    RED = "red"


class Shouting(str):
    def __str__(self) -> str:
        return self


class NoZone(tzinfo):
    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(0)


@pytest.mark.parametrize(
    ("value", "place", "kind"),
    [
        (object(), "", "builtins.object"),
        (1j, "", "builtins.complex"),
        (Fraction(1, 2), "", "fractions.Fraction"),
        (bytearray(b"x"), "", "builtins.bytearray"),
        (Colour.RED, "", "Colour"),
        (Shouting("x"), "", "Shouting"),
        ([1, [object()]], "at [1][0]", "builtins.object"),
        ({"a": {"b": object()}}, "at ['a']['b']", "builtins.object"),
        ({1: object()}, "at [1]", "builtins.object"),
        ({(1, 2): (0, object())}, "at [(1, 2)][1]", "builtins.object"),
        ({1j: 1}, "key 1j", "builtins.complex"),
        ({frozenset({1j})}, "", "builtins.complex"),
        (datetime(2026, 1, 1, tzinfo=NoZone()), "", "NoZone"),
        ([time(1, tzinfo=NoZone())], "at [0]", "NoZone"),
    ],
)
def test_refusal_names_key_place_and_type(value: Any, place: str, kind: str) -> None:
    """What cannot be stored is refused with the key, the place inside the value and the type."""
    with pytest.raises(InvalidValueError) as caught:
        encode_value(value, ("cart", 7))
    message = str(caught.value)
    assert "key ('cart', 7)" in message
    assert place in message
    assert kind in message
    assert isinstance(caught.value, TypeError)


def test_depth_is_limited() -> None:
    """A value may nest as deep as the limit says, no deeper, and a circle is refused."""
    assert_same(decode_value(encode_value(nested(MAX_DEPTH))), nested(MAX_DEPTH))
    circle: list[Any] = []
    circle.append(circle)
    for value in (nested(MAX_DEPTH + 1), (nested(MAX_DEPTH),), {1: nested(MAX_DEPTH)}, circle):
        with pytest.raises(InvalidValueError, match="deeper than 64 levels"):
            encode_value(value)


class Basket(list[Any]):
    pass


class Level(enum.IntEnum):
    HIGH = 3


class Named(dict[str, Any]):
    pass


class Old(str, enum.Enum):  # noqa: UP042
    RED = "red"


def test_subclasses_as_their_base() -> None:
    """With as_base, subclasses of str, int, list and dict are stored as their base type."""
    value = [Named(a=Basket([Level.HIGH])), Colour.RED, Old.RED, Shouting("loud"), {Colour.RED: 1}]
    want = [{"a": [3]}, "red", "red", "loud", {"red": 1}]
    assert_same(decode_value(encode_value(value, as_base=True)), want)
    with pytest.raises(InvalidValueError, match="Named"):
        encode_value(value)
    with pytest.raises(InvalidValueError, match="bytearray"):
        encode_value([bytearray()], as_base=True)


HEX = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    "session",
    [
        "a",
        "ü" * 256,
        "a" * 512,
        HEX,
        HEX.upper(),
        HEX[:-2] + " f",
        "ü" * 32,
        b"\x00",
        b"x" * 512,
        HEX.encode(),
    ],
)
def test_ids_round_trip(session: str | bytes) -> None:
    """An id of up to 512 bytes comes back as it was."""
    assert_same(decode_id(encode_id(session)), session)
    assert is_encoded_id(encode_id(session))


def test_ids_of_hex_digits_take_half_the_room() -> None:
    """That is what most libraries draw."""
    assert len(encode_id(HEX)) == 17


@pytest.mark.parametrize(
    "data",
    [b"", b"s", b"b", b"s" * 514, b"s\xff", b"s" + HEX.encode(), b"h" + bytes(15), b"h" + HEX.encode()],
)
def test_what_is_no_encoded_id(data: bytes) -> None:
    """There is one encoding of an id: another one would be a second session."""
    assert not is_encoded_id(data)


def test_text_and_bytes_ids_differ() -> None:
    """The id "a" is another session than the id b"a"."""
    assert encode_id("a") != encode_id(b"a")


@pytest.mark.parametrize(
    ("session", "why"),
    [
        ("", "1 to 512 bytes, this one has 0"),
        (b"", "this one has 0"),
        ("ü" * 257, "this one has 514"),
        (b"x" * (MAX_ID_BYTES + 1), "this one has 513"),
        ("\ud800", "not valid Unicode"),
        (1, "not int"),
        (None, "not NoneType"),
        (bytearray(b"x"), "not bytearray"),
    ],
)
def test_bad_ids(session: Any, why: str) -> None:
    """An id that cannot be one is refused with the reason."""
    with pytest.raises(InvalidIdError, match=why):
        encode_id(session)


@pytest.mark.parametrize("key", ["k", "ü", b"k", 0, -5, 10**30, (), ("a", (1, b"b")), ("a",) * 100])
def test_keys_round_trip(key: Any) -> None:
    """A key comes back equal and of the same type, and its slot is in the keys' name space."""
    slot = key_slot(key)
    assert slot[:1] == KEY
    assert_same(slot_key(slot), key)


def test_different_keys_have_different_slots() -> None:
    """Keys that look alike are different keys."""
    keys = ["1", b"1", 1, ("1",), (1,), ((1,),), (b"1",), "", b"", (), "\ud800", 2**64, -(2**63) - 1]
    assert len({key_slot(key) for key in keys}) == len(keys)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (True, "not bool"),
        (None, "not NoneType"),
        (1.0, "not float"),
        (["a"], r"not list \(\['a'\]\)"),
        (("a", (True,)), "not bool"),
        (frozenset(), "not frozenset"),
        ("x" * MAX_KEY_BYTES, "at most 1024 encoded bytes, this one has 1027"),
    ],
)
def test_bad_keys(key: Any, why: str) -> None:
    """A key that cannot be one is refused with the reason."""
    with pytest.raises(InvalidKeyError, match=why):
        key_slot(key)


def test_numbers_too_long_to_print() -> None:
    """An int that Python refuses to print is refused, or named in a refusal, like any other."""
    with pytest.raises(InvalidKeyError, match="at most 1024 encoded bytes"):
        key_slot(7**6000)
    with pytest.raises(InvalidKeyError, match="not list"):
        key_slot([7**6000])
    with pytest.raises(InvalidValueError, match=r"at \[<int>\] is a builtins.object"):
        encode_value({7**6000: object()})


def test_keys_nested_too_deeply() -> None:
    """A key that nests beyond the limit is refused."""
    key: Any = 1
    for _ in range(MAX_DEPTH + 1):
        key = (key,)
    with pytest.raises(InvalidKeyError):
        key_slot(key)


def test_what_nests_too_deeply_to_print() -> None:
    """It is refused like anything else."""
    key: Any = 1
    for _ in range(5_000):
        key = (key,)
    with pytest.raises(InvalidKeyError, match="nests at most 64 levels"):
        key_slot(key)
    with pytest.raises(InvalidKeyError, match="not frozenset"):
        key_slot(frozenset([key]))
    with pytest.raises(InvalidValueError, match="deeper than 64 levels"):
        encode_value({key: 1})


def test_a_zone_without_a_key() -> None:
    """The refusal says which zones can be stored."""
    with Path(TZPATH[0], "Europe/Paris").open("rb") as file:
        zone = ZoneInfo.from_file(file)
    with pytest.raises(InvalidValueError, match="no timezone and no ZoneInfo with a key"):
        encode_value(datetime(2026, 1, 1, tzinfo=zone))


def bomb(code: int, layers: int) -> bytes:
    data = msgspec.msgpack.encode([1])
    for _ in range(layers):
        data = msgspec.msgpack.encode(Ext(code, data))
    return data


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x01\x01", id="two values"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(encode_value(list(range(100)))[:-1], id="truncated"),
        pytest.param(b"\xdd\xff\xff\xff\xff\x01", id="array that claims 4 G items"),
        pytest.param(b"\xdf\xff\xff\xff\xff\x01\x01", id="map that claims 4 G items"),
        pytest.param(b"\x91" * 100_000, id="deep arrays"),
        pytest.param(b"\x81\x01" * 100_000, id="deep maps"),
        pytest.param(bomb(1, 2000), id="nested tuples"),
        pytest.param(bomb(4, 2000), id="nested pairs"),
        pytest.param(msgspec.msgpack.encode(Ext(99, b"")), id="unknown extension"),
        pytest.param(msgspec.msgpack.encode(Ext(1, b"")), id="tuple of nothing"),
        pytest.param(extension(1, 5), id="tuple of an int"),
        pytest.param(extension(2, [1]), id="set of no bytes"),
        pytest.param(extension(2, [encode_value([])]), id="set of a list"),
        pytest.param(extension(4, [[1]]), id="pair of one"),
        pytest.param(extension(4, [[[], 1]]), id="list as a key"),
        pytest.param(msgspec.msgpack.encode(Ext(6, b"\xff")), id="text that is none"),
        pytest.param(extension(7, ["2026-13-01", 0, ""]), id="thirteenth month"),
        pytest.param(extension(7, ["2026-01-01", 2, ""]), id="impossible fold"),
        pytest.param(extension(7, ["2026-01-01", 0, "mars olympus"]), id="no zone's name"),
        pytest.param(extension(7, ["2026-01-01", 0, "../../etc/passwd"]), id="zone outside"),
        pytest.param(extension(7, ["2026-01-01", 0, [2, 0, 0]]), id="offset of two days"),
        pytest.param(extension(7, ["2026-01-01", 0, 5]), id="zone that is a number"),
        pytest.param(extension(7, [1, 2]), id="short datetime"),
        pytest.param(msgspec.msgpack.encode(Ext(8, b"x")), id="bad date"),
        pytest.param(extension(9, [5, 0, ""]), id="time from an int"),
        pytest.param(extension(10, [10**9, 0, 0]), id="too long a timedelta"),
        pytest.param(msgspec.msgpack.encode(Ext(11, b"1.2.3")), id="bad Decimal"),
        pytest.param(msgspec.msgpack.encode(Ext(12, b"short")), id="bad UUID"),
    ],
)
def test_bombs(data: bytes) -> None:
    """Bytes that are no encoded value give StoreError, whatever they try."""
    with pytest.raises(StoreError, match="not an encoded value"):
        decode_value(data)


@given(st.binary() | st.builds(bytes.__add__, values.map(encode_value), st.binary(max_size=2)))
@settings(deadline=None)
def test_arbitrary_bytes(data: bytes) -> None:
    """Arbitrary bytes either decode or raise StoreError, never anything else."""
    with suppress(StoreError):
        decode_value(data)


@given(values.map(encode_value), st.data())
@settings(deadline=None)
def test_damaged_bytes(encoded: bytes, data: st.DataObject) -> None:
    """A flipped byte gives another value or StoreError, never anything else."""
    place = data.draw(st.integers(0, len(encoded) - 1))
    damaged = bytearray(encoded)
    damaged[place] ^= data.draw(st.integers(1, 255))
    with suppress(StoreError):
        decode_value(bytes(damaged))


CHATHAM = ZoneInfo("Pacific/Chatham")
"""A zone that no other test has."""


@pytest.fixture
def no_zones() -> Iterator[None]:
    """A host without time zone data, not even the package's; the zones that others have stay as they are."""
    ZoneInfo.clear_cache(only_keys=[CHATHAM.key])
    reset_tzpath(())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tzdata", None)
        yield
    reset_tzpath()


@pytest.mark.parametrize(
    "value", [datetime(2030, 1, 1, fold=1, tzinfo=CHATHAM), time(1, tzinfo=CHATHAM)], ids=repr
)
def test_a_zone_that_this_host_does_not_know_keeps_its_name(value: Any, no_zones: None) -> None:
    data = encode_value({"at": value, "n": 1})
    read = decode_value(data)
    assert read["n"] == 1
    assert encode_value(copy.deepcopy(read)) == data
    assert repr(read["at"].tzinfo) == "MissingZone('Pacific/Chatham')"
    with pytest.raises(
        ConfigError, match="no data of the time zone 'Pacific/Chatham': install the package tzdata"
    ):
        datetime(2030, 1, 1, tzinfo=read["at"].tzinfo).isoformat()


def test_where_a_zone_is_needed_to_read_a_value_the_error_names_it(no_zones: None) -> None:
    data = encode_value({datetime(2030, 1, 1, tzinfo=CHATHAM)})
    with pytest.raises(StoreError, match="'Pacific/Chatham': install the package tzdata"):
        decode_value(data)
