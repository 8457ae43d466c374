"""A random run: a workload under faults, then a heal, then the checks."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from canister import edits
from canister.clock import SECOND
from canister.codec import encode_id, encode_value, key_slot
from canister.config import Config, Policy
from canister.errors import ClockError, SessionError
from canister.life import deadline, retention
from canister.record import Record, Version
from canister.store.base import Edit
from canister.testing.simulation.checks import (
    Reader,
    check_converged,
    check_destroyed,
    check_quiet,
    check_shape,
    check_stamps,
    check_written,
)
from canister.testing.simulation.cluster import Cluster, SimNode
from canister.testing.simulation.faults import Faults

_TURN = 15 * SECOND
"""How long a node leaves a session alone before it may use it again."""
_SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where SQLite files are, so that no time is lost waiting for a disk."""
_LARGE = 40
"""As many nodes hear and compare with each other no more often than by default, fewer twice as often."""
_HEAL = 45.0
"""Seconds the cluster is given to become equal after the last fault has ended."""


@dataclass
class Outcome:
    """What happened in a run: how often each operation, fault, effect of a fault and check came about.

    *digests* are those of the nodes at the end, which are one if they are equal.
    """

    seed: int
    operations: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    effects: Counter[str] = field(default_factory=Counter[str])
    checks: Counter[str] = field(default_factory=Counter[str])
    events: list[str] = field(default_factory=list[str])
    digests: set[bytes] = field(default_factory=set[bytes])


class Scenario:
    """The state of one run.

    Args:
        seed: decides everything.
        size: number of nodes.
        steps: length of the faulty part.
        without: faults that are drawn and do nothing, to find out which ones matter.
        directory: where the nodes keep SQLite files; None for stores in memory.
    """

    def __init__(
        self,
        seed: int,
        size: int,
        steps: int,
        without: frozenset[str] = frozenset(),
        directory: Path | None = None,
    ) -> None:
        self.without = without
        self.random = Random(seed)
        self.outcome = Outcome(seed)
        self.steps = steps
        self.cluster = Cluster(size, seed, _config(self.random, size), directory)
        self.sessions: list[bytes] = []
        self.destroyed: dict[bytes, Version] = {}
        self.readers: list[Reader] = []
        self._count = 0

    def run(self) -> Outcome:
        """Run, heal and check.

        Raises:
            Violation: an invariant does not hold.
        """
        self.outcome.events = self.cluster.events
        self.outcome.effects = self.cluster.network.effects
        self.cluster.run(3)
        faults = Faults(self.cluster, self.random).by_name()
        for _ in range(self.steps):
            for _ in range(self.random.randint(1, 6)):
                self._operate()
            if self.random.random() < 0.25:
                name = self.random.choice(sorted(faults))
                if name not in self.without:
                    self.cluster.trace(f"fault: {name}")
                    faults[name]()
                    self.outcome.faults[name] += 1
            self.cluster.run(self.random.choice((0.01, 0.1, 0.5, 2.0)))
            self._read()
            if self.random.random() < 0.3:
                faults["sweep"]()
        self._heal()
        self.outcome.checks["I1 I2 I3 I5 I9"] += check_converged(self.cluster)
        self.outcome.checks["quiet"] += check_quiet(self.cluster, seconds=15)
        self.outcome.checks["I11"] += check_stamps(self.cluster)
        self.outcome.checks["I4"] += check_destroyed(self.cluster, self.destroyed)
        self.outcome.digests = self.cluster.digests()
        return self.outcome

    def _heal(self) -> None:
        cluster = self.cluster
        cluster.trace("heal")
        cluster.network.heal()
        cluster.network.slowest = 5_000
        for node in cluster.nodes.values():
            node.hung = False
            node.loop.latency = 0
            if node.replica is None:
                node.boot()
        # Held back until due: as long as the furthest clock was ahead.
        ahead = max(node.clock.error for node in cluster.nodes.values()) / SECOND
        slack = cluster.policy.drift // 4
        for node in cluster.nodes.values():
            node.clock.error = max(-slack, min(node.clock.error, slack))
        cluster.run(_HEAL + ahead)

    def _operate(self) -> None:
        nodes = [node for node in self.cluster.nodes.values() if node.replica is not None]
        if not nodes:
            return
        node = self.random.choice(nodes)
        session = self._pick(node)
        name, edit = self._edit(session)
        before = node.visible(session)
        was_over = before is not None and deadline(before) <= node.clock.now()
        try:
            version = node.commit(session, edit)
        except (SessionError, ClockError):
            self.outcome.operations[f"{name} refused"] += 1
            return
        if version is None:
            return
        self.outcome.operations[name] += 1
        self.cluster.trace(f"{node.address} {name} {session!r}")
        if name == "destroy":
            self.destroyed[session] = version
        else:
            check_written(node, session, version, was_over)

    def _pick(self, node: SimNode) -> bytes:
        """Return a session id for *node* to work on.

        Nodes take turns with different sessions, so that one may idle here while it is in use there.
        An id whose session a node has dropped, or may be about to, is not used there again.
        """
        slack = 4 * self.cluster.policy.drift
        turn = self.cluster.schedule.now // _TURN
        usable = [
            session
            for number, session in enumerate(self.sessions[-24:])
            if (number + turn + len(node.address) + ord(node.address[-1])) % 3
            and (record := node.visible(session)) is not None
            and retention(record) - slack > self.cluster.schedule.now
        ]
        if not usable or self.random.random() < 0.1:
            self._count += 1
            self.sessions.append(encode_id(f"s{self._count}"))
            return self.sessions[-1]
        return self.random.choice(usable)

    def _edit(self, session: bytes) -> tuple[str, Edit]:
        policy, random = self.cluster.policy, self.random
        keys = {key_slot(random.choice("abcd")): encode_value(random.randint(0, 10**6)) for _ in range(2)}
        one = dict(list(keys.items())[:1])
        roll = random.random()
        if roll < 0.45:
            return "put", lambda r, m: edits.write(r, m, policy, one)
        if roll < 0.6:
            return "update", lambda r, m: edits.write(r, m, policy, keys)
        if roll < 0.68:
            return "remove", lambda r, m: edits.write(r, m, policy, dict.fromkeys(one)) if r else None
        if roll < 0.75:
            return "clear", lambda r, m: edits.write(r, m, policy, {}, clear=True)
        if roll < 0.80:
            return "destroy", lambda r, m: edits.destroy(r, m, policy)
        if roll < 0.95:
            return "touch", lambda r, m: edits.touch(r, m, m.now)
        idle = random.randint(5, 120) * SECOND
        return "set_expiry", lambda r, m: _expiry(r, m, policy, idle)

    def _read(self) -> None:
        if self.sessions and self.random.random() < 0.5:
            self.readers.append(Reader(self.random.choice(self.sessions[-12:])))
        for reader in self.readers[-8:]:
            node = self.random.choice(list(self.cluster.nodes.values()))
            if node.replica is not None:
                self.outcome.checks["I8 served" if reader.read(self.cluster, node) else "I8 behind"] += 1
        self.outcome.checks["I4"] += check_destroyed(self.cluster, self.destroyed)
        self.outcome.checks["whole"] += check_shape(self.cluster)


def run_scenario(
    seed: int,
    size: int = 3,
    steps: int = 60,
    without: frozenset[str] = frozenset(),
    *,
    sqlite: bool = False,
    events: list[str] | None = None,
) -> Outcome:
    """Run one scenario.

    Args:
        seed: decides everything.
        size: number of nodes.
        steps: length of the faulty part.
        without: faults to leave out.
        sqlite: keep the sessions in SQLite files.
        events: takes what happened, also where the run fails.

    Raises:
        Violation: an invariant does not hold; the same arguments repeat it.
    """
    with TemporaryDirectory(prefix="canister-", dir=_SHARED_MEMORY) if sqlite else nullcontext() as directory:
        scenario = Scenario(seed, size, steps, without, Path(directory) if directory else None)
        try:
            return scenario.run()
        finally:
            scenario.cluster.close()
            if events is not None:
                events += scenario.cluster.events


def _expiry(record: Record | None, moment: edits.Moment, policy: Policy, idle: int) -> Record | None:
    return edits.set_expiry(record, moment, policy, idle, None)


def _config(random: Random, size: int) -> Config:
    """Return long, short or tiny session times: in tiny ones, sessions are born and purged within a run."""
    idle, absolute, grace, drift = random.choice(
        (
            (timedelta(minutes=20), timedelta(hours=6), timedelta(minutes=1), timedelta(seconds=4)),
            (timedelta(seconds=60), timedelta(minutes=10), timedelta(seconds=30), timedelta(seconds=4)),
            (timedelta(seconds=8), timedelta(seconds=90), timedelta(seconds=5), timedelta(seconds=1)),
        )
    )
    return Config(
        session_timeout=idle,
        absolute_lifetime=absolute,
        grace_period=grace,
        max_clock_drift=drift,
        node_interval=timedelta(seconds=8 if size >= _LARGE else 4),
        digest_interval=timedelta(seconds=10 if size >= _LARGE else 5),
        cluster="simulated",
    )
