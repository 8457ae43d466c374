"""The faults a scenario can bring about, by name."""

from collections.abc import Callable
from functools import partial
from random import Random

from canister.clock import SECOND
from canister.testing.simulation.cluster import SYNCED, Cluster, SimNode

_BACKUP = "backup"

FAULTS = (
    "backup", "clock far ahead", "clock skew", "clock step", "crash", "duplicates", "flap", "forget", "hang",
    "heal", "join", "leave", "link drop", "one-way split", "partial split", "power cut", "restart", "restore",
    "resume", "return", "slow disk", "slow network", "split", "sweep", "sync",
)  # fmt: skip
"""The names of all faults."""


class Faults:
    """Acts on random parts of a cluster."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self._cluster = cluster
        self._random = random
        self._added = 0
        self._common = 0
        """The error that all clocks have, beside their own."""

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
            "clock step": self.step,
            "join": self.join,
            "leave": self.leave,
            "return": self.come_back,
            "slow disk": self.slow_disk,
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
        """Kill a node and lose what it had not synced."""
        self._any_running(lambda node: self._cluster.journal.roll_back(node, SYNCED))

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
        self._any().disk.save(_BACKUP)

    def restore(self) -> None:
        """Put a node's backup in place of its data: what only it had since is lost."""
        node = self._any()
        if node.disk.saved(_BACKUP) is not None and node.replica is not None:
            self._cluster.journal.roll_back(node, _BACKUP)
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
        self._any().clock.error = self._common + self._random.randint(-drift // 4, drift // 4)

    def far_ahead(self) -> None:
        """Move a clock ahead by more than is allowed."""
        self._any().clock.error = 3 * self._cluster.policy.drift

    def step(self) -> None:
        """Move all clocks at once, ahead or back, as where the machine under all of them is set."""
        self._common = self._random.choice((-3, 0, 3)) * self._cluster.policy.drift
        for node in self._cluster.nodes.values():
            node.clock.error = self._common

    def join(self) -> None:
        """Add an empty node."""
        if len(self._cluster.nodes) < 6:
            self._added += 1
            node = self._cluster.add(f"j{self._added}")
            node.clock.error = self._common
            node.boot()

    def leave(self) -> None:
        """Kill a node for good and have another one remove it from the cluster."""
        running = self._cluster.running
        if len(running) < 3:
            return
        gone, other = self._random.sample(running, 2)
        replica = other.replica
        if replica is not None and other.loop.run(lambda: replica.remove_member(gone.address)):
            self._cluster.leave(gone)
            self._cluster.network.effects["member removed"] += 1

    def come_back(self) -> None:
        """Let the members that were removed return with empty data."""
        for node in list(self._cluster.away.values()):
            self._cluster.come_back(node)
            self._cluster.network.effects["member returned"] += 1

    def slow_disk(self) -> None:
        """Make every write of a node take long, or be fast again."""
        self._any().loop.latency = self._random.choice((0, SECOND // 50, SECOND // 5))

    def sweep(self) -> None:
        """Sweep on every node."""
        for node in self._cluster.running:
            if node.replica is not None:
                node.loop.run(partial(_sweep, node, node.replica.gate()))

    def forget(self) -> None:
        """Drop one node's copy of a session that another has, and keeps whatever happens to it."""
        node = self._any()
        sessions = sorted(session for session, _ in node.sessions())
        others = [n for n in self._cluster.nodes.values() if n is not node]
        replica = node.replica
        if replica is None:
            return
        shared = [s for s in sessions if any(_keeps(n, s, node.whole(s)) for n in others)]
        if shared:
            session = self._random.choice(shared)
            node.loop.run(lambda: replica.forget(session))

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


def _sweep(node: SimNode, gate: int) -> None:
    node.store.sweep(gate, 1000, destroyed=False)
    node.store.sweep(gate, 1000, destroyed=True)
    node.disk.tidy()


def _keeps(node: SimNode, session: bytes, whole: bytes | None) -> bool:
    """Tell whether a node has a session so, and keeps it through a power cut and a restore."""
    return whole is not None and node.whole(session) == whole and node.disk.keeps(session, whole)
