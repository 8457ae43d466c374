"""What a process keeps in memory of one session."""

import msgspec

from canister.record import EMPTY, Record
from canister.store.base import ABSENT, Stored
from canister.store.transaction import Row

_OF_SESSION, _OF_KEY = 1100, 250
"""Bytes in memory of a session and of each of its keys, beside what is encoded, in round numbers."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A session in memory, or that there is none.

    Attributes:
        at: the count of its stripe at which this is what is stored.
        stored: the session, as readers get it.
        held: what is held back until its time comes.
        retain: when its data may go.
        digest: its digest; None while nobody has needed it.
        size: about how many bytes it takes in memory, where its record and its values have been asked for.
        place: where the row is in the table, or would be.
    """

    at: int
    stored: Stored
    held: Record | None
    retain: int
    digest: bytes | None
    size: int
    place: int

    @property
    def row(self) -> Row | None:
        """The session, as writers need it; None: there is none."""
        if self.stored is ABSENT:
            return None
        return Row(self.stored.record or EMPTY, self.held, self.retain, self.digest)


def absence(at: int, place: int) -> Kept:
    """Return how it is kept in memory that a session is not here.

    Args:
        at: the count of its stripe.
        place: where it would be in the table.
    """
    return Kept(at, ABSENT, None, 0, None, 0, place)


def keeping(at: int, row: Row, stored: Stored, encoded: int, place: int) -> Kept:
    """Return a row as it is kept in memory.

    In memory its bytes are twice: as they are stored, and decoded. Text beyond ASCII takes more: up to four
    bytes a character.

    Args:
        at: the count of its stripe.
        row: the row.
        stored: what readers get of it.
        encoded: its bytes in the table.
        place: where it is in the table.
    """
    size = _OF_SESSION + _OF_KEY * len(row.record.cells) + 2 * encoded
    return Kept(at, stored, row.held, row.retain, row.digest, size, place)
