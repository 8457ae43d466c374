"""The faults a scenario can bring about, by name."""

from collections.abc import Callable
from random import Random

from canister.clock import SECOND
from canister.life import NEVER
from canister.store.memory import MemoryStore
from canister.testing.simulation.cluster import Cluster, SimNode

FAULTS = (
    "backup", "clock far ahead", "clock skew", "crash", "duplicates", "flap", "forget", "hang", "heal",
    "join", "link drop", "one-way split", "partial split", "power cut", "restart", "restore", "resume",
    "slow network", "split", "sweep", "sync",
)  # fmt: skip
"""The names of all faults."""


class Faults:
    """Acts on random parts of a cluster."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._random = random
        self._backups: dict[str, MemoryStore] = {}
        self._added = 0

    def by_name(self) -> dict[str, Callable[[], None]]:
        """Return the faults."""
        return {
            "split": self.split,
            "one-way split": self.one_way,
            "partial split": self.partial,
            "heal": self._cluster.network.heal,
            "link drop": self.drop_link,
            "slow network": self.slow,
            "flap": self.flap,
            "duplicates": self.duplicate,
            "crash": self.crash,
            "power cut": self.power_cut,
            "restart": self.restart,
            "sync": self.sync,
            "backup": self.back_up,
            "restore": self.restore,
            "hang": self.hang,
            "resume": self.resume,
            "clock skew": self.skew,
            "clock far ahead": self.far_ahead,
            "join": self.join,
            "sweep": self.sweep,
            "forget": self.forget,
        }

    def split(self) -> None:
        """Cut the cluster in two."""
        some, rest = self._halves()
        self._cluster.network.cut(some, rest)
        self._cluster.network.cut(rest, some)

    def one_way(self) -> None:
        """Lose what goes one way between two parts."""
        some, rest = self._halves()
        self._cluster.network.cut(some, rest)

    def partial(self) -> None:
        """Cut one pair of nodes from each other."""
        if len(self._cluster.nodes) > 1:
            a, b = self._random.sample(list(self._cluster.nodes.values()), 2)
            self._cluster.network.cut([a], [b])
            self._cluster.network.cut([b], [a])

    def drop_link(self) -> None:
        """Close one link; whatever was on its way is lost."""
        pipes = sorted(self._cluster.network.pipes)
        if pipes:
            address, number = self._random.choice(pipes)
            self._drop(self._cluster.nodes[address], number)

    def slow(self) -> None:
        """Make every message take up to a second, or be fast again."""
        network = self._cluster.network
        network.slowest = self._random.choice((2_000, 200_000, SECOND))

    def flap(self) -> None:
        """Drop all links of a node, again and again."""
        node = self._any()
        for number in range(5):
            self._cluster.schedule.after(number * SECOND // 2, lambda: self._drop_links(node))

    def duplicate(self) -> None:
        """Let live messages arrive twice, or once again."""
        network = self._cluster.network
        network.duplicates = self._random.choice((0.0, 0.5))

    def crash(self) -> None:
        """Kill a node."""
        self._any_running(SimNode.crash)

    def power_cut(self) -> None:
        """Kill a node and lose what it had not synced; a second later it starts again."""
        self._any_running(self._cluster.journal.power_cut)

    def restart(self) -> None:
        """Start every node that is down."""
        for node in self._cluster.nodes.values():
            if node.replica is None:
                node.boot()

    def sync(self) -> None:
        """Sync every node."""
        self._cluster.sync(self._cluster.nodes.values())

    def back_up(self) -> None:
        """Keep a copy of a node's data."""
        node = self._any()
        self._backups[node.address] = node.store.copy(node.clock)

    def restore(self) -> None:
        """Put a node's backup in place of its data: what only it had since is lost."""
        node = self._any()
        backup = self._backups.get(node.address)
        if backup is not None and node.replica is not None:
            self._cluster.journal.roll_back(node, backup)
            node.boot()

    def hang(self) -> None:
        """Stop a node without ending it."""
        self._any().hung = True

    def resume(self) -> None:
        """Let hung nodes go on."""
        for node in self._cluster.nodes.values():
            node.hung = False
        self._cluster.network.heal()

    def skew(self) -> None:
        """Move a clock, within what is allowed, forward or back."""
        drift = self._cluster.policy.drift
        self._any().clock.error = self._random.randint(-drift // 4, drift // 4)

    def far_ahead(self) -> None:
        """Move a clock ahead by more than is allowed."""
        self._any().clock.error = 3 * self._cluster.policy.drift

    def join(self) -> None:
        """Add an empty node."""
        if len(self._cluster.nodes) < 6:
            self._added += 1
            self._cluster.add(f"j{self._added}").boot()

    def sweep(self) -> None:
        """Sweep on every node."""
        for node in self._cluster.running:
            if node.replica is not None:
                gate = min(node.replica.gate(), NEVER)
                node.store.sweep(gate, 1000, destroyed=False)
                node.store.sweep(gate, 1000, destroyed=True)

    def forget(self) -> None:
        """Drop one node's copy of a session that others have."""
        node = self._any()
        sessions = sorted(node.store.rows)
        others = [n for n in self._cluster.nodes.values() if n is not node]
        shared = [s for s in sessions if any(n.store.whole(s) == node.store.whole(s) for n in others)]
        if shared and node.replica is not None:
            node.replica.forget(self._random.choice(shared))

    def _drop_links(self, node: SimNode) -> None:
        for address, number in sorted(self._cluster.network.pipes):
            if address == node.address:
                self._drop(node, number)

    def _drop(self, node: SimNode, number: int) -> None:
        self._cluster.network.close(node, number, tell=True)
        if node.replica is not None:
            node.replica.closed(number)

    def _halves(self) -> tuple[list[SimNode], list[SimNode]]:
        nodes = list(self._cluster.nodes.values())
        self._random.shuffle(nodes)
        at = self._random.randint(1, max(1, len(nodes) - 1))
        return nodes[:at], nodes[at:]

    def _any(self) -> SimNode:
        return self._random.choice(list(self._cluster.nodes.values()))

    def _any_running(self, act: Callable[[SimNode], None]) -> None:
        running = self._cluster.running
        if len(running) > 1:
            act(self._random.choice(running))
