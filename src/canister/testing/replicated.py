"""What a store that replicates has to do on top, as tests: `canister.store.base.ReplicatedStore`."""

import msgspec
import pytest

from canister import edits
from canister.config import Config
from canister.errors import ClockError
from canister.life import last_retention, retention
from canister.record import (
    NodeId,
    digest_of,
    encode_record,
    make_version,
    merge,
    stamp_of,
)
from canister.store.base import (
    BUCKETS,
    NO_PEERS,
    Change,
    Listed,
    Mark,
    Member,
    Merged,
    Peers,
    ReplicatedStore,
    bucket_of,
)
from canister.testing.clock import ManualClock
from canister.testing.contract import (
    CONFIG,
    MINUTE,
    PEER,
    POLICY,
    destroy,
    made_elsewhere,
    put,
    values,
    visible,
)
from canister.testing.merging import MergingContract, StoreOpener, last_changes, marks, state

DRIFT = POLICY.drift


class ReplicatedStoreContract(MergingContract):
    """Tests of a store whose node has peers: the log, the digests, sweeping and what is kept."""

    def test_log(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """Own commits are logged as written, others without; marks say what was and what is."""
        version = put(store, b"s", k=b"1")
        commit = visible(store, b"s")
        first = Mark(digest_of(b"s", encode_record(commit), CONFIG.cluster.encode()), retention(commit))
        assert last_changes(store) == [Change(b"s", None, first, encode_record(commit))]
        clock.advance(5 * MINUTE)
        store.merge([(b"s", made_elsewhere(clock.now(), commit, k=b"2"))], {})
        (change,) = last_changes(store)
        assert (change.before, change.delta) == (first, None)
        assert change.after is not None
        assert change.after.retain == first.retain + 5 * MINUTE
        with store.snapshot() as view:
            assert [entry.stamp for entry in view.log(stamp_of(version))] == [clock.now()]
            assert view.last_stamp() == clock.now()

    def test_trim_log(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """Trimming drops what is older, never the last entry, and never the node's clock."""
        versions = [put(store, b"s", k=b"%d" % turn) for turn in range(4)]
        store.trim_log(stamp_of(versions[2]))
        with store.snapshot() as view:
            assert [entry.stamp for entry in view.log(0)] == [stamp_of(v) for v in versions[2:]]
        store.trim_log(2**62)
        clock.advance(-60 * MINUTE)
        with store.snapshot() as view:
            assert len(view.log(0)) == 1
            assert view.last_stamp() == stamp_of(versions[-1])
        assert put(store, b"s", k=b"5") > versions[-1]

    def test_trim_an_empty_log(self, store: ReplicatedStore) -> None:
        """Trimming an empty log does nothing."""
        store.trim_log(2**62)
        with store.snapshot() as view:
            assert (view.log(0), view.last_stamp()) == ([], 0)

    def test_sweep(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R13: expired data goes when all members reconciled past its retention, not before."""
        put(store, b"s", k=b"1")
        retain = retention(visible(store, b"s"))
        clock.set(retain - 1)
        assert store.sweep(2**62, 10, destroyed=False) == 0
        clock.set(retain)
        assert store.sweep(retain - 1, 10, destroyed=False) == 0
        assert store.sweep(2**62, 10, destroyed=True) == 0
        assert store.load(b"s").record is not None
        assert store.sweep(retain, 10, destroyed=False) == 1
        assert store.load(b"s").record is None
        (change,) = last_changes(store)
        assert (change.session, change.after, change.delta) == (b"s", None, None)
        assert marks(store) == []

    def test_sweep_without_the_others(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R13: a member that stays away holds data back until its hard end, no longer."""
        put(store, b"s", k=b"1")
        end = last_retention(visible(store, b"s"), DRIFT)
        clock.set(end - 1)
        assert store.sweep(0, 10, destroyed=False) == 0
        clock.advance(1)
        assert store.sweep(0, 10, destroyed=False) == 1

    def test_sweep_tombstones(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A tombstone goes when its time is over, whatever the others did."""
        put(store, b"s", k=b"1")
        destroy(store, b"s")
        keep = retention(visible(store, b"s"))
        clock.set(keep - 1)
        assert store.sweep(2**62, 10, destroyed=True) == 0
        clock.advance(1)
        assert store.sweep(2**62, 10, destroyed=False) == 0
        assert store.sweep(0, 10, destroyed=True) == 1
        assert store.load(b"s").record is None

    def test_sweep_in_batches(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """A sweep drops no more than its limit, and gets past what it has to leave."""
        sessions = [b"%d" % number for number in range(1200)]
        record = made_elsewhere(clock.now(), k=b"1")
        store.merge([(session, record) for session in sessions], {})
        for session in sessions[:500]:
            destroy(store, session)
        clock.set(retention(visible(store, sessions[0])))
        put(store, b"alive", k=b"1")
        # The expired ones have to wait for the others, and their time was over before.
        assert [store.sweep(0, 200, destroyed=True) for _ in range(4)] == [200, 200, 100, 0]
        assert visible(store, sessions[-1]) == record
        assert [store.sweep(2**62, 300, destroyed=False) for _ in range(4)] == [300, 300, 100, 0]
        assert [session for session, _ in store.scan()] == [b"alive"]

    def test_sweep_of_what_is_held(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """Held parts keep a session as long as they would if they were shown."""
        put(store, b"s", k=b"1")
        mine = visible(store, b"s")
        later = made_elsewhere(clock.now() + 2 * DRIFT, mine, k=b"2")
        store.merge([(b"s", later)], {})
        clock.set(retention(mine))
        assert store.sweep(2**62, 10, destroyed=False) == 0
        clock.set(retention(merge(mine, later)))
        assert store.sweep(2**62, 10, destroyed=False) == 1

    def test_forget(self, store: ReplicatedStore) -> None:
        """R19: forgetting drops the session and all that was heard; the log tells the digests."""
        put(store, b"s", k=b"1")
        store.merge([], {PEER: 5})
        assert store.forget(b"s")
        assert store.load(b"s").record is None
        assert store.heard_of(PEER) == 0
        (change,) = last_changes(store)
        assert (change.session, change.after, change.delta) == (b"s", None, None)
        assert not store.forget(b"s")

    def test_forgetting_is_not_having_heard_oneself(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """R19: after a forget this node vouches for its own commits only once a peer has them all."""
        last = stamp_of(put(store, b"s", k=b"1"))
        store.forget(b"s")
        assert store.heard_of(store.node) == 0
        store.merge([], {store.node: last - 1})
        assert store.heard_of(store.node) == 0
        store.merge([], {store.node: last})
        assert store.heard_of(store.node) > 2**61

    def test_what_was_put_back_lacks_its_last_commits(
        self, store: ReplicatedStore, clock: ManualClock
    ) -> None:
        """R5: this node has heard itself again once a peer has, and draws no stamp that it may have drawn."""
        last = stamp_of(put(store, b"s", k=b"1"))
        for upto in (last + 90, last + 50):
            store.renounce(upto)
            assert store.heard_of(store.node) == 0
            store.merge([], {store.node: last + 89})
            assert store.heard_of(store.node) == 0
        assert stamp_of(put(store, b"s", k=b"2")) > last + 90
        store.merge([], {store.node: last + 90})
        assert store.heard_of(store.node) > 2**61

    def test_forgotten_sessions_come_back(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """Forgetting is no destroy: the next comparison brings the session back."""
        record = made_elsewhere(clock.now(), k=b"1")
        store.merge([(b"s", record)], {})
        store.forget(b"s")
        assert store.merge([(b"s", record)], {}) == Merged(changed=1, doubtful=[])
        assert visible(store, b"s") == record

    def test_marks_and_listings(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """Digests are over everything retained after an instant, by bucket."""
        put(store, b"s", k=b"1")
        clock.advance(MINUTE)
        put(store, b"t", k=b"1")
        digests: dict[bytes, bytes] = {}
        retain: dict[bytes, int] = {}
        for session in (b"s", b"t"):
            record = visible(store, session)
            digests[session] = digest_of(session, encode_record(record), CONFIG.cluster.encode())
            retain[session] = retention(record)
        both = sorted((bucket_of(session), digest) for session, digest in digests.items())
        assert marks(store) == both
        assert marks(store, retain[b"s"], retain[b"t"]) == [(bucket_of(b"t"), digests[b"t"])]
        assert marks(store, retain[b"s"] - 1, retain[b"s"]) == [(bucket_of(b"s"), digests[b"s"])]
        with store.snapshot() as view:
            bucket = bucket_of(b"s")
            assert view.listing(range(bucket, bucket + 1), retain[b"s"] - 1) == [Listed(b"s", digests[b"s"])]
            assert view.listing(range(bucket, bucket + 1), retain[b"s"]) == []
            assert view.listing(range(bucket), 0) + view.listing(range(bucket + 1, BUCKETS), 0) == [
                Listed(b"t", digests[b"t"])
            ]
            everything = [Listed(session, digest) for session, digest in sorted(digests.items())]
            assert view.listing(range(BUCKETS), 0) == everything
            assert view.whole(b"nothing") is None

    def test_digests_are_keyed_by_the_cluster(self, another: StoreOpener, clock: ManualClock) -> None:
        """The same session has other digests in another cluster."""
        one, two = another("one", Config(cluster="one")), another("two", Config(cluster="two"))
        for store in (one, two):
            store.merge([(b"s", made_elsewhere(clock.now(), k=b"1"))], {})
        assert marks(one) != marks(two)

    def test_members(self, store: ReplicatedStore) -> None:
        """The member list is stored as a whole and replaced as a whole."""
        version = make_version(5, PEER)
        one = Member("127.0.0.1:1", version, False, version, PEER)
        two = Member("127.0.0.1:2", version, True, version, NodeId(b"other..."))
        assert store.members() == []
        store.save_members([one, two])
        assert sorted(store.members(), key=Member.order) == sorted([one, two], key=Member.order)
        store.save_members([two])
        assert store.members() == [two]

    def test_peers(self, store: ReplicatedStore) -> None:
        """There are others if a member is another node and not removed, or if there is doubt about one."""
        own, other = make_version(5, store.node), make_version(5, PEER)
        here = Member("127.0.0.1:1", own, False, own, store.node)
        peer = Member("127.0.0.1:2", other, False, other, PEER)
        assert store.peers() == NO_PEERS
        store.save_members([here])
        assert store.peers() == NO_PEERS
        store.save_members([here, peer])
        assert store.peers() == Peers(exist=True, doubts=0)
        store.set_doubts(3)
        assert store.peers() == Peers(exist=True, doubts=3)
        store.save_members([here, msgspec.structs.replace(peer, removed=True)])
        assert store.peers() == Peers(exist=True, doubts=3)
        store.set_doubts(0)
        assert store.peers() == NO_PEERS

    def test_peers_are_the_same_until_they_change(self, store: ReplicatedStore) -> None:
        """So a reader can tell that what it knew before it looked for a session still holds."""
        store.set_doubts(1)
        before = store.peers()
        store.merge([(b"s", made_elsewhere(5, k=b"1"))], {})
        assert store.peers() is before
        store.set_doubts(0)
        assert store.peers() is not before
        store.set_doubts(1)
        assert store.peers() is not before

    def test_fingerprints(self, store: ReplicatedStore) -> None:
        """What the node's processes said last of their keys is kept, as a whole."""
        assert store.fingerprints() == []
        store.save_fingerprints([["aa", "bb"], ["cc"]])
        assert store.fingerprints() == [["aa", "bb"], ["cc"]]
        store.save_fingerprints([["dd"]])
        assert store.fingerprints() == [["dd"]]

    def test_set_expiry_raises_the_retention(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """The retention by which the digests count is that of the session as it is now."""
        put(store, b"s", k=b"1")
        idle = 60 * MINUTE
        store.commit([(b"s", lambda r, m: edits.set_expiry(r, m, POLICY, idle, None))])
        (change,) = last_changes(store)
        assert change.after is not None
        assert change.after.retain == clock.now() + idle + idle // 20 + POLICY.grace

    def test_wrong_clock(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """While this node's clock is off it writes nothing with a time in it; destroys never wait."""
        put(store, b"s", k=b"1")
        put(store, b"t", k=b"1")
        store.set_clock_off(True)
        before = state(store, b"s", b"t", b"u")
        for session in (b"s", b"u"):
            with pytest.raises(ClockError, match="max_clock_drift"):
                put(store, session, k=b"2")
        now = clock.advance(5 * MINUTE)
        assert store.commit([(b"s", lambda r, m: edits.touch(r, m, now))]) is None
        assert state(store, b"s", b"t", b"u") == before
        destroy(store, b"t")
        assert visible(store, b"t").destroy is not None
        store.set_clock_off(False)
        put(store, b"s", k=b"2")
        assert values(store, b"s") == {"k": b"2"}

    def test_merging_with_a_wrong_clock(self, store: ReplicatedStore, clock: ManualClock) -> None:
        """What peers write is merged whatever this node's clock says."""
        store.set_clock_off(True)
        record = made_elsewhere(clock.now(), k=b"1")
        store.merge([(b"s", record)], {})
        assert visible(store, b"s") == record
