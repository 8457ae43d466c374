"""Three replicas that write by clocks of their own and tell each other late, twice or never."""

from itertools import pairwise, permutations
from random import Random
from typing import Any

from hypothesis import note
from tests.records import A, B, C, slot

from canister import edits
from canister.clock import DAY, SECOND
from canister.config import Policy, load_config
from canister.errors import SessionError
from canister.life import Status, status
from canister.record import (
    BACK,
    META,
    Record,
    Slot,
    Version,
    decode_record,
    encode_record,
    node_of,
    stamp_of,
    versions,
)
from canister.store.base import Edit
from canister.store.memory import MemoryStore
from canister.testing.clock import ManualClock

MINUTE = 60 * SECOND
START = 1_800_000_000 * SECOND
SESSIONS = (b"s1", b"s2", b"s3")
SLOTS = (slot("x"), slot("y"), slot("secret", META))


class Replicas:
    """What happens is drawn from *random*; a failing test notes it step by step.

    Args:
        random: the only source of chance.
        agreeing: the clocks differ by no more than they may; an id has one creator and one life.
        settings: those of all nodes.
    """

    def __init__(self, random: Random, *, agreeing: bool = False, **settings: Any) -> None:
        config = load_config(settings, {})
        self.random = random
        self.agreeing = agreeing
        self.policy = Policy.of(config)
        self.clocks = [ManualClock(START) for _ in range(3)]
        self.stores = [
            MemoryStore(config, clock, node) for clock, node in zip(self.clocks, (A, B, C), strict=True)
        ]
        self.latest = START
        self.created: set[bytes] = set()
        self.destroyed: list[tuple[bytes, Version, int]] = []
        self._acts = (
            (self._put_or_remove, 8),
            (self._deliver_a_commit, 6),
            (self._deliver_a_session, 6),
            (self._move_clocks, 5),
            (self._touch, 2),
            (self._set_expiry, 2),
            (self._clear, 1),
            (self._destroy, 1),
            (self._release, 1),
            (self._sweep, 1),
        )

    def run(self, steps: int) -> None:
        """Let *steps* things happen, then check what has to hold at any time."""
        acts, weights = zip(*self._acts, strict=True)
        for act in self.random.choices(acts, weights, k=steps):
            act(self.random.randrange(3), self.random.choice(SESSIONS))
            self._check_no_half_session_is_visible()
        self._check_stamps()

    def settle(self) -> None:
        """Let all clocks agree, and all exchange all they have until nobody learns anything."""
        for clock, store in zip(self.clocks, self.stores, strict=True):
            clock.set(self.latest)
            store.release()
        while self._exchange_everything():
            pass

    def commits(self) -> list[tuple[bytes, Record]]:
        """Return all that was ever committed, as written."""
        return [commit for replica in range(3) for commit in self._made_by(replica)]

    def retained(self, store: MemoryStore) -> dict[bytes, Record]:
        """Return all that a store has of the sessions whose data is still kept."""
        return {s: row.whole for s, row in store.rows.items() if row.retain > self.latest}

    def _put_or_remove(self, replica: int, session: bytes) -> None:
        where, value = self.random.choice(SLOTS), self.random.choice([b"1", b"2", b"3", None])
        edit: Edit = lambda r, m: edits.write(r, m, self.policy, {where: value})  # noqa: E731
        if self._may_write(replica, session) and self._commit("put", replica, session, edit):
            # R4: whatever has arrived from clocks however wrong, a node reads what it wrote.
            record = self.stores[replica].load(session).record
            assert record is not None
            assert record.cells[where].value == value

    def _clear(self, replica: int, session: bytes) -> None:
        if self._may_write(replica, session):
            edit: Edit = lambda r, m: edits.write(r, m, self.policy, {}, clear=True)  # noqa: E731
            self._commit("clear", replica, session, edit)

    def _touch(self, replica: int, session: bytes) -> None:
        self._commit("touch", replica, session, lambda r, m: edits.touch(r, m, m.now))

    def _set_expiry(self, replica: int, session: bytes) -> None:
        idle = self.random.choice([None, MINUTE, 5 * MINUTE, 30 * MINUTE])
        end = self.random.choice([None, 5 * MINUTE])
        until = None if end is None else self.clocks[replica].now() + end
        edit: Edit = lambda r, m: edits.set_expiry(r, m, self.policy, idle, until)  # noqa: E731
        self._commit("set_expiry", replica, session, edit)

    def _destroy(self, replica: int, session: bytes) -> None:
        if self._commit("destroy", replica, session, lambda r, m: edits.destroy(r, m, self.policy)):
            record = self.stores[replica].load(session).record
            assert record is not None
            assert record.destroy is not None
            self.destroyed.append((session, record.destroy.version, record.destroy.keep))

    def _move_clocks(self, replica: int, session: bytes) -> None:
        step = self.random.choice([MINUTE // 2, 2 * MINUTE, 5 * MINUTE, 20 * MINUTE])
        if self.agreeing:
            drift = self.policy.drift // 2
            now = min(clock.now() for clock in self.clocks) + drift + self.random.randrange(step)
            for clock in self.clocks:
                clock.set(now + self.random.randint(-drift, drift))
        else:
            step = self.random.choice([DAY, *[step] * 20])
            self.clocks[replica].advance(self.random.randint(-2 * MINUTE, step))
        self.latest = max(self.latest, *(clock.now() for clock in self.clocks))
        note(f"clocks {[clock.now() - START for clock in self.clocks]}")

    def _deliver_a_commit(self, replica: int, session: bytes) -> None:
        """Send any commit ever made, early or late, once or twice, as it was written."""
        made = self._made_by(replica)
        if made:
            commit, sink = self.random.choice(made), self.random.randrange(3)
            note(f"{replica} sends {sink} the commit {commit}")
            for _ in range(self.random.choice([1, 2])):
                self.stores[sink].merge([commit], {})

    def _deliver_a_session(self, replica: int, session: bytes) -> None:
        """Send all that a replica has of a session, what it holds back as well."""
        whole, sink = self.stores[replica].whole(session), self.random.randrange(3)
        if whole is not None:
            note(f"{replica} sends {sink} all of {session!r}")
            assert self.stores[sink].merge([(session, decode_record(whole))], {}).doubtful == []

    def _release(self, replica: int, session: bytes) -> None:
        note(f"{replica} releases {self.stores[replica].release()}")

    def _sweep(self, replica: int, session: bytes) -> None:
        """Sweep without waiting for anybody: only what is past its hard end may go."""
        for destroyed in (False, True):
            note(f"{replica} sweeps {self.stores[replica].sweep(0, 10, destroyed=destroyed)}")

    def _may_write(self, replica: int, session: bytes) -> bool:
        """Tell whether a replica writes a session here; where that creates it, if it may do that."""
        record = self.stores[replica].load(session).record
        if not self.agreeing or status(record, self.clocks[replica].now()) is not Status.UNKNOWN:
            return True
        may_create = replica == SESSIONS.index(session) and session not in self.created
        self.created |= {session} if may_create else set()
        return may_create

    def _commit(self, what: str, replica: int, session: bytes, edit: Edit) -> bool:
        """Run an edit and check what a commit has to keep; return whether it wrote anything."""
        store = self.stores[replica]
        before = (store.last_stamp(), store.whole(session))
        try:
            version = store.commit([(session, edit)])
        except SessionError:
            assert (store.last_stamp(), store.whole(session)) == before
            return False
        if version is not None:
            note(f"{replica} {what} {session!r} {version.hex()}")
            assert stamp_of(version) > before[0]
            assert stamp_of(version) >= self.clocks[replica].now()
        return version is not None

    def _made_by(self, replica: int) -> list[tuple[bytes, Record]]:
        return [
            (change.session, decode_record(change.delta))
            for entry in self.stores[replica].log(0)
            for change in entry.changes
            if change.delta is not None
        ]

    def _exchange_everything(self) -> int:
        """Send every session from everybody to everybody; return how many changed anywhere."""
        changed = 0
        for source, sink in permutations(self.stores, 2):
            batch = [(s, decode_record(w)) for s in SESSIONS if (w := source.whole(s)) is not None]
            changed += sink.merge(batch, {}).changed
        return changed

    def _check_no_half_session_is_visible(self) -> None:
        """R17: what readers see has its birth, or is a tombstone and nothing else."""
        for store in self.stores:
            for session in SESSIONS:
                record = store.load(session).record
                if record is not None and record.birth is None:
                    assert record == Record(destroy=record.destroy)

    def _check_stamps(self) -> None:
        """I11: a node's stamps strictly increase, and one commit has one version."""
        for store in self.stores:
            assert all(one.stamp < next_one.stamp for one, next_one in pairwise(store.log(0)))
            for entry in store.log(0):
                for change in entry.changes:
                    delta = decode_record(change.delta) if change.delta is not None else None
                    if delta is not None and Slot(BACK + store.node) not in delta.cells:
                        (version,) = set(versions(delta))
                        assert (stamp_of(version), node_of(version)) == (entry.stamp, store.node)


def encoded(records: dict[bytes, Record]) -> dict[bytes, bytes]:
    """Return the bytes of records, which are equal where the records are."""
    return {session: encode_record(record) for session, record in records.items()}
