"""What was acknowledged, and what a fault may have taken of it."""

from typing import TYPE_CHECKING, NamedTuple

from canister.life import NEVER
from canister.record import NodeId, Record, Version, decode_record, node_of, stamp_of
from canister.store.base import LogEntry

if TYPE_CHECKING:
    from canister.testing.simulation.cluster import SimNode


class Commit(NamedTuple):
    """An acknowledged commit."""

    node: "SimNode"
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
        self._departed: set[NodeId] = set()

    def note(self, node: "SimNode", version: Version, entry: LogEntry) -> None:
        """Note a commit as it was written."""
        rows = [(change.session, change.delta) for change in entry.changes if change.delta is not None]
        self.commits.append(Commit(node, version, rows))
        for session, encoded in rows:
            delta = decode_record(encoded)
            if delta.birth is not None:
                self.births.setdefault(session, delta)
            if len(delta.cells) > 1:
                self.updates.setdefault(session, []).append(delta)

    def roll_back(self, node: "SimNode", name: str) -> None:
        """Kill a node and put an older state in its place: what it wrote since is in doubt.

        Args:
            node: the node.
            name: what the state was saved as.
        """
        node.crash()
        kept = node.disk.saved(name) or 0
        self.unsure |= {v for n, v, _ in self.commits if n is node and stamp_of(v) > kept}
        node.disk.restore(name)
        self._weigh(node)

    def departed(self, node: "SimNode") -> None:
        """A node is gone with its data: of what it wrote there is what the others have."""
        self._departed |= {node_of(v) for n, v, _ in self.commits if n is node}
        self._weigh(node)

    def _weigh(self, node: "SimNode") -> None:
        """Doubt the commits of departed nodes that no node vouches for any more.

        The same goes for those of a node that has forgotten a session, if whoever else had it is gone.
        """
        nodes = node.cluster.nodes.values()
        forgetful = {n.store.node for n in nodes if n.store.heard_of(n.store.node) < NEVER}
        for commit in self.commits:
            origin, stamp = node_of(commit.version), stamp_of(commit.version)
            if origin not in self._departed | forgetful:
                continue
            if not any(n.store.heard_of(origin) >= stamp for n in nodes):
                self.unsure.add(commit.version)
