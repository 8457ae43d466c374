"""Stored values and keys of any bytes, and tokens of any text."""

import base64
import sys
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext
from tests.fuzz.hostile import extensions, nested

from canister import zones
from canister.codec import decode_value, encode_value, slot_key
from canister.errors import StoreError
from canister.record import KEY, Slot, Version
from canister.sessions.keys import KeyRing
from canister.sessions.token import LENGTH, Refusal, Token, draft, parse

encode = msgspec.msgpack.encode

odd = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3),
        st.builds(
            lambda code, part: Ext(code, encode(part)), st.integers(-128, 127) | st.integers(1, 12), inner
        ),
        st.builds(lambda code, data: Ext(code, data), st.integers(1, 12), st.binary(max_size=12)),
    ),
    max_leaves=8,
)


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=40) | odd.map(encode))
def test_bytes_are_a_value_or_a_store_error(data: bytes) -> None:
    """Nothing else comes out; a value that does can be stored again, or is refused in words."""
    try:
        decode_value(data)
    except StoreError:
        return


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | odd.map(encode))
def test_a_slot_is_a_key_or_a_store_error(data: bytes) -> None:
    """A key that a dict cannot take must not come out of the store: it would break every read."""
    try:
        key = slot_key(Slot(KEY + data))
    except StoreError:
        return
    assert {key: 1}


@pytest.mark.parametrize(
    "data",
    [
        nested(100_000),
        nested(100_000, b"\x81\x01"),
        extensions(2000),
        extensions(2000, 2),
        encode(Ext(4, encode([[[1], 2]]))),  # a dict whose key is a list
        encode(Ext(2, encode([encode([1])]))),  # a set of a list
        encode(Ext(7, encode(["2026-01-01T00:00:00", 0, "a" * 5000]))),
        encode(Ext(7, encode(["2026-01-01T00:00:00", 0, "../../../etc/passwd"]))),
        encode(Ext(7, encode(["2026-01-01T00:00:00", 0, "x\0y"]))),
        encode(Ext(7, encode(["2026-01-01T00:00:00", 0, {"a": 1}]))),
        encode(Ext(7, encode(["2026-01-01T00:00:00", 0, [10**12, 0, 0]]))),
        encode(Ext(7, encode(["2026-01-01T00:00:00", 2**63, ""]))),
        encode(Ext(10, encode([float("nan")]))),
        encode(Ext(10, encode([10**18]))),
        encode(Ext(11, b"1e")),
        encode(Ext(11, b"\xff")),
        encode(Ext(12, b"short")),
        encode(Ext(3, encode([Ext(11, b"sNaN")]))),
        encode(Ext(3, encode([encode(Ext(11, b"sNaN"))]))),
        encode(Ext(99, b"")),
        b"\xc7\xff\x01",
        b"\xa2\x00\x80",
    ],
    ids=range(22),
)
def test_hostile_values(data: bytes) -> None:
    """Bombs, zones that are no files, hashes that fail: a StoreError, soon."""
    begun = time.monotonic()
    with pytest.raises(StoreError):
        decode_value(data)
    assert time.monotonic() - begun < 3


def test_a_file_system_that_objects_to_a_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some releases of Python open a directory of zones, or a name too long for a file."""

    def zone(_: str) -> None:
        raise IsADirectoryError("America")

    monkeypatch.setattr(zones, "ZoneInfo", zone)
    with pytest.raises(StoreError):
        decode_value(encode(Ext(7, encode(["2026-01-01T00:00:00", 0, "America"]))))


def test_a_nesting_bomb_of_a_full_frame_ends_soon() -> None:
    """Each level of extensions copies what is in it: depth ends it before that costs much."""
    data = encode("x" * 300_000)
    for _ in range(500):
        data = b"\xc9" + len(data).to_bytes(4, "big") + b"\x01" + data
    begun = time.monotonic()
    with pytest.raises(StoreError):
        decode_value(data)
    assert time.monotonic() - begun < 5


def test_huge_integers_come_back() -> None:
    """A megabyte of an integer is read at once, and printed nowhere."""
    assert decode_value(encode_value(1 << 8_000_000)) == 1 << 8_000_000


RING = KeyRing(["the quick brown fox jumps over 1", "the quick brown fox jumps over 2"])
GOOD = draft(RING).seal(Version(b"v" * 16)).text


@settings(max_examples=500, deadline=None)
@given(
    st.text(max_size=130)
    | st.text("ABab09-_=+/\n\x00\ud800é", min_size=LENGTH, max_size=LENGTH)
    | st.binary(min_size=84, max_size=84).map(
        lambda data: base64.urlsafe_b64encode(b"\x01" + data[1:]).decode()
    )
)
def test_a_text_is_no_token(text: str) -> None:
    """Only a refusal comes out, of no kind but ours."""
    assert isinstance(parse(text, RING), Refusal)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, LENGTH - 1), st.characters(codec="utf-8") | st.sampled_from("AZaz09-_"))
def test_a_token_with_one_other_character_is_refused(at: int, character: str) -> None:
    """Whatever it is, also in the last place: there are no spare bits."""
    text = GOOD[:at] + character + GOOD[at + 1 :]
    assert isinstance(parse(text, RING), Token if text == GOOD else Refusal)


def test_a_text_is_refused_without_a_look_at_a_file() -> None:
    """Neither a bad nor a good token costs disk or network."""
    seen: list[str] = []
    # An audit hook cannot be taken out again: this one falls silent after the test.
    watching = [True]
    sys.addaudithook(
        lambda event, _: (
            seen.append(event) if watching and event.startswith(("open", "socket", "sqlite", "os.")) else None
        )
    )
    try:
        open(__file__).close()  # it would be seen
        assert seen == ["open"]
        for text in (GOOD, GOOD[:-1], "x" * LENGTH, "", GOOD[:20] + "A" + GOOD[21:], "é" * LENGTH):
            parse(text, RING)
        assert seen == ["open"]
    finally:
        watching.clear()
