"""One session from two engines: the records are of one kind, so what is true of it is their merge."""

from collections.abc import Callable, Iterator, Sequence

from canister.clock import Clock
from canister.life import NEVER, retention
from canister.record import EMPTY, SERVERS, NodeId, Record, Version, merge, user_of
from canister.store.base import Edit, Known, Peers, Store, Stored


def joined(a: Record | None, b: Record | None, now: int) -> Record | None:
    """Return what two engines know of a session; what is past its retention is gone, dropped or not."""
    known = [record for record in (a, b) if record is not None and retention(record) > now]
    if len(known) == 2:
        return merge(*known)
    return known[0] if known else None


def lacks(record: Record | None, other: Record) -> bool:
    """Tell whether there is something in *other* that *record* does not have."""
    return merge(record or EMPTY, other) != record


class BothStores:
    """A `canister.store.base.Store` that shows the sessions of two.

    Args:
        first: the one that is listed first.
        second: the other one.
        mesh: that of the two that has peers.
        clock: where the time comes from.
        commit: what writes.
    """

    def __init__(
        self,
        first: Store,
        second: Store,
        mesh: Store,
        clock: Clock,
        commit: Callable[[Sequence[tuple[bytes, Edit]]], Version | None],
    ) -> None:
        self._first = first
        self._second = second
        self._mesh = mesh
        self._clock = clock
        self._commit = commit

    @property
    def node(self) -> NodeId:
        return self._mesh.node

    def load(self, session: bytes) -> Stored:
        first, second = self._first.load(session), self._second.load(session)
        record = joined(first.record, second.record, self._clock.now())
        return Stored(record, first.held or second.held)

    def commit(self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None) -> Version | None:
        return self._commit(edits)

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        for session, record in self._first.scan():
            found = joined(record, self._second.load(session).record, self._clock.now())
            if found is not None:
                yield session, found
        for session, record in self._second.scan():
            if self._first.load(session).record is None:
                yield session, record

    def of_user(self, user: bytes) -> list[tuple[bytes, Record]]:
        listed = {session for store in (self._first, self._second) for session, _ in store.of_user(user)}
        found = [(session, self.load(session).record) for session in sorted(listed)]
        return [(session, record) for session, record in found if record and user_of(record) == user]

    def heard_of(self, node: NodeId) -> int:
        # Whoever reads the servers misses nothing that was written there.
        return NEVER if node == SERVERS else self._mesh.heard_of(node)

    def peers(self) -> Peers:
        return self._mesh.peers()

    def close(self) -> None:
        self._first.close()
        self._second.close()
