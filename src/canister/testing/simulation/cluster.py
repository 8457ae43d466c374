"""Simulated nodes: the real replication over a reference store."""

from collections.abc import Callable, Iterable
from random import Random
from typing import NamedTuple

from canister.clock import SECOND, next_stamp
from canister.config import Config, Policy
from canister.record import NODE_ID_BYTES, NodeId, Record, Version, decode_record, make_version, stamp_of
from canister.replication.link import LinkId
from canister.replication.membership import Membership, introduce
from canister.replication.replica import Replica
from canister.store.base import Edit, LogEntry
from canister.store.memory import MemoryStore
from canister.testing.simulation.network import Network, Schedule, SimRuntime, deliver

_TICK = SECOND // 5
_DIAL = SECOND // 2


class SimClock:
    """A node's wall clock: virtual time plus an error."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.error = 0

    def now(self) -> int:
        """Return what this clock shows, in microseconds."""
        return self._schedule.now + self.error


class SimNode:
    """One node; its store outlives its crashes."""

    def __init__(self, cluster: "Cluster", address: str) -> None:
        self.cluster = cluster
        self.network = cluster.network
        self.address = address
        self.clock = SimClock(cluster.schedule)
        self.store = self.fresh_store()
        self.replica: Replica | None = None
        self.hung = False
        self.saved: MemoryStore = self.store.copy()
        """What a power cut leaves: the store as of the last sync."""
        self._links = 0
        self._life = 0

    def fresh_store(self) -> MemoryStore:
        """Return an empty store with a new node id."""
        return MemoryStore(self.cluster.config, self.clock, self.cluster.new_id())

    def boot(self) -> None:
        """Start the node on what its store holds."""
        self._life += 1
        life = self._life
        stamp = next_stamp(self.store.last_stamp(), self.clock.now())
        stored = self.store.members()
        version = make_version(stamp, self.store.node)
        me = introduce(stored, self.address, self.store.node, version, empty=not self.store.rows)
        membership = Membership(stored, me, self.cluster.seeds)
        runtime = SimRuntime(self, self.network)
        random = Random(self.cluster.random.random())
        self.replica = Replica(self.store, membership, self.cluster.config, self.clock, runtime, random)
        self.replica.start()
        self._repeat(_TICK, life, self._tick)
        self._repeat(_DIAL, life, self._dial)

    def crash(self) -> None:
        """Stop at once; the store stays as it is."""
        self.replica = None
        self.hung = False
        self.network.drop_all(self)

    def commit(self, session: bytes, edit: Edit) -> Version | None:
        """Commit as a worker of this node does."""
        version = self.store.commit([(session, edit)])
        if version is not None:
            self.cluster.journal.note(self, version, self.store.entries[-1])
            if self.replica is not None and not self.hung:
                self.cluster.schedule.after(50, self._poll)
        return version

    def visible(self, session: bytes) -> Record | None:
        """Return what readers on this node are given."""
        return self.store.load(session).record

    def draw(self) -> LinkId:
        """Return a number for a new link."""
        self._links += 1
        return self._links

    def receive(self, number: LinkId, payload: bytes) -> None:
        """A message arrived."""
        deliver(self, number, payload)

    def lost(self, number: LinkId) -> None:
        """The other end closed a link."""
        self.network.close(self, number, tell=False)
        if self.replica is not None:
            self.replica.closed(number)

    def trace(self, text: str) -> None:
        """Note something for a person who reads the run."""
        self.cluster.trace(f"{self.address} {text}")

    def _poll(self) -> None:
        if self.replica is not None and not self.hung:
            self.replica.poll()

    def _tick(self) -> None:
        if self.replica is not None and not self.hung:
            self.replica.poll()
            self.replica.tick()

    def _dial(self) -> None:
        replica = self.replica
        if replica is None or self.hung:
            return
        linked = {link.address for link in replica.links.values()}
        known = {m.address for m in replica.membership.others()} | set(self.cluster.seeds)
        for address in sorted(known - linked - {self.address}):
            other = self.cluster.nodes.get(address)
            if other is not None:
                self.network.connect(self, other)

    def _repeat(self, period: int, life: int, act: Callable[[], None]) -> None:
        def again() -> None:
            if self._life == life and self.replica is not None:
                act()
                jitter = self.cluster.random.uniform(0.8, 1.2)
                self.cluster.schedule.after(int(period * jitter), again)

        self.cluster.schedule.after(int(period * self.cluster.random.random()), again)


class Commit(NamedTuple):
    """An acknowledged commit."""

    node: SimNode
    version: Version
    rows: list[tuple[bytes, bytes]]


class Journal:
    """Every acknowledged commit, for the checks.

    *unsure* are those that a fault may have taken; *births* and *updates* are the parts of commits
    that create a session and that write several keys, by session.
    """

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.unsure: set[Version] = set()
        self.births: dict[bytes, Record] = {}
        self.updates: dict[bytes, list[Record]] = {}

    def note(self, node: SimNode, version: Version, entry: LogEntry) -> None:
        """Note a commit as it was written."""
        rows = [(change.session, change.delta) for change in entry.changes if change.delta is not None]
        self.commits.append(Commit(node, version, rows))
        for session, encoded in rows:
            delta = decode_record(encoded)
            if delta.birth is not None:
                self.births.setdefault(session, delta)
            if len(delta.cells) > 1:
                self.updates.setdefault(session, []).append(delta)

    def power_cut(self, node: SimNode) -> None:
        """Cut a node's power: what it wrote since its last sync is in doubt."""
        node.crash()
        self.roll_back(node, node.saved)

    def roll_back(self, node: SimNode, old: MemoryStore) -> None:
        """Put an older state in place; it gets a new node id, as any other history does."""
        kept = old.last_stamp()
        self.unsure |= {v for n, v, _ in self.commits if n is node and stamp_of(v) > kept}
        node.crash()
        node.store = old.copy(node.clock, node.cluster.new_id())


class Cluster:
    """A cluster on virtual time.

    Args:
        size: number of nodes.
        seed: decides everything.
        config: settings of all nodes; ``listen`` and ``seeds`` are not used.
    """

    def __init__(self, size: int, seed: int, config: Config | None = None) -> None:
        self.random = Random(seed)
        self.config = config or Config()
        self.policy = Policy.of(self.config)
        self.schedule = Schedule()
        self.network = Network(self.schedule, Random(self.random.random()))
        self.journal = Journal()
        self.events: list[str] = []
        self.seeds = ("n0",)
        self.nodes: dict[str, SimNode] = {}
        for number in range(size):
            self.add(f"n{number}").boot()

    @property
    def running(self) -> list[SimNode]:
        """The nodes that are up and not hung."""
        return [node for node in self.nodes.values() if node.replica is not None and not node.hung]

    def add(self, address: str) -> SimNode:
        """Add an empty node; it still has to boot."""
        node = SimNode(self, address)
        self.nodes[address] = node
        return node

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.schedule.run(int(seconds * SECOND))

    def new_id(self) -> NodeId:
        """Return a new node id."""
        return NodeId(self.random.randbytes(NODE_ID_BYTES))

    def digests(self) -> set[bytes]:
        """Return the different digests of all running nodes as of one instant."""
        at = max(node.clock.now() for node in self.nodes.values())
        return {node.replica.digest(at) for node in self.nodes.values() if node.replica is not None}

    def sync(self, nodes: Iterable[SimNode]) -> None:
        """What is written so far on *nodes* survives a power cut."""
        for node in nodes:
            node.saved = node.store.copy(node.clock)

    def trace(self, text: str) -> None:
        """Note an event."""
        at = (self.schedule.now - 1_700_000_000 * SECOND) / SECOND
        self.events.append(f"{at:10.3f} {text}")
