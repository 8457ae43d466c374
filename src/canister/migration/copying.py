"""Carrying the sessions over, and showing that nothing is missing where they went to.

Copying is merging: it can be done again and again, in any order and beside any traffic. It never goes over
a tombstone, because a tombstone absorbs what is merged with it; and where it meets one that the engine the
session comes from has not heard of, it carries that back.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

from canister.codec import is_session_id
from canister.life import is_live, retention
from canister.migration.both import joined, lacks
from canister.migration.engine import Side
from canister.record import Record, newest


class Progress(NamedTuple):
    """How far a copy is: where it goes on, which share is done, how many sessions it has carried."""

    position: bytes
    share: float
    carried: int


class Verified(NamedTuple):
    """What a comparison of both engines with the new one alone has found.

    Attributes:
        sessions: how many live sessions of the old engine were compared.
        digest_of_both: the digest of their ids, keys and values as readers of both engines see them.
        digest_of_new: the same as readers of the new engine alone see them.
        differing: the sessions that these do not see alike.
        written_late: the sessions that were written to the old engine alone after its turn was over.
    """

    sessions: int
    digest_of_both: str
    digest_of_new: str
    differing: list[bytes]
    written_late: list[bytes]


def content_digest(session: bytes, record: Record | None, at: int) -> int:
    """Return a number that stands for a session's id, keys and values as readers see them; 0 if it is over.

    It says nothing of versions and times, so engines of any kind agree on it.
    """
    if record is None or not is_live(record, at):
        return 0
    hashed = blake2b(len(session).to_bytes(2, "big") + session, digest_size=16)
    for slot, cell in sorted(record.cells.items()):
        if cell.value is not None:
            hashed.update(b"".join(len(part).to_bytes(4, "big") + part for part in (slot, cell.value)))
    return int.from_bytes(hashed.digest(), "big")


def copy(old: Side, new: Side, position: bytes) -> Iterator[Progress]:
    """Carry everything from *old* over to *new*, going on after *position*; yields after each page."""
    carried = 0
    for page in old.store.pages(position):
        carried += len(_carry(old, new, page.sessions))
        yield Progress(page.position, page.share, carried)


def verify(old: Side, new: Side, settled: int) -> Iterator[float | Verified]:
    """Compare, session by session, what both engines hold with what *new* holds alone, and mend it.

    Args:
        old: where the sessions come from.
        new: where they go to.
        settled: the instant after which nobody should have written to *old* any more.

    Yields:
        Which share is done, after each page; what was found, at the end.
    """
    at = new.clock.now()
    of_both = of_new = count = 0
    differing: list[bytes] = []
    late: list[bytes] = []
    for page in old.store.pages():
        if page.anew:
            of_both = of_new = count = 0
            differing.clear()
        carried = _carry(old, new, page.sessions)
        late += [session for session, record in carried if newest(record) > settled]
        found = new.store.load_all([session for session, _ in page.sessions])
        for session, record in page.sessions:
            alone = content_digest(session, found.get(session), at)
            both = content_digest(session, joined(record, found.get(session), at), at)
            of_both, of_new, count = (
                of_both ^ both,
                of_new ^ alone,
                count + (both > 0 and is_session_id(session)),
            )
            if both != alone:
                differing.append(session)
        yield page.share
    yield Verified(count, f"{of_both:032x}", f"{of_new:032x}", differing, late)


def _carry(old: Side, new: Side, sessions: Sequence[tuple[bytes, Record]]) -> list[tuple[bytes, Record]]:
    """Bring *new* what it lacks, and *old* the ends it has not heard of; return the former."""
    now = new.clock.now()
    kept = [(session, record) for session, record in sessions if retention(record) > now]
    there = new.store.load_all([session for session, _ in kept])
    lacking = [(session, record) for session, record in kept if lacks(there.get(session), record)]
    new.take(lacking)
    old.take([(s, there[s]) for s, record in kept if record.destroy is None and _is_destroyed(there.get(s))])
    return [(session, record) for session, record in lacking if is_session_id(session)]


def _is_destroyed(record: Record | None) -> bool:
    return record is not None and record.destroy is not None
