"""What the fixtures hold: told once, for the script that made them and for the tests that read them."""

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

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

BEGIN = 1_767_225_600 * SECOND  # 2026-01-01 00:00 UTC
END = BEGIN + 3600 * SECOND
"""When the fixture was written, and as of when it is read."""
MINUTE = 60 * SECOND

PEER, OTHER = NodeId(b"peer-id."), NodeId(b"other-id")

VALUES: dict[Any, Any] = {
    "none": None,
    "true": True,
    "int": 42,
    "negative": -(2**63),
    "big": 2**200,
    "float": 1.5,
    "infinite": float("-inf"),
    "text": "grüße ☂",
    "surrogate": "\ud800",
    "bytes": b"\x00\xff",
    "list": [1, [2, "x"], {}],
    "tuple": (1, (2,), ()),
    "dict": {"a": 1, 2: b"b", (3, "c"): None},
    "set": {1, "a", (2, 3)},
    "frozenset": frozenset({1, 2}),
    "naive": datetime(2026, 1, 2, 3, 4, 5, 6),
    "aware": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    "offset": datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "zone": datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    "date": date(2026, 2, 28),
    "time": time(23, 59, 59, 999_999),
    "delta": timedelta(days=-1, microseconds=1),
    "decimal": Decimal("-1.50E+3"),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    b"bytes key": 1,
    7: "int key",
    ("tuple", 1, b"x"): "tuple key",
    "grüße": "text key",
}

SLOT = Slot(KEY + b"\xa1k")
META_SLOT = Slot(META + b"sa-hash")


def made_by_peer(at: int, value: bytes) -> Record:
    """Return a session that the peer made at *at*, with one key."""
    version = make_version(at, PEER)
    return Record(
        birth=Birth(version, at, 30 * DAY, 20 * MINUTE, MINUTE, 60 * MINUTE),
        reach=21 * MINUTE,
        touch=Touch(version, at),
        cells={SLOT: Cell(version, value)},
    )


def _full_record() -> Record:
    version = make_version(BEGIN, PEER)
    return Record(
        birth=Birth(version, BEGIN, DAY, MINUTE, SECOND, 2 * MINUTE),
        expiry=Expiry(make_version(BEGIN + 1, OTHER), 5 * MINUTE, SECOND, BEGIN + DAY),
        reach=5 * MINUTE,
        touch=Touch(version, BEGIN),
        clear=make_version(BEGIN + 2, OTHER),
        cells={SLOT: Cell(make_version(BEGIN + 3, PEER), b"\x01"), META_SLOT: Cell(version, None)},
    )


RECORD = _full_record()
TOMBSTONE = Record(destroy=Destroy(make_version(BEGIN + 9, OTHER), BEGIN + 400 * DAY))
ROWS = [(b"ssession", encode_record(RECORD)), (b"b\x00\xff", encode_record(TOMBSTONE))]
MEMBERS = [
    Member("127.0.0.1:7400", make_version(BEGIN, PEER), False, make_version(BEGIN + 1, PEER), PEER),
    Member("127.0.0.1:7401", make_version(BEGIN, OTHER), True, make_version(BEGIN, OTHER), OTHER),
]
HEARD = {PEER: BEGIN, OTHER: END}

MESSAGES: list[m.Message] = [
    m.Hello(1, 1, "canister", MEMBERS[0], b"12345678", BEGIN, MEMBERS),
    m.Refused("belongs to cluster 'a'"),
    m.Live([ROWS, ROWS[:1]], BEGIN + 3),
    m.MemberList(MEMBERS),
    m.AskRoot(7, BEGIN),
    m.Root(7, BEGIN + 1, HEARD, MEMBERS, bytes(range(16)), bytes(2048), 9),
    m.AskDigests(7, BEGIN + 1, 1, [0, 255]),
    m.Digests(7, bytes(range(64))),
    m.AskListing(7, BEGIN + 1, 3, [0, 65_535]),
    m.Listing(7, [b"", bytes(range(16))]),
    m.AskRows(7, BEGIN + 1, 3, [(0, []), (65_535, [bytes(8)])]),
    m.Rows(7, ROWS, True, 0),
    m.Fetch(3, b"ssession"),
    m.Fetched(3, ROWS[0][1], HEARD, MEMBERS),
    m.Heartbeat(BEGIN + 3, BEGIN, BEGIN + 4),
    m.AskAck(BEGIN + 3, PEER, ["127.0.0.1:7401"]),
    m.Ack(BEGIN + 3, PEER, "127.0.0.1:7401"),
    m.StartOver(),
    m.AskAll(3, BEGIN, [(0, 256), (512, 513)]),
]
"""One of each kind."""
