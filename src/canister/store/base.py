"""What a store is: the few verbs everything above is built on.

Absence is a value: a session that is not here is None. Exceptions mean that the store is ill
(`canister.errors.StoreError`) or that the caller's edit refused.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from canister.edits import Moment
from canister.life import deadline, due
from canister.record import NodeId, Record, Version, decode_record

BUCKETS = 65_536

Needed = int | Literal["majority", "all"]
"""How many members must hold a commit."""

Known = Mapping[bytes, Record | None]
"""Sessions as the caller has just loaded them, by encoded id; None for one that is not there."""

Fingerprints = list[list[str]]
"""What the secret keys of a node are known by: a list for each key ring, its signing key first."""

Edit = Callable[[Record | None, Moment], Record | None]
"""Turns what is stored into what to merge, or None to write nothing.

It may be run more than once: what it returned last was run on what it is merged with.
"""


def bucket_of(session: bytes) -> int:
    """Return the bucket, 0 to 65,535, in which a session's digest is counted."""
    return zlib.crc32(session) >> 16


class Mark(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the digests need to know of a session: its digest and when its data may go."""

    digest: bytes
    retain: int


class Stored(msgspec.Struct, eq=False):
    """A session as it is here.

    What readers work out of the record is kept with it, for them to find again. Where several processes
    write, the record is decoded when somebody asks for it: much of what is kept is written again before that.

    Attributes:
        decoded: what readers may see; None: nothing, or what is still encoded.
        held: whether something is held until its time comes.
        encoded: what readers may see, until somebody asks for the record.
        end: the instant at which readers see the session end, if somebody has worked that out, else 0.
        due: the instant from which an access is to be recorded, if somebody has worked that out, else 0.
        values: all values by key, if somebody has asked for all and none of them can change in place.
        memo: what a session manager has worked out, of this record or of the one before it.
    """

    decoded: Record | None
    held: bool
    encoded: bytes | None = None
    end: int = 0
    due: int = 0
    values: dict[Any, Any] | None = None
    memo: Any = None

    @property
    def is_here(self) -> bool:
        """Whether there is anything that readers may see."""
        return self.encoded is not None or self.decoded is not None

    @property
    def record(self) -> Record | None:
        """What readers may see; None: nothing. The same object each time."""
        encoded = self.encoded
        if encoded is not None:
            self.keep_decoded(decode_record(encoded))
        return self.decoded

    def keep_decoded(self, record: Record) -> None:
        """Keep what was decoded of it, unless another thread has."""
        if self.encoded is not None:
            self.decoded = record
            self.encoded = None

    def is_live(self, now: int) -> bool:
        """Tell whether readers see the session at *now*; whoever asks often looks at *end* before."""
        if self.end <= now and self.record is not None:
            self.end = deadline(self.record)
        return self.end > now

    def is_touch_due(self, now: int) -> bool:
        """Tell whether an access at *now* is to be recorded; whoever asks often looks at *due* before."""
        if self.due <= now and self.record is not None:
            self.due = due(self.record)
        return self.due <= now


ABSENT = Stored(None, held=False)
"""What is not here."""


class Page(NamedTuple):
    """Some sessions of a scan; *position* is where it goes on, *share* how far it is, from 0 to 1.

    *anew* tells that from here on the scan is made once more: what came before may not have been all.
    """

    position: bytes
    share: float
    sessions: list[tuple[bytes, Record]]
    anew: bool = False


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One session's part of a log entry.

    *delta* is the commit as written, None if not made here. *expired* tells that the session was dropped
    because it had ended, not because someone dropped it.
    """

    session: bytes
    before: Mark | None
    after: Mark | None
    delta: bytes | None
    expired: bool = False


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """What one transaction changed. Stamps strictly increase; the last one is the node's clock."""

    stamp: int
    changes: list[Change]


class Listed(NamedTuple):
    """A session in a listing of buckets."""

    session: bytes
    digest: bytes


class Merged(NamedTuple):
    """What came of merging: how many sessions changed, which could not be applied, how many are held.

    A session is *doubtful* if a commit arrived without the commit that created it: the sender's
    state has to be compared before anything more of it is believed.
    """

    changed: int
    doubtful: list[bytes]
    held: int = 0


class Member(msgspec.Struct, array_like=True, frozen=True):
    """A node of the cluster, known by the address it listens on.

    *joined* names the membership: it is drawn when an empty node joins and kept as long as its data.
    *version* orders the statements the member makes about itself; *removed* is a tombstone.
    """

    address: str
    joined: Version
    removed: bool
    version: Version
    node: NodeId

    def order(self) -> tuple[Version, bool, Version]:
        """Return what decides which of two statements about an address holds."""
        return (self.joined, self.removed, self.version)


class Peers(msgspec.Struct, frozen=True):
    """What a node knows of the other members.

    Attributes:
        exist: whether there are others, or doubt about one.
        doubts: how many of them this node has not fully compared itself with lately.
    """

    exist: bool
    doubts: int

    @classmethod
    def among(cls, members: Iterable[Member], node: NodeId, doubts: int) -> "Peers":
        """Return what *node* knows, with so many doubts."""
        others = any(not member.removed for member in members if member.node != node)
        return cls(doubts > 0 or others, doubts)


NO_PEERS = Peers(exist=False, doubts=0)


class Snapshot(Protocol):
    """A consistent view for the agent: the log and the digests as of one instant."""

    def log(self, after: int) -> list[LogEntry]:
        """Return the entries with a stamp greater than *after*, in order."""
        ...

    def last_stamp(self) -> int:
        """Return the node's greatest stamp."""
        ...

    def marks(self, above: int, upto: int) -> Iterator[tuple[int, bytes]]:
        """Return bucket and digest of the sessions with ``above < retain <= upto``."""
        ...

    def digests(self, buckets: range, at: int) -> Iterator[tuple[int, bytes]]:
        """Return bucket and digest of the sessions of neighbouring buckets still retained at *at*."""
        ...

    def listing(self, buckets: range, at: int) -> list[Listed]:
        """Return the sessions of neighbouring buckets that are still retained at *at*, bucket by bucket."""
        ...

    def whole(self, session: bytes) -> bytes | None:
        """Return everything of a session, held parts merged in, encoded; None if it is not here."""
        ...

    def wholes(self, sessions: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Return those of some sessions that are here, in order, each as `whole` returns it."""
        ...

    def all(self, buckets: range, at: int) -> Iterator[tuple[bytes, bytes]]:
        """Return the sessions of neighbouring buckets still retained at *at*, each as `whole` returns it.

        They come bucket by bucket.
        """
        ...

    def heard(self) -> dict[NodeId, int]:
        """Return for each node up to which stamp its commits are known to be here.

        This node itself is named only while it has forgotten something.
        """
        ...


class Store(Protocol):
    """What the session API needs of a store."""

    @property
    def node(self) -> NodeId:
        """The id of this node's present history."""
        ...

    def load(self, session: bytes) -> Stored:
        """Return a session as it is here."""
        ...

    def commit(self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None) -> Version | None:
        """Run the edits under one version and write what they return, all or nothing.

        Args:
            edits: what to run, by encoded session id; an edit may be run more than once.
            known: what the caller has loaded: where a look costs a round trip, it saves one. What is
                written never depends on it.

        Returns:
            The version, or None if no edit wrote anything. What an edit raises passes through and nothing
            is written.
        """
        ...

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        """Yield every session; they are read bit by bit, and none that is there throughout is left out."""
        ...

    def of_user(self, user: bytes) -> list[tuple[bytes, Record]]:
        """Return the sessions whose `canister.record.USER` cell holds *user*, in a fixed order.

        Expired ones that nobody swept yet are among them. The cost follows their number.
        """
        ...

    def heard_of(self, node: NodeId) -> int:
        """Return the stamp up to which all commits of *node* are known to be here, else 0."""
        ...

    def peers(self) -> Peers:
        """Return what is known of the other members: the same object for as long as nothing of it changes."""
        ...

    def close(self) -> None:
        """Release everything. Further calls raise `StoreError`."""
        ...


class ReplicatedStore(Store, Protocol):
    """What the agent needs on top: merging, the log, digests, sweeping and what survives a restart."""

    def merge(
        self, batch: Iterable[tuple[bytes, Record]], heard: Mapping[NodeId, int], *, tell: bool = False
    ) -> Merged:
        """Merge records in one transaction, and note what they vouch for.

        Where a session was doubtful nothing is noted as heard. *tell* logs the records as what this node
        has to send: they are from another engine, not from a peer.
        """
        ...

    def release(self) -> int:
        """Show what was held and whose time has come; return how many sessions changed.

        Each call looks at some hundreds of those that are held, and the next one at those after them.
        """
        ...

    def sweep(self, gate: int, limit: int, *, destroyed: bool) -> int:
        """Drop up to *limit* sessions past their retention; return how many.

        Args:
            gate: the instant up to which all members have reconciled.
            limit: the size of the batch.
            destroyed: sweep tombstones rather than expired sessions.
        """
        ...

    def forget(self, session: bytes) -> bool:
        """Drop this node's copy and all that this node claims to have heard.

        What it wrote itself counts as unheard too, until a peer that has it vouches for it, or all have
        been compared with.
        """
        ...

    def renounce(self, upto: int) -> None:
        """Note that what this node wrote up to the stamp *upto* may not all be here.

        It counts as unheard until a peer vouches for it, stamps drawn from now on are greater, and when
        a store that outlives its process is next opened it takes a new node id.
        """
        ...

    def trim_log(self, before: int) -> bool:
        """Drop log entries with a stamp less than *before*, never the last one.

        Writers wait meanwhile, so it may be some of them only; returns whether there may be more.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Return a consistent view of the log and the sessions."""
        ...

    def members(self) -> list[Member]:
        """Return the stored member list."""
        ...

    def save_members(self, members: Iterable[Member]) -> None:
        """Replace the stored member list."""
        ...

    def sync(self) -> None:
        """Make all that is committed outlive a power cut."""
        ...

    def set_clock_off(self, off: bool) -> None:
        """Tell all processes of the node whether its clock is too far from its peers' to write."""
        ...

    def fingerprints(self) -> Fingerprints:
        """Return what the node's processes said last of their secret keys."""
        ...

    def save_fingerprints(self, fingerprints: Fingerprints) -> None:
        """Tell all processes of the node, its agent above all, what this one's secret keys are."""
        ...

    def set_doubts(self, count: int) -> None:
        """Tell all processes of the node how many members it may be behind of."""
        ...
