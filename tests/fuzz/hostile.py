"""Messages as a hostile peer makes them: any bytes, valid messages bent, and well-formed lies."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from tests.property.strategies import records as odd_records

from canister.clock import DAY, SECOND
from canister.record import (
    KEY,
    META,
    Birth,
    Cell,
    Destroy,
    Expiry,
    NodeId,
    Record,
    Slot,
    Touch,
    encode_record,
    make_version,
)
from canister.replication import messages as m
from canister.store.base import Member
from canister.testing.simulation.schedule import START

NODES = [NodeId(bytes([n]) * 8) for n in (1, 2, 3)]
"""Some node ids; the first is that of the node under attack."""
EDGES = [
    -(2**63),
    -1,
    0,
    1,
    255,
    256,
    65_535,
    65_536,
    2**31,
    2**53,
    2**57,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]

near = st.integers(-90 * SECOND, 90 * SECOND).map(lambda offset: START + offset)
instants = near | near | st.integers(START - 800 * DAY, START + 800 * DAY) | st.sampled_from(EDGES)
stamps = instants.map(lambda at: min(max(at, 0), 2**64 - 1))
numbers = st.integers(-2, 9) | st.sampled_from(EDGES)
versions = st.builds(make_version, stamps, st.sampled_from(NODES)) | st.binary(max_size=20)
durations = st.sampled_from([1, SECOND, 20 * 60 * SECOND, DAY, 400 * DAY]) | numbers

slots = st.sampled_from(
    [Slot(KEY + b"\xa1a"), Slot(KEY + b"\xa1b"), Slot(META + b"x"), Slot(b""), Slot(b"z")]
)
lies: st.SearchStrategy[Record] = st.builds(
    Record,
    birth=st.none() | st.builds(Birth, versions, instants, durations, durations, durations, durations),
    expiry=st.none() | st.builds(Expiry, versions, st.none() | durations, durations, st.none() | instants),
    reach=durations,
    touch=st.none() | st.builds(Touch, versions, instants),
    clear=st.none() | versions,
    destroy=st.none() | st.none() | st.builds(Destroy, versions, instants),
    cells=st.dictionaries(slots, st.builds(Cell, versions, st.none() | st.binary(max_size=9)), max_size=3),
)


@st.composite
def _plausible(draw: st.DrawFn) -> Record:
    """A session as a correct node writes it, dated about now."""
    version = make_version(draw(near), draw(st.sampled_from(NODES[1:])))
    at = int.from_bytes(version[:8], "big")
    idle, absolute = 20 * 60 * SECOND, draw(st.sampled_from([DAY, 400 * DAY]))
    return Record(
        birth=Birth(version, at, absolute, idle, SECOND, 60 * SECOND),
        reach=idle + SECOND,
        touch=Touch(version, at),
        cells={Slot(KEY + b"\xa1a"): Cell(version, draw(st.binary(max_size=4)))},
    )


records = _plausible() | _plausible() | lies | odd_records
sessions = st.sampled_from([b"s1", b"s2", b"s3"]) | st.binary(max_size=4) | st.just(b"s" * 600)
rows = st.tuples(sessions, records.map(encode_record))
heard = st.dictionaries(st.sampled_from(NODES) | st.binary(max_size=20), instants, max_size=4)
addresses = st.sampled_from(["n1:1", "n2:1", "192.0.2.1:7400", "", "x\nERROR y", "n" * 5000]) | st.text(
    max_size=5
)
members = st.builds(
    Member, addresses, versions, st.just(False) | st.booleans(), versions, st.sampled_from(NODES)
)
encoded = records.map(encode_record) | st.binary(max_size=9)
wanted = st.lists(st.tuples(numbers, st.lists(st.binary(max_size=8), max_size=3)), max_size=3)
some_members = st.lists(members, max_size=2)
rounds = st.sampled_from([1, 1, 1, 2, 3]) | numbers
digests = st.binary(max_size=16) | st.sampled_from([bytes(16), bytes(2048), b"\xff" * 2048])

lying: st.SearchStrategy[m.Message] = st.one_of(
    st.builds(m.Refused, st.text(max_size=9)),
    st.builds(m.Live, st.lists(st.lists(rows, max_size=3), max_size=3), instants),
    st.builds(m.Heartbeat, instants, instants, instants),
    st.builds(m.MemberList, some_members),
    st.builds(m.AskRoot, rounds, instants),
    st.builds(m.Root, rounds, instants, heard, some_members, digests, digests, numbers),
    st.builds(m.AskDigests, rounds, instants, numbers, st.lists(numbers, max_size=5)),
    st.builds(m.Digests, rounds, digests),
    st.builds(m.AskListing, rounds, instants, numbers, st.lists(numbers, max_size=5)),
    st.builds(m.Listing, rounds, st.lists(digests, max_size=5)),
    st.builds(m.AskRows, rounds, instants, numbers, wanted),
    st.builds(m.AskAll, rounds, instants, st.lists(st.tuples(numbers, numbers), max_size=3)),
    st.builds(m.Rows, rounds, st.lists(rows, max_size=3), st.booleans(), numbers),
    st.builds(m.Fetch, numbers, sessions),
    st.builds(m.Fetched, numbers, st.none() | encoded, heard, some_members),
    st.builds(m.AskAck, instants, st.sampled_from(NODES), st.lists(addresses, max_size=2)),
    st.builds(m.Ack, instants, st.sampled_from(NODES), addresses),
    st.builds(m.StartOver),
)  # fmt: skip
"""Messages of every kind, true or not."""


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """A message's bytes with some changed, cut, doubled or appended."""
    data = bytearray(msgspec.msgpack.encode(draw(lying)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = data[: draw(st.integers(0, 20))]
            case _:
                data[at:at] = draw(st.binary(max_size=6))
    return bytes(data)


payloads = st.binary(max_size=60) | bent() | lying.map(msgspec.msgpack.encode)


def nested(depth: int, opening: bytes = b"\x91", core: bytes = b"\x01") -> bytes:
    """Return a MessagePack bomb: arrays in arrays (or what *opening* opens)."""
    return opening * depth + core


def extensions(depth: int, code: int = 1) -> bytes:
    """Return an extension in an extension, and so on."""
    data = b"\x90"
    for _ in range(depth):
        data = msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data))
    return data


def message(tag: int, *parts: Any) -> bytes:
    """Return the bytes of a message of any parts at all."""
    return msgspec.msgpack.encode([tag, *parts])
