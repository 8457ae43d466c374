"""Digests of what a node holds: a tree of XORs over 65,536 buckets.

Two nodes find what differs by walking down from the root where the digests differ (a Merkle tree in
shape, as in Demers et al., "Epidemic Algorithms for Replicated Database Maintenance", 1987, with XOR in
place of hashing, so that one session is taken out or put in without reading its neighbours).
"""

from collections.abc import Iterable, Iterator, Sequence

from canister.store.base import BUCKETS, Listed, LogEntry, Snapshot, bucket_of

LEVELS = (1, 256, 4_096, BUCKETS)
"""Branches of the tree at each level; the last are the buckets."""
_SHIFTS = tuple((BUCKETS // size).bit_length() - 1 for size in LEVELS)
"""By how many bits a bucket's number is shifted to name the branch of each level that it is below."""
LEAF = len(LEVELS) - 1
SHORT = 8
"""Bytes of a digest on the wire below the root: the root confirms the outcome at the next round."""
NOTHING = bytes(SHORT)
"""The shortened digest where there is no session."""
FEW = 32
"""Sessions below a branch of the tree that are listed rather than compared further down."""


def buckets_of(level: int, branch: int) -> range:
    """Return the buckets below a branch of the tree."""
    width = BUCKETS // LEVELS[level]
    return range(branch * width, (branch + 1) * width)


def branch_of(level: int, bucket: int) -> int:
    """Return the branch of a level that a bucket is below."""
    return bucket * LEVELS[level] // BUCKETS


class DigestTree:
    """XORs of the digests of all sessions retained past the horizon.

    Built bucket by bucket, so that nobody waits for it; fed by the log, so that writers never touch it;
    moved along the index on retention, so that only what lies between two instants is read.
    """

    def __init__(self) -> None:
        self._levels: list[list[int]] = [[0] * size for size in LEVELS]
        self._top: list[bytes] = []
        """What is below the root, as every comparison asks for it; empty once something has changed."""
        self._applied = 0
        self._horizon = 0
        self._read = 0
        """How many buckets have been read since the beginning."""
        self.size = 0
        """How many sessions are in the digests."""

    @property
    def applied(self) -> int:
        """The stamp of the last log entry the tree has taken in."""
        return self._applied

    @property
    def is_whole(self) -> bool:
        """Tell whether all that is stored is in the digests."""
        return self._read == BUCKETS

    def build(self, snapshot: Snapshot, at: int) -> None:
        """Begin anew, and read all stored sessions."""
        self.begin(snapshot, at)
        self.read(snapshot, BUCKETS)

    def begin(self, snapshot: Snapshot, at: int) -> None:
        """Begin anew, as of *at*; until `read` has read the stored sessions nothing is in the digests."""
        self._levels = [[0] * size for size in LEVELS]
        self._top = []
        self.size = 0
        self._applied = snapshot.last_stamp()
        self._horizon = at
        self._read = 0

    def read(self, snapshot: Snapshot, count: int) -> None:
        """Read the sessions of the next *count* buckets.

        The tree must have caught up with the same snapshot.
        """
        buckets = range(self._read, min(BUCKETS, self._read + count))
        self._toggle(snapshot.digests(buckets, self._horizon))
        self._read = buckets.stop

    def catch_up(self, snapshot: Snapshot) -> list[LogEntry]:
        """Take in what was logged since, as far as its buckets are read; return it."""
        entries = snapshot.log(self._applied)
        put_in: list[tuple[int, bytes]] = []
        taken_out: list[tuple[int, bytes]] = []
        for entry in entries:
            for change in entry.changes:
                bucket = bucket_of(change.session)
                if bucket < self._read:
                    before, after = change.before, change.after
                    if before is not None and before.retain > self._horizon:
                        taken_out.append((bucket, before.digest))
                    if after is not None and after.retain > self._horizon:
                        put_in.append((bucket, after.digest))
            self._applied = entry.stamp
        self._toggle(put_in, taken_out)
        return entries

    def move(self, snapshot: Snapshot, at: int) -> None:
        """Make the digests as of *at*. The tree must have caught up with the same snapshot."""
        if at == self._horizon:
            return
        low, high = sorted((self._horizon, at))
        marks = snapshot.marks(low, high)
        if at == low:
            self._toggle(marks)
        else:
            self._toggle((), marks)
        self._horizon = at

    def root(self) -> bytes:
        """Return the digest of everything."""
        return self._levels[0][0].to_bytes(16, "big")

    def children(self, level: int, branch: int) -> list[bytes]:
        """Return the shortened digests one level below a branch."""
        if level == 0:
            self._top = self._top or self._below(0, 0)
            return self._top
        return self._below(level, branch)

    def _below(self, level: int, branch: int) -> list[bytes]:
        fan = LEVELS[level + 1] // LEVELS[level]
        below = self._levels[level + 1]
        return [below[i].to_bytes(16, "big")[:SHORT] for i in range(branch * fan, (branch + 1) * fan)]

    def _toggle(
        self, put_in: Iterable[tuple[int, bytes]], taken_out: Iterable[tuple[int, bytes]] = ()
    ) -> None:
        """Put digests in and take others out; those of one bucket are brought to the levels above as one."""
        folded: dict[int, int] = {}
        number = int.from_bytes
        for digests, count in ((put_in, 1), (taken_out, -1)):
            for bucket, digest in digests:
                folded[bucket] = folded.get(bucket, 0) ^ number(digest, "big")
                self.size += count
        if folded:
            self._top = []
        for level, shift in zip(self._levels, _SHIFTS, strict=True):
            for bucket, value in folded.items():
                level[bucket >> shift] ^= value


class View:
    """What this node holds, read through a tree that has caught up with the snapshot."""

    def __init__(self, tree: DigestTree, snapshot: Snapshot) -> None:
        self._tree = tree
        self.snapshot = snapshot

    def root(self, at: int) -> bytes:
        """Return the digest of everything as of *at*."""
        self._tree.move(self.snapshot, at)
        return self._tree.root()

    def children(self, at: int, level: int, branch: int) -> list[bytes]:
        """Return the shortened digests one level below a branch, as of *at*."""
        self._tree.move(self.snapshot, at)
        return self._tree.children(level, branch)

    def below(self, at: int) -> bytes:
        """Return the shortened digests one level below the root, joined, as of *at*."""
        return b"".join(self.children(at, 0, 0))

    def size(self, at: int) -> int:
        """Return how many sessions are retained at *at*."""
        self._tree.move(self.snapshot, at)
        return self._tree.size

    def listings(self, at: int, level: int, branches: Sequence[int]) -> list[list[Listed]]:
        """Return for each of some branches of the tree the sessions below it that are retained at *at*.

        Neighbours are read at once: where much differs, all that is asked about is neighbours.
        """
        found: dict[int, list[Listed]] = {branch: [] for branch in branches}
        for run in runs(sorted(found)):
            buckets = range(buckets_of(level, run.start).start, buckets_of(level, run.stop - 1).stop)
            for listed in self.snapshot.listing(buckets, at):
                found[branch_of(level, bucket_of(listed.session))].append(listed)
        return [found[branch] for branch in branches]


def cut(digests: bytes) -> Iterator[bytes]:
    """Return shortened digests that were joined."""
    return (digests[i : i + SHORT] for i in range(0, len(digests), SHORT))


def runs(numbers: Iterable[int]) -> Iterator[range]:
    """Return ascending numbers as ranges of neighbours."""
    run = range(0)
    for number in numbers:
        if run and number != run.stop:
            yield run
            run = range(0)
        run = range(run.start if run else number, number + 1)
    if run:
        yield run
