"""Whatever bytes come over the wire: a message, or a ProtocolError, in little time and memory."""

import time
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import hostile
from tests.fuzz.hostile import extensions, message, nested

from canister.clock import DAY
from canister.errors import ProtocolError
from canister.life import deadline, last_retention, retention
from canister.record import (
    EMPTY,
    KEY,
    Birth,
    Cell,
    Destroy,
    Expiry,
    NodeId,
    Record,
    Slot,
    Touch,
    Version,
    check_record,
    decode_record,
    encode_record,
    make_version,
    merge,
)
from canister.replication.messages import MOST_MEMBERS, Message, decode_message, decode_row, encode_message

NOW = 1_700_000_000_000_000
NODE = NodeId(b"12345678")
MEMBER = ["127.0.0.1:1", b"v" * 16, False, b"v" * 16, NODE]
V = make_version(NOW, NODE)


@settings(max_examples=500, deadline=None)
@given(hostile.payloads)
def test_a_payload_is_a_message_or_a_protocol_error(payload: bytes) -> None:
    """Nothing else comes out, and a message that was taken is sent on as it is."""
    try:
        decoded = decode_message(payload)
    except ProtocolError:
        return
    assert isinstance(decoded, Message)
    assert decode_message(encode_message(decoded)) == decoded


@settings(max_examples=300, deadline=None)
@given(hostile.rows | st.tuples(hostile.sessions, st.binary(max_size=80)))
def test_a_row_is_a_possible_record_or_a_protocol_error(row: tuple[bytes, bytes]) -> None:
    """What is accepted fits SQLite's integers and the range of datetimes, also merged with another."""
    try:
        session, record = decode_row(row)
    except ProtocolError:
        return
    assert 2 <= len(session) <= 513
    whole = merge(record, merge(LATE, record))
    for instant in (retention(whole), last_retention(whole, DAY), retention(record)):
        assert -(2**63) <= instant < 2**63
    assert -(2**57) < deadline(record) < 2**58
    assert decode_record(encode_record(record)) == record
    check_record(record)


LATE = Record(birth=Birth(make_version(2**56, NODE), 2**56, 400 * DAY, 1, 1, 2**55), touch=Touch(V, NOW))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(birth=Birth(V, NOW + 1, DAY, 1, 1, 1)), "a birth is later than its own stamp"),
        (Record(birth=Birth(V, NOW, 400 * DAY + 1, 1, 1, 1)), "int` <= 34560000000000"),
        (Record(birth=Birth(V, -1, DAY, 1, 1, 1)), "int` >= 0"),
        (Record(birth=Birth(V, -(2**63), 1, 1, 1, 2**63)), "int` >= 0"),
        (Record(touch=Touch(V, NOW + 1)), "later than its own stamp"),
        (Record(touch=Touch(make_version(2**64 - 1, NODE), NOW)), "a version is out of range"),
        (Record(destroy=Destroy(make_version(2**63, NODE), NOW)), "a version is out of range"),
        (Record(destroy=Destroy(V, 2**57)), "int` <="),
        (
            Record(cells={Slot(KEY + b"\x01"): Cell(make_version(2**62, NODE), None)}),
            "a version is out of range",
        ),
        (Record(cells={Slot(KEY + b"x" * 1049): Cell(V, None)}), "length <= 1049"),
        (Record(clear=Version(b"\xff" * 16)), "a version is out of range"),
        (Record(expiry=Expiry(V, -1, 0, None)), "int` >= 0"),
        (Record(expiry=Expiry(V, 2**63 - 1, 0, None)), "int` <="),
        (Record(expiry=Expiry(V, None, 2**57, None)), "int` <="),
        (Record(expiry=Expiry(V, None, 0, -(2**63))), "int` >="),
        (Record(expiry=Expiry(V, None, 0, 2**63)), "int` <="),
    ],
)
def test_an_impossible_record_is_refused(record: Record, why: str) -> None:
    """Durations and instants that would make a session immortal, or that no store or datetime can hold."""
    with pytest.raises(ProtocolError, match=why):
        decode_row((b"ss", encode_record(record)))


@pytest.mark.parametrize(
    "payload",
    [
        nested(1_000_000),
        nested(1_000_000, b"\x81\x01"),
        message(3, msgspec.Raw(nested(1_000_000))),
        message(2, msgspec.msgpack.Ext(1, extensions(5_000))),
        message(2, "x", msgspec.Raw(nested(1_000_000))),  # in a field this release does not know
        b"\xdd\xff\xff\xff\xff\x03",
        b"\xdf\xff\xff\xff\xff",
        b"\x93\x03\xdd\xff\xff\xff\xff",
        b"\x92\x02\xdb\xff\xff\xff\xff",
        message(99),
        message(-1),
        message(2**64 - 1),
        b"",
    ],
    ids=range(13),
)
def test_bombs_are_refused(payload: bytes) -> None:
    """Nesting, lengths that lie, unknown kinds: refused at once."""
    begun = time.monotonic()
    with pytest.raises(ProtocolError):
        decode_message(payload)
    assert time.monotonic() - begun < 3


ROW = b"\x92\xc4\x02ss\xc4\x08........"
MANY = 4_000_000
"""Small things that fit into one frame."""


@pytest.mark.parametrize(
    "payload",
    [
        message(3, msgspec.Raw(b"\xdd" + MANY.to_bytes(4, "big") + b"\x90" * MANY), 0),
        message(3, [msgspec.Raw(b"\xdd" + MANY.to_bytes(4, "big") + b"\x92\xc4\x00\xc4\x00" * MANY)], 0),
        message(3, [msgspec.Raw(b"\xdd\x00\x00\xff\xff" + b"\x92\xc4\x00\xc4\x00" * 65_535)] * 60, 0),
        message(12, 1, msgspec.Raw(b"\xdd" + (MANY // 2).to_bytes(4, "big") + ROW * (MANY // 2)), True),
        message(4, [MEMBER] * 500_000),
        message(4, [MEMBER] * (MOST_MEMBERS + 1)),
        message(6, 1, NOW, msgspec.Raw(b"\xdf" + MANY.to_bytes(4, "big") + b"\xc4\x00\x01" * MANY), [], b""),
        message(7, 1, NOW, 0, [0] * MANY),
        message(9, 1, NOW, [0] * MANY),
        message(10, 1, [b""] * MANY),
        message(11, 1, NOW, [(0, [])] * 100_000),
        message(11, 1, NOW, [(0, [b""] * MANY)]),
        message(12, 1, msgspec.Raw(b"\xdd" + MANY.to_bytes(4, "big") + b"\x92\xc4\x00\xc4\x00" * MANY), True),
    ],
    ids=range(13),
)  # fmt: skip
def test_absurd_counts_cost_little_memory(payload: bytes) -> None:
    """A frame of millions of tiny things is refused before they are made."""
    assert len(payload) <= 32 * 1024 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode_message(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12_000_000


@pytest.mark.parametrize("place", range(len(MEMBER)))
def test_a_member_that_no_node_states_is_refused(place: int) -> None:
    """Addresses with line breaks, names of any length: what would be logged and kept for ever."""
    wrong = {
        0: ["x" * 101, "a\nb", "a\x1b[2J", 7],
        1: [b"v" * 25, ""],
        2: [0],
        3: [b"v" * 25],
        4: [b"n" * 25],
    }
    for value in wrong[place]:
        member = [*MEMBER[:place], value, *MEMBER[place + 1 :]]
        hello = (1, 1, "c", member, b"", NOW, [])
        for payload in (message(4, [member]), message(6, 1, 1, {}, [member], b""), message(1, *hello)):
            with pytest.raises(ProtocolError):
                decode_message(payload)
    assert decode_message(message(4, [MEMBER])).members


@pytest.mark.parametrize("instant", [-1, 2**57, 2**63, 2**64 - 1])
def test_an_instant_that_cannot_be_is_refused(instant: int) -> None:
    """Neither a digest nor what was heard is named by an instant that SQLite or a datetime cannot hold."""
    for payload in (
        message(1, 1, 1, "c", MEMBER, b"", instant, []),
        message(3, [], instant),
        message(5, 1, instant),
        message(6, 1, instant, {}, [], b""),
        message(6, 1, 1, {NODE: instant}, [], b""),
        message(7, 1, instant, 0, [0]),
        message(9, 1, instant, [0]),
        message(11, 1, instant, []),
        message(14, 1, None, {NODE: instant}, []),
        message(15, instant, 0, 0),
        message(15, 0, instant, 0),
        message(15, 0, 0, instant),
        message(16, instant),
        message(17, instant),
    ):
        with pytest.raises(ProtocolError):
            decode_message(payload)


def test_what_is_in_a_record_twice_or_unsorted_is_stored_once_and_sorted() -> None:
    """Equal records have equal encodings, however a peer wrote them."""
    cells = b"\x83" + b"".join(
        msgspec.msgpack.encode(slot) + msgspec.msgpack.encode([V, value])
        for slot, value in ((KEY + b"\x02", b"2"), (KEY + b"\x01", b"1"), (KEY + b"\x02", b"3"))
    )
    _, record = decode_row((b"ss", b"\x97\xc0\xc0\x00\xc0\xc0\xc0" + cells))
    assert list(merge(EMPTY, record).cells) == sorted(record.cells)
