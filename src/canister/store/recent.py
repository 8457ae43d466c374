"""Rows that were written last, in memory that the processes of a node share.

What another process has just written would have to be read from the database, and SQLite drops all the pages
it has kept whenever that happens. So a writer leaves what it has committed here too: in a ring, with an index
that says where the last row of each stripe begins. Nobody waits for anybody: a row names the count
at which it is what is stored (`canister.store.cache`), and has a keyed digest, so that a row that is just
being overwritten, or over which a writer was killed, is known by whoever reads it. So is what only looks like
a row: the index may point into the middle of what a client has stored.
"""

import os
import secrets
import struct
from hashlib import blake2b

from canister.store.base import Stored
from canister.store.kept import Kept

STRIPES = 2**18
"""How many stripes there are: few sessions share one, and most of the counts stay in a processor's cache."""
_LARGEST = 64 * 1024
"""Bytes of a row that is left here: a few large ones must not push out all others."""
_FIELDS = struct.Struct("=IHI16sqqqI")
"""Count, bytes of id and of record, digest, retention, place, end and size; id and record follow."""
_DIGEST_BYTES = 8
_KEY_BYTES = 16
_HEAD_BYTES = _DIGEST_BYTES + _FIELDS.size
_NEXT, _WANTED, _WRITER = STRIPES, STRIPES + 1, STRIPES + 2
"""Which entries of the index say where there is room, whether rows are wanted, and who writes."""
_SEVERAL = 0xFFFF_FFFF
"""Stands for several writers."""
_INDEX_BYTES = 4 * (STRIPES + 3)


def recent_bytes(ring: int) -> int:
    """Return how much memory a ring of so many bytes takes with its key and its index."""
    return _KEY_BYTES + _INDEX_BYTES + ring


def draw_key(memory: memoryview) -> None:
    """Give memory for rows its key, before anybody uses it."""
    memory[:_KEY_BYTES] = secrets.token_bytes(_KEY_BYTES)


class RecentRows:
    """The rows written last.

    Args:
        memory: where they are, as many bytes as `recent_bytes` says; zeros at first, but for the key.
    """

    def __init__(self, memory: memoryview) -> None:
        self._keyed = blake2b(digest_size=_DIGEST_BYTES, key=memory[:_KEY_BYTES])
        self._index = memory[_KEY_BYTES : _KEY_BYTES + _INDEX_BYTES].cast("I")
        self._ring = memory[_KEY_BYTES + _INDEX_BYTES :]
        self._salt = secrets.randbits(32)

    def sign(self) -> None:
        """Note that this process writes sessions."""
        if not self._index[_WANTED]:
            own = self._own()
            self._index[_WRITER] = own if self._index[_WRITER] in (0, own) else _SEVERAL

    def want(self) -> None:
        """Ask for rows if others write too: where one process is all that does, it leaves none for itself."""
        if self._index[_WRITER] != self._own():
            self._index[_WANTED] = 1

    def _own(self) -> int:
        # A forked child is another process, and so are containers in which process ids begin anew.
        return (os.getpid() & 0xFFFF_FFFF) ^ self._salt

    def are_wanted(self) -> bool:
        """Tell whether any process has asked for rows."""
        return self._index[_WANTED] == 1

    def make(self, session: bytes, kept: Kept) -> bytes | None:
        """Return a session that was written as it is left; None if it is decoded, or too large."""
        record, digest = kept.stored.encoded, kept.digest
        if record is None or len(record) > _LARGEST:
            return None
        assert digest is not None, "what is written has one"
        fields = _FIELDS.pack(
            kept.at, len(session), len(record), digest, kept.retain, kept.place, kept.stored.end, kept.size
        )
        body = fields + session + record
        return self._digest(body) + body

    def add(self, stripe: int, row: bytes) -> None:
        """Leave a row that was made here and is stored; only the writer may."""
        begin = self._index[_NEXT]
        if begin + len(row) > len(self._ring):
            begin = 0
        self._ring[begin : begin + len(row)] = row
        self._index[stripe] = begin
        self._index[_NEXT] = begin + len(row)

    def find(self, stripe: int, count: int, session: bytes) -> Kept | None:
        """Return a session as it is stored while its stripe has this count, None if it is not here."""
        begin = self._index[stripe]
        head = self._ring[begin : begin + _HEAD_BYTES].tobytes()
        if len(head) < _HEAD_BYTES:
            return None
        at, id_bytes, record_bytes, digest, retain, place, end, size = _FIELDS.unpack_from(
            head, _DIGEST_BYTES
        )
        if at != count or id_bytes != len(session):
            return None
        rest = self._ring[begin + _HEAD_BYTES : begin + _HEAD_BYTES + id_bytes + record_bytes].tobytes()
        if not rest.startswith(session) or self._digest(head[_DIGEST_BYTES:] + rest) != head[:_DIGEST_BYTES]:
            return None
        stored = Stored(None, held=False, encoded=rest[id_bytes:], end=end)
        return Kept(at, stored, None, retain, digest, size, place)

    def _digest(self, body: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(body)
        return keyed.digest()
