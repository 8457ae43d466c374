"""What every store has to do, as tests: the verbs of `canister.store.base.Store`.

A store is tested by subclassing `StoreContract`, or for one that replicates
`canister.testing.replicated.ReplicatedStoreContract`, and saying how it is opened::

    class TestMyStore(StoreContract):
        def open_store(self, directory, config, clock):
            return MyStore(directory, config, clock)

For pytest to explain failing assertions, a ``conftest.py`` beside the test names this module to
``pytest.register_assert_rewrite``.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from canister import edits
from canister.clock import SECOND, Clock
from canister.config import Config, Policy
from canister.edits import Moment
from canister.errors import SessionDestroyedError, SessionEndedError, StoreError, TooLargeError
from canister.life import Status, retention, status
from canister.record import (
    BACK,
    KEY,
    USER,
    Cell,
    NodeId,
    Record,
    Slot,
    Version,
    make_version,
    node_of,
    stamp_of,
)
from canister.store.base import NO_PEERS, Edit, Store
from canister.testing.clock import ManualClock

CONFIG = Config()
POLICY = Policy.of(CONFIG)
MINUTE = 60 * SECOND

PEER = NodeId(b"the-peer")
"""The node that made what the tests let arrive."""

StoreOpener = Callable[..., Store]


def slot(name: str) -> Slot:
    """Return the slot of a key."""
    return Slot(KEY + name.encode())


def writing(values: dict[str, bytes | None]) -> Edit:
    """Return the edit that stores or removes keys."""
    writes = {slot(name): value for name, value in values.items()}
    return lambda record, moment: edits.write(record, moment, POLICY, writes)


def put(store: Store, session: bytes, **values: bytes | None) -> Version:
    """Store or remove keys of a session, and return the version of the commit."""
    version = store.commit([(session, writing(values))])
    assert version is not None
    return version


def destroy(store: Store, session: bytes) -> None:
    """Destroy a session."""
    store.commit([(session, lambda record, moment: edits.destroy(record, moment, POLICY))])


def visible(store: Store, session: bytes) -> Record:
    """Return what readers see of a session that is there."""
    record = store.load(session).record
    assert record is not None
    return record


def told(store: Store, session: bytes) -> tuple[Record | None, bool]:
    """Return what a store tells of a session: what readers may see, and whether something is held back."""
    stored = store.load(session)
    return stored.record, stored.held


def values(store: Store, session: bytes) -> dict[str, bytes | None]:
    """Return the cells of a session that is there, removed ones as None."""
    cells = visible(store, session).cells.items()
    return {s[1:].decode(): cell.value for s, cell in cells if not s.startswith(BACK)}


def made_elsewhere(stamp: int, record: Record | None = None, **values: bytes | None) -> Record:
    """Return a commit of the peer on top of *record*, or the one that creates the session."""
    writes = {slot(name): value for name, value in values.items()}
    return edits.write(record, Moment(make_version(stamp, PEER), stamp), POLICY, writes)


def destroyed_elsewhere(stamp: int, record: Record | None = None) -> Record:
    """Return a destroy by the peer."""
    return edits.destroy(record, Moment(make_version(stamp, PEER), stamp), POLICY)


def refuse(record: Record | None, moment: Moment) -> Record | None:
    """Raise, as an edit does that forbids the write."""
    raise LookupError("refused")


class StoreContract:
    """Tests of a store that one node uses by itself."""

    def open_store(self, directory: Path, config: Config, clock: Clock) -> Store:
        """Open the store under test; a subclass says how. The same directory is the same node."""
        raise NotImplementedError

    def state(self, store: Store, *sessions: bytes) -> list[object]:
        """Return all that a write could change, to be compared with what it is later."""
        return [sorted(store.scan()), *(told(store, session) for session in sessions)]

    def verbs(self, store: Store) -> list[Callable[[], object]]:
        """Return one call of each verb."""
        return [
            lambda: store.load(b"s"),
            lambda: put(store, b"s"),
            lambda: list(store.scan()),
            lambda: store.heard_of(PEER),
            store.peers,
        ]

    @pytest.fixture
    def clock(self) -> ManualClock:
        """Return the clock of the store under test."""
        return ManualClock()

    @pytest.fixture
    def another(self, tmp_path: Path, clock: ManualClock) -> Iterator[StoreOpener]:
        """Return what opens a further store, by its name, and closes it in the end."""
        with contextlib.ExitStack() as stack:

            def open_named(name: str, config: Config = CONFIG, clock: Clock = clock) -> Store:
                store = self.open_store(tmp_path / name, config, clock)
                stack.callback(store.close)
                return store

            yield open_named

    @pytest.fixture
    def store(self, another: StoreOpener) -> Store:
        """Return the store under test."""
        return another("store")

    def test_unknown_session(self, store: Store) -> None:
        """A session that is not here is None, not an error."""
        assert told(store, b"s") == (None, False)

    def test_commit_and_load(self, store: Store, clock: ManualClock) -> None:
        """What was committed is read back, under a version of this node and of now."""
        version = put(store, b"s", k=b"1")
        assert (stamp_of(version), node_of(version)) == (clock.now(), store.node)
        assert visible(store, b"s").cells == {slot("k"): Cell(version, b"1")}
        assert store.load(b"t").record is None

    def test_edits_see_what_is_stored(self, store: Store, clock: ManualClock) -> None:
        """An edit is given the stored session, the version of its commit and the time."""
        put(store, b"s", k=b"1")
        stored = visible(store, b"s")
        clock.advance(SECOND)
        seen: list[tuple[Record | None, Moment]] = []

        def look(record: Record | None, moment: Moment) -> Record | None:
            seen.append((record, moment))
            return None

        store.commit([(b"s", look), (b"t", look)])
        moment = Moment(make_version(clock.now(), store.node), clock.now())
        assert seen == [(stored, moment), (None, moment)]

    def test_writes_merge(self, store: Store) -> None:
        """A commit adds to the session what the edit returned, by the rule of merging."""
        put(store, b"s", a=b"1", b=b"1")
        put(store, b"s", b=b"2", c=None)
        assert values(store, b"s") == {"a": b"1", "b": b"2", "c": None}

    def test_nothing_to_write(self, store: Store) -> None:
        """A commit whose edits write nothing has no version and leaves no trace."""
        put(store, b"s", k=b"1")
        before = self.state(store, b"s", b"t")
        assert store.commit([(b"s", lambda r, m: None), (b"t", lambda r, m: None)]) is None
        assert store.commit([]) is None
        assert self.state(store, b"s", b"t") == before

    def test_refusing_edit(self, store: Store) -> None:
        """What an edit raises passes through, and nothing of the commit is written."""
        put(store, b"s", k=b"1")
        before = self.state(store, b"s", b"t")
        with pytest.raises(LookupError, match="refused"):
            store.commit([(b"s", writing({"k": b"2"})), (b"t", writing({})), (b"u", refuse)])
        assert self.state(store, b"s", b"t") == before
        put(store, b"s", k=b"3")
        assert values(store, b"s") == {"k": b"3"}

    def test_commit_over_two_sessions(self, store: Store) -> None:
        """A commit over two sessions has one version."""
        version = store.commit([(b"s", writing({"k": b"1"})), (b"t", writing({"k": b"2"}))])
        assert visible(store, b"s").cells == {slot("k"): Cell(Version(version or b""), b"1")}
        assert visible(store, b"t").cells == {slot("k"): Cell(Version(version or b""), b"2")}

    def test_two_edits_of_one_session(self, store: Store) -> None:
        """Within a commit a later edit sees what an earlier one wrote."""
        seen: list[Record | None] = []

        def look(record: Record | None, moment: Moment) -> Record | None:
            seen.append(record)
            return None

        version = store.commit([(b"s", writing({"k": b"1"})), (b"s", look)])
        assert seen == [visible(store, b"s")]
        assert seen[0] is not None
        assert seen[0].cells[slot("k")].version == version

    def test_stamps_increase(self, store: Store, clock: ManualClock) -> None:
        """I11: stamps strictly increase while the clock stands still and when it steps back."""
        versions = [put(store, b"s", k=b"1"), put(store, b"t", k=b"1")]
        clock.advance(-3600 * SECOND)
        versions.append(put(store, b"s", k=b"2"))
        clock.advance(7200 * SECOND)
        versions.append(put(store, b"s", k=b"3"))
        assert versions == sorted(set(versions))
        assert stamp_of(versions[-1]) == clock.now()
        assert values(store, b"s") == {"k": b"3"}

    def test_too_large_a_session(self, another: StoreOpener) -> None:
        """A write that would make a session too large is refused and leaves it as it was."""
        store = another("small", Config(max_value=100, max_session=1000))
        put(store, b"s", a=b"x" * 600)
        before = self.state(store, b"s")
        with pytest.raises(TooLargeError, match="max_session is 1000"):
            put(store, b"s", b=b"x" * 600)
        assert self.state(store, b"s") == before
        put(store, b"s", b=b"x")

    def test_any_bytes_are_an_id(self, store: Store) -> None:
        """Ids are bytes, and none of them stands for another."""
        ids = [b"s", b"S", b"s\x00", b"\x00", b"\xff" * 513, b"s" * 513, b"../s", b"%", b"s'--"]
        for number, session in enumerate(ids):
            put(store, session, k=bytes([number]))
        for number, session in enumerate(ids):
            assert values(store, session) == {"k": bytes([number])}

    def test_of_user(self, store: Store, clock: ManualClock) -> None:
        """Sessions are found by their user, and by nobody else's, whatever else a write changes."""

        def log_in(session: bytes, user: bytes) -> None:
            store.commit([(session, lambda r, m: edits.write(r, m, POLICY, {USER: user}))])

        def found(user: bytes) -> list[bytes]:
            return sorted(session for session, _ in store.of_user(user))

        log_in(b"a", b"ann")
        log_in(b"b", b"ann")
        put(store, b"c", x=b"1")
        assert (found(b"ann"), found(b"bob")) == ([b"a", b"b"], [])
        log_in(b"a", b"bob")
        assert (found(b"ann"), found(b"bob")) == ([b"b"], [b"a"])
        store.commit([(b"b", lambda r, m: edits.write(r, m, POLICY, {}, clear=True))])
        destroy(store, b"a")
        assert (found(b"ann"), found(b"bob")) == ([], [])

    def test_scan(self, store: Store, clock: ManualClock) -> None:
        """Scanning yields every session once: live, expired and destroyed ones."""
        ids = [b"%d" % number for number in range(1100)]
        for session in ids:
            put(store, session, k=session)
        destroy(store, b"7")
        clock.advance(30 * MINUTE)
        found = list(store.scan())
        assert sorted(session for session, _ in found) == sorted(ids)
        assert all(record == visible(store, session) for session, record in found)

    def test_write_after_destroy(self, store: Store) -> None:
        """A destroyed session takes no writes, and its data is gone."""
        put(store, b"s", k=b"1")
        destroy(store, b"s")
        before = self.state(store, b"s")
        with pytest.raises(SessionDestroyedError):
            put(store, b"s", k=b"2")
        assert self.state(store, b"s") == before
        assert visible(store, b"s").cells == {}

    def test_write_over_a_tombstone_past_its_time(self, store: Store, clock: ManualClock) -> None:
        """Past its time a tombstone is gone, swept or not: a write is stored, not lost."""
        destroy(store, b"s")
        clock.set(retention(visible(store, b"s")))
        put(store, b"s", k=b"1")
        assert values(store, b"s") == {"k": b"1"}

    def test_write_over_an_unswept_leftover(self, store: Store, clock: ManualClock) -> None:
        """Past its retention a session is gone, swept or not: nothing of it is seen again."""
        put(store, b"s", old=b"1")
        until = clock.now() + MINUTE
        store.commit([(b"s", lambda r, m: edits.set_expiry(r, m, POLICY, None, until))])
        clock.set(retention(visible(store, b"s")))
        put(store, b"s", new=b"1")
        assert values(store, b"s") == {"new": b"1"}
        assert status(visible(store, b"s"), clock.now()) is Status.LIVE

    def test_closed(self, store: Store) -> None:
        """A closed store raises; it never answers that there is nothing."""
        put(store, b"s", k=b"1")
        store.close()
        store.close()
        for act in self.verbs(store):
            with pytest.raises(StoreError, match="closed"):
                act()

    def test_heard_of_itself(self, store: Store) -> None:
        """A node has heard all of itself, and is behind of nobody while it is alone."""
        put(store, b"s", k=b"1")
        assert store.heard_of(store.node) > 2**61
        assert store.peers() == NO_PEERS

    def test_known_decides_nothing(self, store: Store) -> None:
        """What the caller has loaded may be old: an edit counts on what is stored, and is merged with it."""
        put(store, b"s", a=b"1")
        old = visible(store, b"s")
        put(store, b"s", b=b"1")
        seen: list[Record | None] = []

        def edit(record: Record | None, moment: Moment) -> Record | None:
            seen.append(record)
            return writing({"c": b"1"})(record, moment)

        store.commit([(b"s", edit)], {b"s": old})
        assert values(store, b"s") == {"a": b"1", "b": b"1", "c": b"1"}
        assert seen[-1] is not None
        assert seen[-1].cells.keys() == {slot("a"), slot("b")}
        destroy(store, b"s")
        for known in (old, None):
            with pytest.raises(SessionDestroyedError):
                store.commit([(b"s", writing({"d": b"1"}))], {b"s": known})

    def test_a_refusal_of_what_was_known(self, store: Store, clock: ManualClock) -> None:
        """An edit that refuses what the caller has loaded is asked again about what is stored."""
        put(store, b"s", k=b"1")
        old = visible(store, b"s")
        clock.advance(POLICY.idle)
        store.commit([(b"s", lambda record, moment: edits.touch(record, moment, moment.now))])
        clock.advance(POLICY.idle)

        def edit(record: Record | None, moment: Moment) -> Record | None:
            if status(record, moment.now) is not Status.LIVE:
                raise SessionEndedError("expired")
            return writing({"k": b"2"})(record, moment)

        store.commit([(b"s", edit)], {b"s": old})
        assert values(store, b"s") == {"k": b"2"}

    def test_threads(self, store: Store) -> None:
        """Threads share a store: no write is lost, no stamp drawn twice, no read disturbed."""

        def work(number: int) -> list[Version]:
            made: list[Version] = []
            for turn in range(20):
                made.append(put(store, b"shared", **{f"{number}-{turn}": b"1"}))
                assert f"{number}-{turn}" in values(store, b"shared")
            return made

        with ThreadPoolExecutor(4) as executor:
            made = [version for part in executor.map(work, range(4)) for version in part]
        assert len(values(store, b"shared")) == len(set(made)) == 80
