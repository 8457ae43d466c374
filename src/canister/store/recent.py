"""Rows that were written last, in memory that the processes of a node share.

What another process has just written would have to be read from the database, and SQLite drops all the pages
it has kept whenever that happens. So a writer leaves what it has committed here too: in a ring, with an index
that says where the last row of each bucket begins. Nobody waits for anybody: a row names the count
at which it is what is stored (`canister.store.cache`), and has a checksum, so that a row that is just being
overwritten, or over which a writer was killed, is known by whoever reads it.
"""

import struct
import zlib

import msgspec

from canister.store.base import BUCKETS, Mark

_LARGEST = 64 * 1024
"""Bytes of a row that is left here: a few large ones must not push out all others."""
_FIELDS = struct.Struct("=IHI16sqq")
"""Count, bytes of the id, bytes of the record, digest, retention and place; id and record follow."""
_SUM_BYTES = 4
_NEXT, _WANTED = BUCKETS, BUCKETS + 1
"""Which entries of the index say where there is room, and whether rows are wanted."""
_INDEX_BYTES = 4 * (BUCKETS + 2)


def recent_bytes(ring: int) -> int:
    """Return how much memory a ring of so many bytes takes with its index."""
    return _INDEX_BYTES + ring


class RecentRow(msgspec.Struct, frozen=True, gc=False):
    """A session's row, of which nothing is held back."""

    record: bytes
    mark: Mark
    place: int


def recent_row(count: int, session: bytes, record: bytes, mark: Mark, place: int) -> bytes | None:
    """Return a row as it is left, stored while its bucket has *count*; None if it is too large."""
    fields = _FIELDS.pack(count, len(session), len(record), mark.digest, mark.retain, place)
    body = fields + session + record
    if len(body) > _LARGEST:
        return None
    return zlib.crc32(body).to_bytes(_SUM_BYTES, "little") + body


class RecentRows:
    """The rows written last.

    Args:
        memory: where they are, as many bytes as `recent_bytes` says; zeros at first.
    """

    def __init__(self, memory: memoryview) -> None:
        self._index = memory[:_INDEX_BYTES].cast("I")
        self._ring = memory[_INDEX_BYTES:]

    def want(self) -> None:
        """Ask for rows: until somebody does, as where one process is all there is, writers leave none."""
        self._index[_WANTED] = 1

    def are_wanted(self) -> bool:
        """Tell whether any process has asked for rows."""
        return self._index[_WANTED] == 1

    def add(self, bucket: int, row: bytes) -> None:
        """Leave a row that `recent_row` has made and that is stored; only the writer may."""
        begin = self._index[_NEXT]
        if begin + len(row) > len(self._ring):
            begin = 0
        self._ring[begin : begin + len(row)] = row
        self._index[bucket] = begin
        self._index[_NEXT] = begin + len(row)

    def find(self, bucket: int, count: int, session: bytes) -> RecentRow | None:
        """Return a session's row as stored while its bucket has this count, None if it is not here."""
        begin = self._index[bucket] + _SUM_BYTES
        head = self._ring[begin : begin + _FIELDS.size].tobytes()
        if len(head) < _FIELDS.size:
            return None
        at, id_bytes, record_bytes, digest, retain, place = _FIELDS.unpack(head)
        if at != count or id_bytes != len(session):
            return None
        rest = self._ring[begin + _FIELDS.size : begin + _FIELDS.size + id_bytes + record_bytes].tobytes()
        checksum = self._ring[begin - _SUM_BYTES : begin].tobytes()
        if not rest.startswith(session) or zlib.crc32(rest, zlib.crc32(head)) != int.from_bytes(
            checksum, "little"
        ):
            return None
        return RecentRow(rest[id_bytes:], Mark(digest, retain), place)
