"""The rules of the protocol, each switched off: bugs the checks have to find.

Every entry patches the real code so that it breaks one rule and nothing else.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from canister import edits, life
from canister.edits import Moment
from canister.life import NEVER, deadline
from canister.record import Destroy, Record, merge, newest
from canister.replication import answers, live, pull, replica
from canister.replication.coverage import Coverage
from canister.replication.digests import DigestTree, View
from canister.replication.fetches import Fetches
from canister.replication.link import Link
from canister.replication.membership import Membership
from canister.replication.messages import Root
from canister.sessions.lookup import Lookup
from canister.store import transaction
from canister.store.base import Change, LogEntry, Peers, Stored
from canister.store.memory import MemoryStore
from canister.store.notes import Notes
from canister.store.transaction import Row, Transaction
from canister.testing.simulation.disks import MemoryDisk

Plant = Callable[[], AbstractContextManager[Any]]


def r1_stamp_drawn_without_the_last() -> AbstractContextManager[Any]:
    """A stamp is the wall clock, whatever was drawn before."""
    return patch.object(transaction, "next_stamp", lambda last, now: now)


def r2_commit_applied_in_parts() -> AbstractContextManager[Any]:
    """Of a live commit only the first key is applied; the rest waits for a comparison."""
    original = replica.Replica._on_live

    def torn(self: Any, link: Link, message: Any) -> None:
        commits = [
            [(session, _first_key(encoded)) for session, encoded in commit] for commit in message.commits
        ]
        original(self, link, msgspec.structs.replace(message, commits=commits, upto=0))

    return patch.object(replica.Replica, "_on_live", torn)


def r3_outbox_sends_what_is_left() -> AbstractContextManager[Any]:
    """The live flow sends the key cells of a commit that have not been replaced at the sender."""
    original = live.LiveFlow.flow

    def flow(self: Any, snapshot: Any) -> None:
        def left(entry: LogEntry) -> list[tuple[bytes, bytes]]:
            return [
                (change.session, _still_there(change, snapshot.whole(change.session)))
                for change in entry.changes
                if change.delta is not None
            ]

        with patch.object(live, "_own_commit", left):
            original(self, snapshot)

    return patch.object(live.LiveFlow, "flow", flow)


def r4_received_stamps_do_not_move_the_clock() -> AbstractContextManager[Any]:
    """What is received leaves the node's clock where it was."""
    original = Transaction._log
    return patch.object(Transaction, "_log", lambda self, seen, back=(): original(self, 0, back))


def r4_new_sessions_do_not_move_the_clock() -> AbstractContextManager[Any]:
    """What is received of sessions that were not here leaves the node's clock where it was."""
    original = Transaction._add
    return patch.object(
        Transaction, "_add", lambda self, batch, tell: (original(self, batch, tell=tell)[0], 0)
    )


def r5_node_id_kept_after_a_roll_back() -> AbstractContextManager[Any]:
    """A node that lost commits goes on under its old id."""

    def restore(self: MemoryDisk, name: str) -> None:
        self.store = self._saved[name].copy()

    return patch.object(MemoryDisk, "restore", restore)


def r5_commits_note_no_stamp_outside_the_database() -> AbstractContextManager[Any]:
    """Nothing but the database itself knows how far its history got."""
    return patch.object(Notes, "note_committed", lambda self, stamp: None)


def r6_released_row_by_row() -> AbstractContextManager[Any]:
    """Only the rows that are too far ahead are held, not the session's set."""

    def admit(
        self: Transaction, session: bytes, row: Row | None, incoming: Record, whole: Record, delta: Any
    ) -> int:
        limit = self._now + self._scope.drift
        due = _facts_until(incoming, limit)
        record = merge(row.record if row else Record(), due)
        held = (
            merge(row.held if row and row.held else Record(), incoming) if newest(incoming) > limit else None
        )
        self._put(session, row, record, held, None)
        return newest(due)

    return patch.object(Transaction, "_admit", admit)


def r7_digest_of_visible_rows() -> AbstractContextManager[Any]:
    """The digest of a session leaves out what is held."""
    original = Transaction._put

    def put(
        self: Any, session: bytes, row: Row | None, record: Record, held: Record | None, delta: Any
    ) -> bytes:
        encoded = original(self, session, row, record, None, delta)
        if held is not None:
            stored = self._rows.get(session)
            self._rows.put(session, msgspec.structs.replace(stored, held=held), encoded)
        return encoded

    return patch.object(Transaction, "_put", put)


def r8_destroys_are_held_back() -> AbstractContextManager[Any]:
    """A destroy from a clock too far ahead waits like any other row."""
    original = Transaction._admit

    def admit(self: Any, session: bytes, row: Row | None, incoming: Record, whole: Record, delta: Any) -> int:
        if (
            incoming.destroy is not None
            and newest(incoming) > self._now + self._scope.drift
            and row is not None
        ):
            self._put(session, row, row.record, merge(row.held or Record(), incoming), None)
            return 0
        return original(self, session, row, incoming, whole, delta)

    return patch.object(Transaction, "_admit", admit)


def r9_birth_is_rewritten() -> AbstractContextManager[Any]:
    """A put on an expired session moves its birth."""

    def afresh(record: Record, moment: Moment, policy: Any, cells: Any) -> Record:
        return edits._newborn(moment, policy, cells, clear=True)

    return patch.object(edits, "_afresh", afresh)


def r10_tombstone_kept_for_the_grace_period() -> AbstractContextManager[Any]:
    """A tombstone goes after the grace period, not after the session's end."""

    def destroy(record: Record | None, moment: Moment, policy: Any) -> Record:
        return Record(destroy=Destroy(moment.version, _stamp(moment.version) + policy.grace))

    return patch.object(edits, "destroy", destroy)


def r12_put_on_expired_without_a_clear() -> AbstractContextManager[Any]:
    """A put on an expired session leaves the old keys showing."""
    original = edits._afresh

    def afresh(record: Record, moment: Moment, policy: Any, cells: Any) -> Record:
        return msgspec.structs.replace(original(record, moment, policy, cells), clear=None)

    return patch.object(edits, "_afresh", afresh)


def r13_purge_without_the_gate() -> AbstractContextManager[Any]:
    """Sessions are dropped at their retention, whoever has not been compared with."""
    return patch.object(replica.Replica, "gate", lambda self: NEVER)


def r14_retention_follows_what_shortens() -> AbstractContextManager[Any]:
    """A session is retained for the grace period after its present deadline."""

    def retention(record: Record) -> int:
        if record.destroy is not None or record.birth is None:
            return life.retention(record)
        return deadline(record) + record.birth.grace

    return patch.object(transaction, "retention", retention)


def r16_each_side_by_its_own_clock() -> AbstractContextManager[Any]:
    """Each side of a comparison leaves out what is over by its own clock."""
    answer_root = answers.answer_root
    compare, answer = pull.Pull._compare_root, answers.Answers.on_ask

    def root(question: Any, view: Any, now: int, node: Any, members: Any) -> Root:
        return answer_root(msgspec.structs.replace(question, now=0), view, now, node, members)

    def compare_root(self: Any, found: Root, mine: Any) -> None:
        compare(self, msgspec.structs.replace(found, at=0), mine)

    def on_ask(self: Any, link: Link, question: Any) -> None:
        answer(self, link, msgspec.structs.replace(question, at=self._clock.now()))

    return _both(
        patch.object(answers, "answer_root", root),
        patch.object(pull.Pull, "_compare_root", compare_root),
        patch.object(answers.Answers, "on_ask", on_ask),
    )


def r17_commit_without_its_birth_applied() -> AbstractContextManager[Any]:
    """A live commit for a session that is not here is stored as it is."""

    def merge_all(self: Any, batch: Any, heard: Any, *, tell: bool) -> Any:
        seen = 0
        for session, incoming in batch:
            row = self._rows.get(session)
            known = row.whole if row else Record()
            whole = merge(known, incoming)
            if whole != known:
                record = merge(row.record if row else Record(), incoming)
                self._put(session, row, record, None, None)
                seen = max(seen, newest(incoming))
        self._log(seen)
        for node, stamp in heard.items():
            self._rows.vouch(node, stamp, self._now)
        return transaction.Merged(len(self._changes), [])

    shown = patch.object(Row, "visible", property(lambda row: row.record if row.record != Record() else None))
    return _both(patch.object(Transaction, "merge", merge_all), shown)


def r19_forgetting_keeps_what_was_heard() -> AbstractContextManager[Any]:
    """A node that forgot a session goes on vouching for it."""

    def forget(self: Any, session: bytes) -> bool:
        with self.store._transaction() as running:
            return running.drop(session) > 0

    return patch.object(replica.Replica, "forget", forget)


def r19_whole_again_without_a_word() -> AbstractContextManager[Any]:
    """A node that has back what it forgot vouches for it to peers that compared with it meanwhile."""
    return patch.object(replica.Replica, "_is_whole", lambda self: False)


def r19_whole_by_the_word_of_a_peer_alone() -> AbstractContextManager[Any]:
    """A node that forgot something waits for a peer to vouch for its last commit, whatever was compared."""
    return patch.object(Coverage, "is_full", lambda self: False)


def r20_live_vouches_before_a_comparison() -> AbstractContextManager[Any]:
    """Live commits vouch for their sender on a link that has not been compared yet."""
    return patch.object(Link, "vouched", lambda self: {self.node: self.live_upto} if self.live_upto else {})


def r20_compared_before_the_digests_are_read() -> AbstractContextManager[Any]:
    """A node that has just started compares, and answers, by what has changed since."""

    @contextmanager
    def view(self: Any) -> Any:
        with self._store.snapshot() as snapshot:
            self.flow(snapshot)
            yield View(self.tree, snapshot)

    is_whole = property(lambda tree: True)
    return _both(
        patch.object(DigestTree, "is_whole", is_whole),
        patch.object(live.LiveFlow, "view", view),
    )


def r20_claims_named_at_the_end() -> AbstractContextManager[Any]:
    """A comparison vouches for all that the peer has heard by the time it ends."""

    def finish(self: Any, link: Link, done: Any) -> None:
        done.claims = {**done.claims, **{node: stamp + 3_000_000 for node, stamp in done.claims.items()}}
        original(self, link, done)

    original = replica.Replica._finish_pull
    return patch.object(replica.Replica, "_finish_pull", finish)


def r20_what_comes_back_is_not_committed_anew() -> AbstractContextManager[Any]:
    """A session that was over here and is brought back by a peer goes on as if it had been sent."""
    return patch.object(Transaction, "_comes_back", lambda self, known, incoming, whole: False)


def r22_a_row_proves_all_before_it() -> AbstractContextManager[Any]:
    """A node counts as heard up to the greatest version of it that is here."""

    def heard_of(self: MemoryStore, node: Any) -> int:
        if node == self.node:
            return NEVER
        found = [_stamp(v) for row in self.rows.values() for v in _versions(row.record) if v[8:] == node]
        return max(found, default=0)

    return patch.object(MemoryStore, "heard_of", heard_of)


def r6_what_is_held_counts_for_nothing() -> AbstractContextManager[Any]:
    """A session of which all is held back counts as not here."""
    load = MemoryStore.load
    return patch.object(
        MemoryStore, "load", lambda self, session: Stored(load(self, session).record, held=False)
    )


def r23_absent_though_some_were_not_compared() -> AbstractContextManager[Any]:
    """A session is called absent, whoever has not been compared with."""
    peers = MemoryStore.peers
    return patch.object(MemoryStore, "peers", lambda self: Peers(peers(self).exist, doubts=0))


def r23_expired_here_is_over() -> AbstractContextManager[Any]:
    """A session that is expired here counts as over, whatever the other members know of it."""
    return patch.object(Lookup, "_is_over", lambda self, record: True)


def r24_all_members_are_those_known_when_asking() -> AbstractContextManager[Any]:
    """A fetch was answered by everyone if those answered whom the node knew when it asked."""
    start, settle = Fetches.start, Fetches._settle

    def started(self: Fetches, session: bytes, links: Any, done: Any) -> int:
        self._asked = self._membership.others()
        return start(self, session, links, done)

    def settled(self: Fetches, number: int) -> None:
        with patch.object(self._membership, "others", lambda: self._asked):
            settle(self, number)

    return _both(patch.object(Fetches, "start", started), patch.object(Fetches, "_settle", settled))


def r24_who_knows_nobody_is_alone() -> AbstractContextManager[Any]:
    """A node that has yet to meet a seed takes itself for the whole cluster."""
    return patch.object(Membership, "has_met_cluster", True)


PLANTED: list[Plant] = [
    plant for name, plant in sorted(globals().items()) if name[0] == "r" and name[1:2].isdigit()
]


def _stamp(version: bytes) -> int:
    return int.from_bytes(version[:8], "big")


def _versions(record: Record) -> list[bytes]:
    facts = (record.birth, record.touch, record.expiry, record.destroy)
    found = [fact.version for fact in facts if fact is not None]
    return found + [cell.version for cell in record.cells.values()]


def _first_key(encoded: bytes) -> bytes:
    record = msgspec.msgpack.decode(encoded, type=Record)
    return msgspec.msgpack.encode(msgspec.structs.replace(record, cells=dict(list(record.cells.items())[:1])))


def _still_there(change: Change, whole: bytes | None) -> bytes:
    delta = msgspec.msgpack.decode(change.delta, type=Record)
    have = msgspec.msgpack.decode(whole, type=Record).cells if whole else {}
    cells = {s: c for s, c in delta.cells.items() if s in have and have[s].version == c.version}
    return msgspec.msgpack.encode(msgspec.structs.replace(delta, cells=cells))


def _facts_until(record: Record, limit: int) -> Record:
    def due(fact: Any) -> Any:
        return fact if fact is not None and _stamp(fact.version) <= limit else None

    return Record(
        birth=due(record.birth),
        expiry=due(record.expiry),
        reach=record.reach,
        touch=due(record.touch),
        clear=record.clear if record.clear and _stamp(record.clear) <= limit else None,
        cells={slot: cell for slot, cell in record.cells.items() if due(cell)},
    )


class _both(AbstractContextManager[Any]):
    def __init__(self, *patches: Any) -> None:
        self._patches = patches

    def __enter__(self) -> None:
        for one in self._patches:
            one.__enter__()

    def __exit__(self, *error: Any) -> None:
        for one in reversed(self._patches):
            one.__exit__(*error)
