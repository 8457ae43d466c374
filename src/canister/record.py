"""What a session is on disk and on the wire, and the rule that merges two copies of it.

A `Record` is a set of versioned facts. A commit is a record that holds just what the commit wrote; a
session is the merge of all its commits, so `merge` is the one rule by which nodes agree. It is
commutative, associative and idempotent: a delta-state CRDT (Almeida, Shoker and Baquero, "Delta State
Replicated Data Types", 2018) built of last-writer-wins and maximum registers (Shapiro et al., "A
comprehensive study of Convergent and Commutative Replicated Data Types", 2011).
"""

import secrets
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, NewType

import msgspec
from msgspec import Meta

from canister.clock import DAY
from canister.errors import ProtocolError

NodeId = NewType("NodeId", bytes)
"""Eight random bytes that name one unbroken history of commits."""

Version = NewType("Version", bytes)
"""Sixteen bytes, stamp then node id, big-endian: comparing the bytes compares the versions."""

Slot = NewType("Slot", bytes)
"""A name space byte and the encoded key."""

NODE_ID_BYTES = 8
VERSION_BYTES = 16

KEY = b"k"
"""Name space of the application's keys."""
IDENTITY = b"u"
"""Name space of metadata that a clear hides: user and authentication time."""
META = b"m"
"""Name space of metadata that a clear keeps: hashes of secrets."""
COUNTER = b"c"
"""Name space of counters: each node's own increments, to be read as a sum."""

USER = Slot(IDENTITY + b"user")
"""Where a session says whose it is, encoded: what stores find a user's sessions by."""

BACK = META + b"back"
"""Prefix of the slots in which a node marks that a session came back with it; a node id follows."""

_ON_SERVERS = b"\xff\xfe"
"""How the ids of processes begin that keep their sessions on servers."""
SERVERS = NodeId(_ON_SERVERS.ljust(NODE_ID_BYTES, b"\0"))
"""Stands for all of these where it is told what was heard: who has read the servers has heard them all."""

_SPACES = (KEY[0], IDENTITY[0], META[0], COUNTER[0])
_MAX_SLOT_BYTES = 1049
_LONGEST = 400 * DAY
LATEST = 2**57
"""What no instant or stamp reaches: far off, but still a `datetime`, and sums still fit SQLite's integers."""
_TOO_LATE = LATEST.to_bytes(8, "big")
"""What the version of no commit reaches."""
_NO_VERSION = Version(b"")

# What is refused while it is decoded; what two fields must have in common is left to `check_record`.
_Version = Annotated[Version, Meta(min_length=VERSION_BYTES, max_length=VERSION_BYTES)]
_Instant = Annotated[int, Meta(ge=0, lt=LATEST)]
_Span = Annotated[int, Meta(gt=0, lt=LATEST)]
_Lifetime = Annotated[int, Meta(gt=0, le=_LONGEST)]
_Until = Annotated[int, Meta(gt=-LATEST, lt=LATEST)]
_Slot = Annotated[Slot, Meta(min_length=1, max_length=_MAX_SLOT_BYTES)]


def new_node_id() -> NodeId:
    """Draw the id of a node that keeps sessions itself."""
    while True:
        node = NodeId(secrets.token_bytes(NODE_ID_BYTES))
        if not node.startswith(_ON_SERVERS):
            return node


def new_server_node_id() -> NodeId:
    """Draw the id of a process that keeps its sessions on servers, such that `origin_of` knows it."""
    return NodeId(_ON_SERVERS + secrets.token_bytes(NODE_ID_BYTES - len(_ON_SERVERS)))


def make_version(stamp: int, node: NodeId) -> Version:
    """Return the version of the commit that *node* drew *stamp* for."""
    return Version(stamp.to_bytes(8, "big") + node)


def stamp_of(version: Version) -> int:
    """Return the stamp (microseconds) of a version."""
    return int.from_bytes(version[:8], "big")


def node_of(version: Version) -> NodeId:
    """Return the node id of a version."""
    return NodeId(version[8:])


def origin_of(version: Version) -> NodeId:
    """Return whom one must have heard of to have a version: its node, or `SERVERS`."""
    node = node_of(version)
    return SERVERS if node.startswith(_ON_SERVERS) else node


class _Fact(msgspec.Struct, array_like=True, frozen=True, gc=False):
    version: _Version


class Birth(_Fact, frozen=True, gc=False):
    """Written once, by the commit that creates the session. Durations and *born* in microseconds."""

    born: _Instant
    absolute: _Lifetime
    idle: _Span
    interval: _Instant
    grace: _Instant


class Expiry(_Fact, frozen=True, gc=False):
    """The session's own times. ``idle=None`` means as at birth, ``until=None`` no instant of its own."""

    idle: _Instant | None
    interval: _Instant
    until: _Until | None


class Touch(_Fact, frozen=True, gc=False):
    """The last recorded access (microseconds since 1970)."""

    access: _Instant


class Destroy(_Fact, frozen=True, gc=False):
    """A tombstone, kept until the instant *keep*. *followed*: its client was given another session."""

    keep: _Instant
    followed: bool = False


class Cell(_Fact, frozen=True, gc=False):
    """One key's value, encoded; None where the key was removed."""

    value: bytes | None


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A session, or the part of it that one commit wrote.

    *reach* is the greatest idle timeout plus touch interval the session ever had: what shortens a
    session must not shorten how long its data is kept. *cells* are sorted by slot, so that equal
    records have equal encodings.
    """

    birth: Birth | None = None
    expiry: Expiry | None = None
    reach: _Instant = 0
    touch: Touch | None = None
    clear: _Version | None = None
    destroy: Destroy | None = None
    cells: dict[_Slot, Cell] = msgspec.field(default_factory=dict[Slot, Cell])


EMPTY = Record()

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


encode_record: Callable[[Record], bytes] = _encoder.encode
"""Returns the canonical encoding of a record."""


def decode_record(data: bytes) -> Record:
    """Return the record that `encode_record` wrote.

    Raises:
        ProtocolError: *data* is not the encoding of a record, or a field is out of its range.
    """
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # of msgspec, and of text that is no UTF-8
        raise ProtocolError(f"not a record: {error}") from error


def digest_of(session: bytes, encoded: bytes, key: bytes) -> bytes:
    """Return the 128-bit keyed hash of one session's id and encoded record.

    Keyed, so that nobody who chooses session contents can make digests cancel out.
    """
    running = _keyed(key).copy()
    running.update(len(session).to_bytes(2, "big") + session + encoded)
    return running.digest()


@lru_cache(maxsize=16)
def _keyed(key: bytes) -> blake2b:
    """Return the hash that has taken in the key; a process has one or two of them."""
    return blake2b(digest_size=16, key=key)


def merge(a: Record, b: Record) -> Record:
    """Return the record that holds what *a* and *b* hold, conflicts decided alike on every node."""
    if a is EMPTY and _is_merged(b):
        return b
    if _only_writes(a, b):
        touch = a.touch if b.touch is None else _merge_touch(a.touch, b.touch)
        return Record(a.birth, a.expiry, a.reach, touch, None, None, _merge_cells(a.cells, b.cells, None))
    destroy = _merge_destroy(a.destroy, b.destroy)
    if destroy is not None:
        return Record(destroy=destroy)
    clear = max(a.clear or b"", b.clear or b"") or None
    return Record(
        birth=_merge_birth(a.birth, b.birth),
        expiry=_greatest(a.expiry, b.expiry),
        reach=max(a.reach, b.reach),
        touch=_merge_touch(a.touch, b.touch),
        clear=Version(clear) if clear else None,
        cells=_merge_cells(a.cells, b.cells, clear),
    )


def newest(record: Record) -> int:
    """Return the greatest stamp in a record, 0 in an empty one."""
    return stamp_of(latest(record))


def latest(record: Record) -> Version:
    """Return the greatest version in a record, in an empty one what is less than any."""
    # Spelled out: this is asked of every record that a peer sends.
    birth, touch = record.birth, record.touch
    found = _NO_VERSION if birth is None else birth.version
    for cell in record.cells.values():
        if cell.version > found:
            found = cell.version
    if touch is not None and touch.version > found:
        found = touch.version
    if record.expiry is not None and record.expiry.version > found:
        found = record.expiry.version
    if record.destroy is not None and record.destroy.version > found:
        found = record.destroy.version
    return record.clear if record.clear is not None and record.clear > found else found


def user_of(record: Record) -> bytes | None:
    """Return whose session it is, encoded; None if nobody is logged in."""
    cell = record.cells.get(USER)
    return cell.value if cell is not None else None


def versions(record: Record) -> list[Version]:
    """Return the version of every fact in a record."""
    facts = (record.birth, record.expiry, record.touch, record.destroy, *record.cells.values())
    found = [fact.version for fact in facts if fact is not None]
    return found if record.clear is None else [*found, record.clear]


def check_record(record: Record) -> None:
    """Refuse a record that was decoded and that no correct node can have written.

    Raises:
        ProtocolError: says what is wrong.
    """
    if latest(record) >= _TOO_LATE:
        raise ProtocolError("a version is out of range")
    birth, touch = record.birth, record.touch
    if birth is not None:
        if birth.born + birth.absolute + birth.grace >= LATEST:
            raise ProtocolError("a birth ends out of range")
        if birth.born.to_bytes(8, "big") > birth.version:
            raise ProtocolError("a birth is later than its own stamp")
    if touch is not None and touch.access.to_bytes(8, "big") > touch.version:
        raise ProtocolError("a touch is later than its own stamp")
    for slot in record.cells:
        if slot[0] not in _SPACES:
            raise ProtocolError("a cell is in an unknown name space")


def _is_merged(record: Record) -> bool:
    """Tell whether merging into nothing returns the same record: nothing hides a part, cells are sorted."""
    if record.destroy is not None or record.clear is not None:
        return False
    cells = record.cells
    return len(cells) < 2 or [*cells] == sorted(cells)


def _only_writes(a: Record, b: Record) -> bool:
    """Tell whether *b* is what nearly all commits are: keys of a session that nothing hides."""
    return (
        b.birth is None
        and b.expiry is None
        and not b.reach
        and b.clear is None
        and b.destroy is None
        and a.clear is None
        and a.destroy is None
    )


def _merge_destroy(a: Destroy | None, b: Destroy | None) -> Destroy | None:
    if a is None or b is None:
        return a or b
    return Destroy(max(a.version, b.version), max(a.keep, b.keep), a.followed or b.followed)


def _merge_birth(a: Birth | None, b: Birth | None) -> Birth | None:
    """On a conflict the later end wins; the rest of the order only has to be the same everywhere."""
    if a is None or b is None:
        return a or b
    best = max(a, b, key=lambda x: (x.born + x.absolute, x.version, x.born, x.idle, x.interval))
    # The longer grace, whoever wins: merging never lowers the retention.
    return msgspec.structs.replace(best, grace=max(a.grace, b.grace))


def _merge_touch(a: Touch | None, b: Touch | None) -> Touch | None:
    if a is None or b is None:
        return a or b
    return max(a, b, key=lambda touch: (touch.access, touch.version))


def _greatest(a: Expiry | None, b: Expiry | None) -> Expiry | None:
    if a is None or b is None:
        return a or b
    # The fields after the version never decide between correct nodes: one version has one content.
    return max(a, b, key=lambda x: (x.version, _encoder.encode(x)))


def _merge_cells(a: Mapping[Slot, Cell], b: Mapping[Slot, Cell], clear: bytes | None) -> dict[Slot, Cell]:
    merged = dict(a)
    for slot, cell in b.items():
        have = merged.get(slot)
        if have is None or have.version < cell.version or _order(have) < _order(cell):
            merged[slot] = cell
    grown = len(merged) > len(a)
    if clear is not None:
        merged = {s: c for s, c in merged.items() if c.version >= clear or s[0] == META[0]}
    return dict(sorted(merged.items())) if grown and len(merged) > 1 else merged


def _order(cell: Cell) -> tuple[Version, bool, bytes]:
    return (cell.version, cell.value is not None, cell.value or b"")
