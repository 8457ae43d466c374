"""What must hold during and after a run, checked against the journal of acknowledged commits.

The promises, I1 to I12, are those of ``docs/explanation/consistency.md``.
"""

from functools import reduce

import msgspec

from canister.freshness import Seen, missing, seen_in
from canister.life import Status, hard_end, retention, status
from canister.record import BACK, EMPTY, KEY, Record, Version, decode_record, merge, node_of, stamp_of
from canister.testing.simulation.cluster import Cluster, SimNode


class Violation(AssertionError):
    """An invariant does not hold; *session* is the one that shows it, if one does."""

    def __init__(self, what: str, session: bytes | None = None) -> None:
        super().__init__(what)
        self.session = session


class Reader:
    """A client that reads one session anywhere and remembers what it saw (I8)."""

    def __init__(self, session: bytes) -> None:
        self.session = session
        self.shown: Seen = ()
        self.seen: Record = EMPTY

    def read(self, cluster: Cluster, node: SimNode) -> bool:
        """Read on *node* if it may serve this client; return whether it did.

        Raises:
            Violation: it served something older.
        """
        stored = node.store.load(self.session)
        if stored.held or missing(self.shown, node.store.heard_of):
            return False
        record = stored.record or EMPTY
        # Where the client saw it, it may be over by now: what is over is left out of comparisons,
        # and then heard of without having been sent.
        over = retention(self.seen) <= node.clock.now() + cluster.policy.drift
        if not over and merge(record, self._promised()) != merge(record, EMPTY):
            raise Violation(
                f"I8: {node.address} served {self.session!r} older than what the client had seen",
                self.session,
            )
        self.seen, self.shown = record, seen_in(record)
        return True

    def _promised(self) -> Record:
        """Return what of *seen* it vouches for: what the nodes it names wrote."""
        nodes = {node_of(version) for version in self.shown}
        cells = {slot: cell for slot, cell in self.seen.cells.items() if node_of(cell.version) in nodes}
        clear = self.seen.clear
        return Record(clear=clear if clear and node_of(clear) in nodes else None, cells=cells)


def check_destroyed(cluster: Cluster, destroyed: dict[bytes, Version]) -> int:
    """I4: no node that has heard of a destroy shows the session; return how many were looked at.

    Raises:
        Violation: a destroyed session is shown.
    """
    looked = 0
    for session, version in destroyed.items():
        for node in cluster.nodes.values():
            if node.store.heard_of(node_of(version)) < stamp_of(version):
                continue
            looked += 1
            state = status(node.visible(session), node.clock.now())
            if state not in (Status.DESTROYED, Status.UNKNOWN):
                raise Violation(f"I4: {node.address} shows destroyed {session!r} as {state}", session)
    return looked


def check_stamps(cluster: Cluster) -> int:
    """I11: the stamps of each node id strictly increase; return how many were looked at.

    Raises:
        Violation: a stamp was drawn twice or out of order.
    """
    last: dict[bytes, int] = {}
    for _, version, _ in cluster.journal.commits:
        stamp = stamp_of(version)
        if stamp <= last.get(node_of(version), 0):
            raise Violation(f"I11: {node_of(version).hex()} drew {stamp} after {last[node_of(version)]}")
        last[node_of(version)] = stamp
    return len(cluster.journal.commits)


def check_shape(cluster: Cluster) -> int:
    """R2, R6, R9, R17: what readers are shown is whole; return how many sessions were looked at.

    Raises:
        Violation: a session is shown in part, or past its absolute lifetime.
    """
    looked = 0
    for node in cluster.nodes.values():
        for session, record in node.sessions():
            if record.destroy is not None:
                continue
            looked += 1
            if record.birth is None or record.touch is None:
                raise Violation(
                    f"R6: {node.address} shows {session!r} without its birth or its touch", session
                )
            first = cluster.journal.births.get(session)
            if first is not None and hard_end(record) > hard_end(first):
                raise Violation(
                    f"R9: {node.address} shows {session!r} with a later end than it was born with"
                )
            for delta in cluster.journal.updates.get(session, ()):
                _check_whole(node, session, record, delta)
    return looked


def check_written(node: SimNode, session: bytes, version: Version, was_over: bool) -> None:
    """I2, I5: what was just written is what is shown; a session that was over starts afresh.

    Raises:
        Violation: something older is shown.
    """
    record = node.visible(session) or EMPTY
    delta = decode_record(node.cluster.journal.commits[-1].rows[0][1])
    for slot in delta.cells:
        if slot not in record.cells or record.cells[slot].version != version:
            raise Violation(f"R4: {node.address} wrote {session!r} and shows something else", session)
    keys = [cell for slot, cell in record.cells.items() if slot[0] == KEY[0]]
    if was_over and any(cell.version < version for cell in keys):
        raise Violation(
            f"R12: {node.address} started {session!r} afresh and shows what it held before", session
        )


def check_quiet(cluster: Cluster, seconds: float) -> int:
    """R7, R16: equal nodes find nothing to exchange; return how many comparisons were watched.

    Raises:
        Violation: sessions go back and forth.
    """
    replicas = [node.replica for node in cluster.nodes.values() if node.replica is not None]
    before = [replica.comparisons.exchanged for replica in replicas]
    cluster.run(seconds)
    if [replica.comparisons.exchanged for replica in replicas] != before:
        raise Violation("R7: equal nodes still exchange sessions")
    return sum(len(replica.links) for replica in replicas)


def check_converged(cluster: Cluster) -> int:
    """I1, I2, I3, I5, I9: all nodes hold what was acknowledged; return how many sessions were compared.

    What a power cut may have taken may be there or not, the same everywhere.

    Raises:
        Violation: nodes differ, or hold more or less than was acknowledged.
    """
    if len(cluster.digests()) != 1:
        raise Violation("I1: the nodes' digests differ after the heal")
    deltas: dict[bytes, list[tuple[bool, Record]]] = {}
    for _, version, rows in cluster.journal.commits:
        for session, delta in rows:
            sure = version not in cluster.journal.unsure
            deltas.setdefault(session, []).append((sure, decode_record(delta)))
    now = max(node.clock.now() for node in cluster.nodes.values())
    compared = 0
    for session, found in deltas.items():
        least = reduce(merge, (delta for sure, delta in found if sure), EMPTY)
        most = reduce(merge, (delta for _, delta in found), EMPTY)
        if retention(least) <= now + cluster.policy.drift or (least.birth is None and least.destroy is None):
            continue
        compared += 1
        for node in cluster.nodes.values():
            _check_session(node, session, least, most)
    return compared


def _check_session(node: SimNode, session: bytes, least: Record, most: Record) -> None:
    encoded = node.whole(session)
    if encoded is None:
        raise Violation(f"I2: {node.address} lost {session!r}", session)
    whole = decode_record(encoded)
    if merge(whole, least) != whole:
        raise Violation(
            f"I2: {node.address} lacks acknowledged writes of {session!r}:\n{whole}\n{least}", session
        )
    cells = {slot: cell for slot, cell in whole.cells.items() if not slot.startswith(BACK)}
    whole = msgspec.structs.replace(whole, cells=cells)
    if merge(most, whole) != most:
        raise Violation(
            f"I5: {node.address} holds more of {session!r} than was written:\n{whole}\n{most}", session
        )


def _check_whole(node: SimNode, session: bytes, record: Record, delta: Record) -> None:
    versions = {slot: cell.version for slot, cell in record.cells.items()}
    written = {slot: cell.version for slot, cell in delta.cells.items()}
    if any(versions.get(slot) == version for slot, version in written.items()):
        torn = [slot for slot, version in written.items() if versions.get(slot, Version(b"")) < version]
        if torn:
            raise Violation(f"R2: {node.address} shows a part of a commit to {session!r}", session)
