"""What merging records from peers has to do, in every store that replicates."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from canister import edits
from canister.clock import Clock
from canister.config import Config
from canister.life import retention
from canister.record import (
    EMPTY,
    Record,
    Touch,
    decode_record,
    encode_record,
    make_version,
    merge,
    stamp_of,
)
from canister.store.base import Change, Merged, ReplicatedStore, Store, bucket_of
from canister.testing.clock import ManualClock
from canister.testing.contract import (
    MINUTE,
    PEER,
    POLICY,
    StoreContract,
    destroy,
    destroyed_elsewhere,
    made_elsewhere,
    put,
    told,
    values,
    visible,
    writing,
)

DRIFT = POLICY.drift


StoreOpener = Callable[..., ReplicatedStore]


def state(store: ReplicatedStore, *sessions: bytes) -> list[object]:
    """Return all that a write could change, to be compared with what it is later."""
    with store.snapshot() as view:
        known = [view.last_stamp(), len(view.log(0)), view.heard()]
        return [*known, *(view.whole(session) for session in sessions)]


def whole(store: ReplicatedStore, session: bytes) -> Record | None:
    """Return all that a store has of a session, held parts as well."""
    with store.snapshot() as view:
        data = view.whole(session)
    return None if data is None else decode_record(data)


def marks(store: ReplicatedStore, above: int = 0, upto: int = 2**62) -> list[tuple[int, bytes]]:
    """Return the marks of a store, sorted."""
    with store.snapshot() as view:
        return sorted(view.marks(above, upto))


def last_changes(store: ReplicatedStore) -> list[Change]:
    """Return what the last transaction of a store changed."""
    with store.snapshot() as view:
        return view.log(0)[-1].changes


class MergingContract(StoreContract):
    """Tests of what arrives from peers: merged, held back, or refused."""

    def open_store(self, directory: Path, config: Config, clock: Clock) -> ReplicatedStore:
        """Open the store under test; a subclass says how. The same directory is the same node."""
        raise NotImplementedError

    def state(self, store: Store, *sessions: bytes) -> list[object]:
        """Return all that a write could change, to be compared with what it is later."""
        return state(cast("ReplicatedStore", store), *sessions)

    def verbs(self, store: Store) -> list[Callable[[], object]]:
        """Return one call of each verb."""
        replicated = cast("ReplicatedStore", store)
        return [*super().verbs(store), lambda: replicated.merge([], {}), replicated.members]

    def test_one_entry_for_a_commit(self, store: ReplicatedStore) -> None:
        """A commit over two sessions is one entry of the log."""
        store.commit([(b"s", writing({"k": b"1"})), (b"t", writing({"k": b"2"}))])
        with store.snapshot() as view:
            (entry,) = view.log(0)
        assert [change.session for change in entry.changes] == [b"s", b"t"]

    def test_too_large_by_merging(self, another: StoreOpener, clock: ManualClock) -> None:
        """A merge may exceed the size; the session can then still be touched and destroyed."""
        store = another("small", Config(max_value=100, max_session=1000))
        store.merge([(b"s", made_elsewhere(clock.now(), a=b"x" * 2000))], {})
        now = clock.advance(5 * MINUTE)
        store.commit([(b"s", lambda record, moment: edits.touch(record, moment, now))])
        assert len(encode_record(visible(store, b"s"))) > 2000
        destroy(store, b"s")
        assert visible(store, b"s").destroy is not None

    def test_heard_of(self, store: ReplicatedStore) -> None:
        """A node has heard all of itself, what it was vouched for of others, else nothing."""
        assert store.heard_of(store.node) > 2**61
        assert store.heard_of(PEER) == 0
        store.merge([], {PEER: 50})
        store.merge([], {PEER: 40, store.node: 7})
        assert store.heard_of(PEER) == 50
        assert store.heard_of(store.node) > 2**61
        with store.snapshot() as view:
            assert view.heard() == {PEER: 50}

    def test_merge_rule_is_the_record_rule(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """What is stored is the merge of all that was committed and all that arrived."""
        put(store, b"s", a=b"1", b=b"1")
        mine = visible(store, b"s")
        theirs = made_elsewhere(clock.now() + 5, b=b"2", c=b"2")
        store.merge([(b"s", theirs)], {})
        assert visible(store, b"s") == merge(mine, theirs)

    @pytest.mark.parametrize("count", [20, 600])
    def test_some_of_what_arrives_is_here(
        self, store: ReplicatedStore, clock: ManualClock, count: int
    ) -> None:
        """What is new is stored and logged once; what is known is merged, wherever it stands."""
        later = made_elsewhere(clock.now() + 5, k=b"2")
        sessions = sorted((b"s%d" % number for number in range(count)), key=lambda s: (bucket_of(s), s))
        here = sessions[3::7]
        store.merge([(session, made_elsewhere(clock.now(), k=b"1")) for session in here[::2]], {})
        store.merge([(session, later) for session in here[1::2]], {})
        assert store.merge([(session, later) for session in sessions], {}).changed == count - len(here[1::2])
        assert sorted(change.session for change in last_changes(store)) == sorted({*sessions} - {*here[1::2]})
        assert all(visible(store, session) == merge(visible(store, session), later) for session in sessions)

    def test_scan_goes_on_after_a_session_that_is_gone(self, store: ReplicatedStore) -> None:
        """The place in a scan is kept also when the session that marks it has been dropped."""
        for number in range(1100):
            put(store, b"%d" % number)
        order = [session for session, _ in store.scan()]
        scan = store.scan()
        found = [next(scan)[0] for _ in range(500)]
        store.forget(found[-1])
        assert found + [session for session, _ in scan] == order

    def test_merge_a_new_session(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A session from a peer is visible at once, as the peer wrote it."""
        record = made_elsewhere(clock.now(), k=b"1")
        assert store.merge([(b"s", record)], {PEER: 5}) == Merged(changed=1, doubtful=[])
        assert visible(store, b"s") == record
        assert not store.load(b"s").held

    def test_merge_what_is_here_and_what_is_not(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """New sessions beside those that are here, come twice or are held: each by its own rule."""
        put(store, b"1", mine=b"1")
        put(store, b"3", mine=b"1")
        mine = {session: visible(store, session) for session in (b"1", b"3")}
        known = made_elsewhere(clock.now() + 5, theirs=b"2")
        ahead = made_elsewhere(clock.now() + DRIFT + 1, theirs=b"2")
        over = made_elsewhere(1, theirs=b"2")
        batch = [(b"%d" % number, known) for number in range(5)]
        batch += [(b"2", made_elsewhere(clock.now() + 6, again=b"3")), (b"ahead", ahead), (b"over", over)]
        assert store.merge(batch, {PEER: 7}) == Merged(changed=7, doubtful=[], held=1)
        for session, before in mine.items():
            assert visible(store, session) == merge(before, known)
        assert values(store, b"2") == {"theirs": b"2", "again": b"3"}
        assert (visible(store, b"0"), visible(store, b"4")) == (known, known)
        assert told(store, b"ahead") == (None, True)
        assert whole(store, b"over") is None
        after = {change.session: change.after for change in last_changes(store)}
        assert sorted((bucket_of(s), mark.digest) for s, mark in after.items() if mark) == marks(store)

    def test_merge_again(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """What arrives once more changes nothing and is not logged."""
        record = made_elsewhere(clock.now(), k=b"1")
        store.merge([(b"s", record)], {})
        before = state(store, b"s")
        assert store.merge([(b"s", record), (b"s", Record(cells=record.cells))], {}).changed == 0
        assert state(store, b"s") == before

    def test_merge_raises_the_clock(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R4: a write after a peer's write is newer, though this node's clock is behind."""
        ahead = clock.now() + DRIFT
        store.merge([(b"s", made_elsewhere(ahead, k=b"theirs"))], {})
        assert stamp_of(put(store, b"s", k=b"mine")) > ahead
        assert values(store, b"s") == {"k": b"mine"}

    def test_live_commit_without_its_birth(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R17: part of a session that is not here is reported, not applied, and vouched for by none."""
        record = made_elsewhere(clock.now(), k=b"1")
        part = Record(touch=Touch(make_version(clock.now(), PEER), clock.now()))
        batch = [(b"s", part), (b"t", record), (b"u", part)]
        assert store.merge(batch, {PEER: 5}) == Merged(changed=1, doubtful=[b"s", b"u"])
        assert store.heard_of(PEER) == 0
        assert store.load(b"s").record is None
        assert whole(store, b"s") is None
        assert visible(store, b"t") == record

    def test_batch_that_breaks_off(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A merge is one transaction: if its batch fails half way, nothing of it is written."""
        before = state(store, b"s")

        def batch() -> Iterator[tuple[bytes, Record]]:
            yield b"s", made_elsewhere(clock.now(), k=b"1")
            raise LookupError("broken off")

        with pytest.raises(LookupError, match="broken off"):
            store.merge(batch(), {PEER: 9})
        assert state(store, b"s") == before

    def test_empty_merge(self, store: ReplicatedStore) -> None:
        """A merge of nothing changes nothing; an empty record is doubtful like any half."""
        before = state(store, b"s")
        assert store.merge([], {}) == Merged(changed=0, doubtful=[])
        assert state(store, b"s") == before
        assert store.merge([(b"s", EMPTY)], {}) == Merged(changed=0, doubtful=[b"s"])

    def test_too_far_ahead(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R6: what is further ahead than the drift is kept and passed on, but not shown."""
        record = made_elsewhere(clock.now() + DRIFT + 1, k=b"1")
        assert store.merge([(b"s", record)], {}) == Merged(changed=1, doubtful=[], held=1)
        assert told(store, b"s") == (None, True)
        assert list(store.scan()) == []
        assert whole(store, b"s") == record
        assert [bucket for bucket, _ in marks(store)] == [bucket_of(b"s")]

    def test_held_does_not_move_the_clock(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R6: a node whose clock is far ahead does not take the others along."""
        store.merge([(b"s", made_elsewhere(clock.now() + 2 * DRIFT, k=b"1"))], {})
        assert stamp_of(put(store, b"t", k=b"1")) <= clock.now() + 1

    def test_at_the_drift(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """What is ahead by just the drift is shown."""
        record = made_elsewhere(clock.now() + DRIFT, k=b"1")
        store.merge([(b"s", record)], {})
        assert told(store, b"s") == (record, False)

    def test_held_beside_what_is_visible(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A write too far ahead is held while the session as it was stays visible."""
        put(store, b"s", k=b"now")
        mine = visible(store, b"s")
        later = made_elsewhere(clock.now() + 2 * DRIFT, mine, k=b"later")
        store.merge([(b"s", later)], {})
        assert told(store, b"s") == (mine, True)
        assert whole(store, b"s") == merge(mine, later)

    def test_digest_counts_what_is_held(
        self, store: ReplicatedStore, another: StoreOpener, clock: ManualClock
    ) -> None:
        """R7: two nodes that hold the same agree, though one of them shows it and one does not."""
        ahead = another("ahead", clock=ManualClock(clock.now() + 3 * DRIFT))
        put(ahead, b"s", k=b"1")
        store.merge([(b"s", visible(ahead, b"s"))], {})
        assert store.load(b"s").held
        assert marks(store) == marks(ahead) != []

    def test_release(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """What is held is shown when it comes due, and moves the clock then."""
        due = clock.now() + DRIFT + 10
        record = made_elsewhere(due, k=b"1")
        store.merge([(b"s", record)], {})
        clock.advance(9)
        assert store.release() == 0
        assert store.load(b"s").held
        clock.advance(1)
        digests = marks(store)
        assert store.release() == 1
        assert told(store, b"s") == (record, False)
        assert marks(store) == digests
        assert stamp_of(put(store, b"t", k=b"1")) > due
        assert store.release() == 0

    def test_release_as_a_set(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R6: the held parts of a session are shown together, when the last of them is due."""
        first = made_elsewhere(clock.now() + DRIFT + 10, k=b"1")
        second = made_elsewhere(clock.now() + DRIFT + 20, first, j=b"2")
        store.merge([(b"s", first), (b"s", second)], {})
        clock.advance(15)
        assert store.release() == 0
        assert told(store, b"s") == (None, True)
        clock.advance(5)
        assert store.release() == 1
        assert visible(store, b"s") == merge(first, second)

    def test_part_whose_birth_is_held(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A part that is not ahead itself is held while the birth of its session is."""
        created = made_elsewhere(clock.now() + DRIFT + 10, k=b"1")
        part = Record(cells=made_elsewhere(clock.now(), j=b"2").cells)
        store.merge([(b"s", created)], {})
        assert store.merge([(b"s", part)], {}) == Merged(changed=1, doubtful=[], held=1)
        assert told(store, b"s") == (None, True)
        clock.advance(10)
        store.release()
        assert visible(store, b"s") == merge(created, part)

    def test_write_while_something_is_held(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A local write beside held parts is visible at once and both survive the release."""
        store.merge([(b"s", made_elsewhere(clock.now() + DRIFT + 10, theirs=b"1"))], {})
        put(store, b"s", mine=b"2")
        assert values(store, b"s") == {"mine": b"2"}
        assert store.load(b"s").held
        clock.advance(10)
        assert store.release() == 1
        assert values(store, b"s") == {"mine": b"2", "theirs": b"1"}

    @pytest.mark.parametrize("ahead", [0, 100 * DRIFT])
    def test_destroys_are_never_held(self, store: ReplicatedStore, clock: ManualClock, ahead: int) -> None:
        """R8: a destroy acts at once, drops what is held, and moves the clock only if near."""
        put(store, b"s", k=b"1")
        mine = visible(store, b"s")
        store.merge([(b"s", made_elsewhere(clock.now() + 2 * DRIFT, mine, k=b"2"))], {})
        tombstone = destroyed_elsewhere(clock.now() + ahead, mine)
        assert store.merge([(b"s", tombstone)], {}) == Merged(changed=1, doubtful=[])
        assert told(store, b"s") == (tombstone, False)
        assert whole(store, b"s") == tombstone
        assert stamp_of(put(store, b"t")) <= clock.now() + 10

    def test_local_destroy_drops_what_is_held(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """After a destroy nothing that was held comes out any more."""
        store.merge([(b"s", made_elsewhere(clock.now() + 2 * DRIFT, k=b"1"))], {})
        destroy(store, b"s")
        clock.advance(3 * DRIFT)
        assert store.release() == 0
        assert visible(store, b"s").cells == {}
        assert visible(store, b"s").destroy is not None

    def test_tombstone_of_an_unknown_session(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """I4: a destroy that arrives before the session still covers it."""
        record = made_elsewhere(clock.now(), k=b"1")
        tombstone = destroyed_elsewhere(clock.now() - MINUTE)
        store.merge([(b"s", tombstone)], {})
        assert store.merge([(b"s", record)], {}) == Merged(changed=0, doubtful=[])
        assert visible(store, b"s") == tombstone

    def test_past_retention_on_arrival(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R15: what is past its retention is not stored; what its sender vouches for counts."""
        record = made_elsewhere(clock.now(), k=b"1")
        clock.set(retention(record) - 1)
        assert store.merge([(b"early", record)], {}) == Merged(changed=1, doubtful=[])
        clock.advance(1)
        assert store.merge([(b"s", record)], {PEER: 7}) == Merged(changed=0, doubtful=[])
        assert whole(store, b"s") is None
        assert store.heard_of(PEER) == 7

    def test_late_touch_keeps_a_session_alive(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """I6: an expired session whose newer touch comes from elsewhere lives on with its data."""
        put(store, b"s", k=b"1")
        clock.set(retention(visible(store, b"s")) + MINUTE)
        late = clock.now() - MINUTE
        part = Record(touch=Touch(make_version(late, PEER), late))
        assert store.merge([(b"s", part)], {}) == Merged(changed=1, doubtful=[])
        assert values(store, b"s") == {"k": b"1"}
        assert retention(visible(store, b"s")) > clock.now()

    @pytest.mark.parametrize(("before", "is_sent"), [(0, True), (DRIFT, True), (DRIFT + 1, False)])
    def test_what_comes_back_is_committed_anew(
        self, store: ReplicatedStore, clock: ManualClock, before: int, is_sent: bool
    ) -> None:
        """R20: the peers lack it where comparisons left it out, by the latest of all clocks (R16)."""
        put(store, b"s", k=b"1")
        now = retention(visible(store, b"s")) - before
        clock.set(now)
        store.merge([(b"s", Record(touch=Touch(make_version(now, PEER), now)))], {})
        assert any(change.delta is not None for change in last_changes(store)) is is_sent
