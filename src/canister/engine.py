"""What the verbs of the library and the session manager need, whatever holds the sessions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import NamedTuple, Protocol, TypeVar, TypeVarTuple

import msgspec

from canister.agent.control import MemberState
from canister.clock import Clock
from canister.config import Config, Policy
from canister.errors import InputError
from canister.freshness import Seen
from canister.record import Version
from canister.store.base import Change, Edit, Known, Needed, Store, Stored

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """A session as read, and whether this node can tell that this is all there is.

    *certain* False with a record means that there may be newer state elsewhere; without one, that
    the session may exist elsewhere. *everyone* tells whether all members were asked and have answered.
    """

    stored: Stored
    certain: bool
    everyone: bool = False


class Changes(NamedTuple):
    """What was written to a store since a stamp: by whom, does not matter.

    Attributes:
        sessions: the changes, in order.
        upto: the stamp of the last one.
        missed: whether there may have been others that are not told.
    """

    sessions: list[Change]
    upto: int
    missed: bool


class Engine(Protocol):
    """The store of a process, with what stands behind it: an agent and its peers, or servers."""

    @property
    def store(self) -> Store:
        """The store."""
        ...

    @property
    def clock(self) -> Clock:
        """Where the time comes from."""
        ...

    @property
    def policy(self) -> Policy:
        """The times new sessions are born with."""
        ...

    @property
    def is_clustered(self) -> bool:
        """Whether there are, or may be, peers that know more than this process can read."""
        ...

    @property
    def waits(self) -> bool:
        """Whether a load or a commit waits for the network: not to be done on an event loop."""
        ...

    @property
    def key_directory(self) -> Path | None:
        """Where a secret key may be made; None where other processes could not read it."""
        ...

    @property
    def config(self) -> Config:
        """The settings."""
        ...

    @property
    def closing(self) -> Event:
        """Set when the engine is being closed."""
        ...

    def announce_keys(self, ring: list[str]) -> None:
        """Let the peers know which secret keys a session manager of this process has.

        Args:
            ring: the keys' fingerprints, the signing one first.

        Raises:
            StoreError: the database cannot be written.
        """
        ...

    def last_stamp(self) -> int:
        """Return the stamp of the last write that `changes_since` can tell from later ones."""
        ...

    def changes_since(self, stamp: int) -> Changes:
        """Return what was written after *stamp*."""
        ...

    def load(self, session: bytes, *, after: Seen = (), local: bool = False, ask: bool = False) -> Loaded:
        """Return a session, asking the peers where this node knows that it may be behind.

        Args:
            session: the encoded id.
            after: what the reader has seen; the answer is at least as new.
            local: never ask a peer.
            ask: ask the peers in any case.

        Raises:
            CannotTellError: nobody who could answer as new as *after* was reached.
        """
        ...

    def commit(
        self, edits: Sequence[tuple[bytes, Edit]], acks: Needed = 1, known: Known | None = None
    ) -> Version | None:
        """Run edits in one commit; None if nothing was written.

        Args:
            edits: what to run, by encoded session id.
            acks: how many members, this one included, must hold the commit before this returns: a
                number, ``"majority"`` or ``"all"``.
            known: sessions as the caller has just loaded them.

        Raises:
            AcknowledgementError: fewer hold it within ``remote_timeout``; here it stands.
        """
        ...

    def alone(self) -> AbstractContextManager[object]:
        """Return what lets in one thread or task at a time, which may come in again while it is in.

        It waits as whatever `beside` runs does.
        """
        ...

    async def beside(self, act: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run what may wait for disk, members or servers; the event loop goes on meanwhile."""
        ...

    def forget(self, session: bytes) -> bool:
        """Drop this node's copy of a session."""
        ...

    def sweep(self, *, destroyed: bool) -> int:
        """Drop what is past its retention; return how many sessions."""
        ...

    def members(self) -> list[MemberState]:
        """Return all members as this node sees them, itself first."""
        ...

    def resync(self, sessions: list[bytes] | None) -> None:
        """Compare with all peers now, or fetch just some sessions."""
        ...

    def num_queued(self) -> int:
        """Return how many questions to peers are open."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


def check_acks(acks: object) -> None:
    """Refuse what cannot say how many members must hold a commit.

    Raises:
        InputError: says what can.
    """
    if not (type(acks) is int and acks >= 1) and acks not in ("majority", "all"):
        raise InputError(f"acks is a number from 1, 'majority' or 'all', not {acks!r}")
