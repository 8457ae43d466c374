"""The live flow: what a node commits goes to every linked peer at once, as written, in stamp order."""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from canister.clock import SECOND, Clock
from canister.replication.digests import DigestTree, View
from canister.replication.link import Link, LinkId
from canister.replication.messages import Heartbeat, Live, Row
from canister.replication.runtime import Runtime
from canister.store.base import BUCKETS, LogEntry, ReplicatedStore, Snapshot

_FRAME = 256 * 1024
"""Bytes of commits after which a frame is sent."""
_KEPT = 5 * SECOND
"""How long the log is kept for others that read it."""


class LiveFlow:
    """Reads the log once: into the digest tree, and, what was committed here, to the peers.

    Args:
        store: the node's sessions.
        clock: where the time comes from.
        runtime: what sends.
        links: the node's links, as they are at any time.
    """

    def __init__(
        self, store: ReplicatedStore, clock: Clock, runtime: Runtime, links: Mapping[LinkId, Link]
    ) -> None:
        self.tree = DigestTree()
        self._store = store
        self._clock = clock
        self._runtime = runtime
        self._links = links
        self._last = 0
        """The last stamp when it began."""
        self._first = 0
        """The first stamp since; 0 before it."""
        self._trims: deque[tuple[int, int]] = deque()
        """Up to which stamps the log goes, and when."""
        self._to_trim = 0
        """The last of those stamps."""

    def begin(self, now: int) -> None:
        """Begin with the log as it is; `read` has to read what is stored."""
        with self._store.snapshot() as snapshot:
            self.tree.begin(snapshot, now)
        self._last, self._first = self.tree.applied, 0

    def lacks(self, stamp: int) -> bool:
        """Tell whether a commit of this node, up to which a peer has heard it, is not here; once for each.

        It was made before this beginning, or the peer could not have heard of it. Stamps only rise.
        """
        lacks = self._last < stamp and not 0 < self._first <= stamp
        if lacks:
            self._last = stamp
        return lacks

    @contextmanager
    def view(self) -> Generator[View, None, None]:
        """Return what this node holds, all of it, after the flow has caught up with it."""
        with self._store.snapshot() as snapshot:
            self.flow(snapshot)
            self.tree.read(snapshot, BUCKETS)
            yield View(self.tree, snapshot)

    def read(self, buckets: int) -> bool:
        """Read the digests of the next *buckets*; return whether all are there."""
        if not self.tree.is_whole:
            with self._store.snapshot() as snapshot:
                self.flow(snapshot)
                self.tree.read(snapshot, buckets)
        return self.tree.is_whole

    def flow(self, snapshot: Snapshot) -> int:
        """Take in what was logged since the last call, and send what was committed here.

        Returns how many entries were logged.
        """
        # Nothing that may fail comes after what is taken in: it would be vouched for, and not sent.
        vouches = bool(self._links) and self._store.node not in snapshot.heard()
        entries = self.tree.catch_up(snapshot)
        if entries and not self._first:
            self._first = entries[0].stamp
        own = [commit for commit in map(_own_commit, entries) if commit]
        if not own or not self._links:
            return len(entries)  # how far this node has got is told by heartbeats
        commits: list[list[Row]] = []
        size = 0
        for commit in own:
            commits.append(commit)
            size += sum(len(session) + len(delta) for session, delta in commit)
            if size > _FRAME:
                self._send(Live(commits, 0))
                commits, size = [], 0
        # While the node has forgotten one of its own commits it vouches for nothing.
        self._send(Live(commits, entries[-1].stamp if vouches else 0))
        return len(entries)

    def trim(self, now: int) -> bool:
        """Drop some of what was taken in some seconds ago; return whether there is more of it.

        Args:
            now: by the steady clock, since stamps may be ahead of the other one for long.
        """
        if self.tree.applied != self._to_trim:
            self._to_trim = self.tree.applied
            self._trims.append((now + _KEPT, self._to_trim))
        while len(self._trims) > 1 and self._trims[1][0] <= now:
            self._trims.popleft()
        if not self._trims or self._trims[0][0] > now:
            return False
        if self._store.trim_log(self._trims[0][1]):
            return True
        self._trims.popleft()
        return False

    def beat(self, links: Sequence[Link], next_beat: int) -> None:
        """Tell peers that this node is there, and how far it has got."""
        with self._store.snapshot() as snapshot:
            self.flow(snapshot)
            now, upto, heard = self._clock.now(), self._upto(snapshot), snapshot.heard()
        for link in links:
            link.next_beat = next_beat
            heartbeat = Heartbeat(upto, heard.get(link.node, 0), now, link.ahead)
            self._runtime.send([link.number], heartbeat)

    def _send(self, message: Live) -> None:
        self._runtime.send(list(self._links), message)

    def _upto(self, snapshot: Snapshot) -> int:
        """Return up to where all commits have been sent; 0 vouches for nothing.

        That is so while the node has forgotten one of its own.
        """
        return 0 if self._store.node in snapshot.heard() else snapshot.last_stamp()


def _own_commit(entry: LogEntry) -> list[Row]:
    """Return the rows a log entry has to send: the commit as written, nothing of what was received."""
    return [(change.session, change.delta) for change in entry.changes if change.delta is not None]
