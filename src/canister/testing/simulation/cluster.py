"""Simulated nodes: the real replication over a real store, on a simulated network."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from canister.clock import SECOND
from canister.config import Config, Policy
from canister.record import NODE_ID_BYTES, NodeId, Record, Version
from canister.replication.link import LinkId
from canister.replication.membership import Membership, introduce, statement
from canister.replication.replica import Replica
from canister.store.base import BUCKETS, Edit, ReplicatedStore
from canister.testing.simulation.disks import Disk, MemoryDisk, SqliteDisk
from canister.testing.simulation.journal import Journal
from canister.testing.simulation.loop import Loop
from canister.testing.simulation.network import Network, SimRuntime, deliver
from canister.testing.simulation.schedule import START, Schedule

SYNCED = "synced"
"""The saved state that a power cut leaves."""

_READ = SECOND // 50
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
    """One node; its disk outlives its crashes."""

    def __init__(self, cluster: "Cluster", address: str, seeds: Sequence[str]) -> None:
        self.cluster = cluster
        self.network = cluster.network
        self.address = address
        self.seeds = seeds
        self.clock = SimClock(cluster.schedule)
        self.disk = cluster.new_disk(address, self.clock)
        self.disk.save(SYNCED)
        self.loop = Loop(cluster.schedule, cluster.network.effects, self._written)
        self.replica: Replica | None = None
        self.hung = False
        self._links = 0
        self._life = 0

    @property
    def store(self) -> ReplicatedStore:
        """The node's sessions."""
        return self.disk.store

    def boot(self) -> None:
        """Start the node on what its store holds."""
        self._life += 1
        life = self._life
        stored = self.store.members()
        version = statement(stored, self.store.node, self._last_stamp(), self.clock.now())
        empty = next(iter(self.store.scan()), None) is None
        me = introduce(stored, self.address, self.store.node, version, empty=empty)
        membership = Membership(stored, me, self.seeds)
        membership.leave_former()
        runtime = SimRuntime(self, self.network)
        random = Random(self.cluster.random.random())
        config, steady = self.cluster.config, self.cluster.schedule.steady
        self.replica = Replica(self.store, membership, config, self.clock, runtime, random, steady)
        self.replica.start()
        self._read(life)
        self._repeat(_TICK, life, self._tick)
        self._repeat(_DIAL, life, self._dial)

    def crash(self) -> None:
        """Stop at once; what is committed stays."""
        self.replica = None
        self.hung = False
        self.loop.reset()
        self.network.drop_all(self)
        self.disk.kill()

    def commit(self, session: bytes, edit: Edit) -> Version | None:
        """Commit as a worker of this node does."""
        version = self.loop.run(lambda: self.store.commit([(session, edit)]))
        if version is not None:
            with self.store.snapshot() as snapshot:
                entry = snapshot.log(0)[-1]
            self.cluster.journal.note(self, version, entry)
            if self.replica is not None and not self.hung:
                self.cluster.schedule.after(50, self._poll)
        return version

    def visible(self, session: bytes) -> Record | None:
        """Return what readers on this node are given."""
        return self.store.load(session).record

    def whole(self, session: bytes) -> bytes | None:
        """Return all that is here of a session, encoded."""
        with self.store.snapshot() as snapshot:
            return snapshot.whole(session)

    def sessions(self) -> list[tuple[bytes, Record]]:
        """Return all sessions that readers are shown."""
        return list(self.store.scan())

    def draw(self) -> LinkId:
        """Return a number for a new link."""
        self._links += 1
        return self._links

    def receive(self, number: LinkId, payload: bytes) -> None:
        """A message arrived."""
        self.loop.run(lambda: deliver(self, number, payload))

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
            if self.loop.wait:
                self.cluster.schedule.after(self.loop.wait, self._poll)
            else:
                self.loop.run(self.replica.poll)

    def _read(self, life: int) -> None:
        """Read a quarter of the digests, and later the rest."""
        replica = self.replica
        if self._life != life or replica is None:
            return
        if self.hung or not self.loop.run(lambda: replica.read(BUCKETS // 4)):
            self.cluster.schedule.after(_READ, lambda: self._read(life))

    def _tick(self) -> None:
        if self.replica is not None and not self.hung:
            self.replica.poll()
            self.replica.tick()
            self.replica.trim()

    def _dial(self) -> None:
        replica = self.replica
        if replica is None or self.hung:
            return
        known = {m.address for m in replica.membership.others()} | set(self.seeds)
        heard = {link.address for link in replica.links.values() if not replica.is_silent(link.number)}
        for address in sorted(known - heard - {self.address}):
            other = self.cluster.nodes.get(address)
            if other is not None:
                self.network.connect(self, other)

    def _repeat(self, period: int, life: int, act: Callable[[], None]) -> None:
        schedule, random = self.cluster.schedule, self.cluster.random

        def again() -> None:
            if self._life != life or self.replica is None:
                return
            if self.loop.wait:
                schedule.after(self.loop.wait, again)
                return
            self.loop.run(act)
            schedule.after(int(period * random.uniform(0.8, 1.2)), again)

        schedule.after(int(period * random.random()), again)

    def _last_stamp(self) -> int:
        with self.store.snapshot() as snapshot:
            return snapshot.last_stamp()

    def _written(self, after: int) -> tuple[int, int]:
        with self.store.snapshot() as snapshot:
            return len(snapshot.log(after)), snapshot.last_stamp()


class Cluster:
    """A cluster on virtual time.

    Args:
        size: number of nodes.
        seed: decides everything.
        config: settings of all nodes; ``listen`` and ``seeds`` are not used.
        directory: where the nodes keep SQLite files; None for stores in memory.
    """

    def __init__(
        self, size: int, seed: int, config: Config | None = None, directory: Path | None = None
    ) -> None:
        self.random = Random(seed)
        self.config = config or Config()
        self.policy = Policy.of(self.config)
        self.schedule = Schedule()
        self.network = Network(self.schedule, Random(self.random.random()))
        self.journal = Journal()
        self.events: list[str] = []
        self.nodes: dict[str, SimNode] = {}
        self.away: dict[str, SimNode] = {}
        """Members that were removed and have not returned."""
        self._directory = directory
        self._disks: list[Disk] = []
        for number in range(size):
            self.add(f"n{number}", ("n0",)).boot()

    @property
    def running(self) -> list[SimNode]:
        """The nodes that are up and not hung."""
        return [node for node in self.nodes.values() if node.replica is not None and not node.hung]

    def add(self, address: str, seeds: Sequence[str] | None = None) -> SimNode:
        """Add an empty node; it still has to boot.

        Args:
            address: what it is called.
            seeds: whom it dials at first; everybody by default.
        """
        node = SimNode(self, address, tuple(self.nodes) if seeds is None else seeds)
        self.nodes[address] = node
        return node

    def rename(self, **addresses: str) -> None:
        """Stop nodes and start them at other addresses, on what their stores hold.

        Args:
            addresses: the new ones by those that the nodes have.
        """
        moved = {new: self.nodes.pop(old) for old, new in addresses.items()}
        for address, node in moved.items():
            node.crash()
            node.address = address
        self.nodes.update(moved)
        for node in moved.values():
            node.boot()

    def leave(self, node: SimNode) -> None:
        """A node dies for good; its data is lost."""
        node.crash()
        self.away[node.address] = self.nodes.pop(node.address)
        self.journal.departed(node)

    def come_back(self, node: SimNode) -> None:
        """A node that left starts again, empty."""
        node.seeds = tuple(self.nodes)
        node.disk.erase()
        node.disk.save(SYNCED)
        self.nodes[node.address] = self.away.pop(node.address)
        node.boot()

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.schedule.run(int(seconds * SECOND))

    def new_id(self) -> NodeId:
        """Return a new node id."""
        return NodeId(self.random.randbytes(NODE_ID_BYTES))

    def new_disk(self, address: str, clock: SimClock) -> Disk:
        """Return an empty disk for a node."""
        disk: Disk
        if self._directory is None:
            disk = MemoryDisk(self.config, clock, self.new_id)
        else:
            disk = SqliteDisk(self._directory / address, self.config, clock, self.new_id)
        self._disks.append(disk)
        return disk

    def close(self) -> None:
        """Release all files."""
        for disk in self._disks:
            disk.close()

    def digests(self) -> set[bytes]:
        """Return the different digests of all running nodes as of one instant."""
        at = max(node.clock.now() for node in self.nodes.values())
        return {node.replica.digest(at) for node in self.nodes.values() if node.replica is not None}

    def sync(self, nodes: Iterable[SimNode]) -> None:
        """What is written so far on *nodes* survives a power cut."""
        for node in nodes:
            node.disk.save(SYNCED)

    def trace(self, text: str) -> None:
        """Note an event."""
        at = (self.schedule.now - START) / SECOND
        self.events.append(f"{at:10.3f} {text}")
