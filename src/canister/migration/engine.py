"""The engine of a process while its sessions move: reads two engines, writes to the one whose turn it is.

::

    step        reads   writes to   destroys are sent to
    begun       both    the old     both
    switched    both    the new     both
    finished    new     the new     the new

What keeps processes of neighbouring steps together: every reader of both sees the merge of both, whoever
wrote where; before a session is written, the engine that is written to takes in what the other one has; and a
write that turns out to have come too late for its step is carried over before it is acknowledged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from threading import Event
from typing import Protocol, TypeVar, TypeVarTuple

from canister.agent.control import MemberState
from canister.config import Config, Policy
from canister.edits import Moment
from canister.engine import Changes, Engine, Loaded
from canister.errors import AcknowledgementError, ConfigError
from canister.freshness import Seen, missing
from canister.migration.both import BothStores, joined, lacks
from canister.migration.leases import Leases
from canister.migration.marks import Step
from canister.record import SERVERS, Record, Version, origin_of
from canister.store.base import Edit, Known, Needed, Page, Store, Stored

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class MovingStore(Store, Protocol):
    """A store that sessions can be moved from and to."""

    def pages(self, position: bytes = b"") -> Iterator[Page]:
        """Do what `scan` does, page by page; goes on after the page of *position*."""
        ...

    def load_all(self, sessions: Sequence[bytes]) -> Mapping[bytes, Record]:
        """Return those of *sessions* that are there."""
        ...


class Side(Engine, Protocol):
    """An engine that sessions can be moved from and to."""

    @property
    def store(self) -> MovingStore:
        """The store."""
        ...

    def take(self, batch: Sequence[tuple[bytes, Record]]) -> None:
        """Merge sessions of another engine into what is here."""
        ...


class MigratingEngine:
    """A `canister.engine.Engine` over two others.

    Args:
        old: where the sessions come from.
        new: where they go to.
        config: the settings.
        leases: what tells the step.
        to_servers: whether *new* is the one on servers.
    """

    waits = True
    key_directory: Path | None = None

    def __init__(self, old: Side, new: Side, config: Config, leases: Leases, *, to_servers: bool) -> None:
        self.config = config
        self.policy = Policy.of(config)
        self.closing = Event()
        self._old = old
        self._new = new
        self._leases = leases
        self._mesh, self._servers = (old, new) if to_servers else (new, old)
        self.clock = self._servers.clock
        self._watched = self._mesh
        self._both = BothStores(old.store, new.store, self._mesh.store, self.clock, self.commit)

    @property
    def store(self) -> Store:
        """The sessions of both, and of the new one alone once that has everything."""
        return self._new.store if self._leases.step() is Step.FINISHED else self._both

    @property
    def is_clustered(self) -> bool:
        """Whether there are, or may be, peers that know more than this process can read; waits for nobody."""
        # Event loops ask this. By a step that is over it says that there may be peers, which is never wrong.
        return (self._new if self._leases.last is Step.FINISHED else self._mesh).is_clustered

    def announce_keys(self, ring: list[str]) -> None:
        """Let the peers know which secret keys a session manager of this process has."""
        self._mesh.announce_keys(ring)

    def last_stamp(self) -> int:
        """Return the stamp of the last write that `changes_since` can tell from later ones."""
        self._watched = self._present
        return self._watched.last_stamp()

    def changes_since(self, stamp: int) -> Changes:
        """Return what was written to the mesh after *stamp*, and that the servers may have more."""
        present = self._present
        if present is not self._watched:  # the stamp is the other engine's
            self._watched = present
            return Changes([], present.last_stamp(), missed=True)
        changes = present.changes_since(stamp)
        return changes if self._is_over else changes._replace(missed=True)

    def load(self, session: bytes, *, after: Seen = (), local: bool = False, ask: bool = False) -> Loaded:
        """Return a session as both know it; see `canister.engine.Engine.load`."""
        if self._is_over:
            return self._new.load(session, after=after, local=local, ask=ask)
        there = self._servers.store.load(session).record
        meshed = tuple(version for version in after if origin_of(version) != SERVERS)
        near = local or (there is not None and not ask and not missing(meshed, self._mesh.store.heard_of))
        here = self._mesh.load(session, after=meshed, local=near, ask=ask)
        record = joined(there, here.stored.record, self.clock.now())
        certain = record is not None if near else here.certain
        return Loaded(Stored(record, here.stored.held), certain, here.everyone)

    def commit(
        self, edits: Sequence[tuple[bytes, Edit]], acks: Needed = 1, known: Known | None = None
    ) -> Version | None:
        """Run edits in one commit; see `canister.engine.Engine.commit`."""
        step = self._leases.step()
        if step is Step.FINISHED:
            return self._new.commit(edits, acks, known)
        main, side = (self._new, self._old) if step >= Step.SWITCHED else (self._old, self._new)
        hints = self._brought(main, side, edits, {} if known is None else known)
        destroyed: dict[bytes, Record] = {}
        noted = [(session, _noting(session, edit, destroyed)) for session, edit in edits]
        failure: AcknowledgementError | None = None
        try:
            version = main.commit(noted, acks, hints)
        except AcknowledgementError as error:
            failure, version = error, Version(error.version)
        if destroyed:
            side.take(list(destroyed.items()))
        if version is not None and main is self._old and self._leases.step() >= Step.SWITCHED:
            self._follow({session for session, _ in edits})
        if failure is not None:
            raise failure
        return version

    def alone(self) -> AbstractContextManager[object]:
        """Return what lets in one thread at a time."""
        return self._mesh.alone()

    async def beside(self, act: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run what may wait for disk, members or servers; the event loop goes on meanwhile."""
        return await self._mesh.beside(act, *args)

    def forget(self, session: bytes) -> bool:
        """Refuse: what was forgotten would come back from the other engine."""
        if self._is_over:
            return self._new.forget(session)
        raise ConfigError("no copy is dropped while the sessions move; to end a session, call destroy(id)")

    def sweep(self, *, destroyed: bool) -> int:
        """Drop what is past its retention; return how many sessions."""
        return self._present.sweep(destroyed=destroyed)

    def members(self) -> list[MemberState]:
        """Return the members of the mesh; once the sessions have moved, of where they are."""
        return self._present.members()

    def resync(self, sessions: list[bytes] | None) -> None:
        """Compare with all peers now, or fetch just some sessions."""
        self._present.resync(sessions)

    def num_queued(self) -> int:
        """Return how many questions to peers are open."""
        return self._present.num_queued()

    def close(self) -> None:
        """Release both engines."""
        self.closing.set()
        with closing(self._new), closing(self._old):
            self._leases.close()

    @property
    def _is_over(self) -> bool:
        return self._leases.step() is Step.FINISHED

    @property
    def _present(self) -> Side:
        """The engine that tells of peers: the mesh, until all is in the new one."""
        return self._new if self._is_over else self._mesh

    def _brought(
        self, main: Side, side: Side, edits: Sequence[tuple[bytes, Edit]], known: Known
    ) -> dict[bytes, Record | None]:
        """Bring what only the other engine has of the sessions; return what is known of them in *main*."""
        hints: dict[bytes, Record | None] = {}
        now = self.clock.now()
        for session in {session for session, _ in edits}:
            other = joined(None, side.store.load(session).record, now)
            if other is None:
                hints |= {session: known[session]} if session in known else {}
                continue
            own = main.store.load(session).record
            if lacks(own, other):
                main.take([(session, other)])
            else:
                hints[session] = own
        return hints

    def _follow(self, sessions: set[bytes]) -> None:
        """Carry over what was written to the old engine when its turn was already over."""
        now = self.clock.now()
        found = ((session, joined(None, self._old.store.load(session).record, now)) for session in sessions)
        self._new.take([(session, record) for session, record in found if record is not None])


def _noting(session: bytes, edit: Edit, destroyed: dict[bytes, Record]) -> Edit:
    """Return an edit that does what *edit* does and notes what it destroys; the last run counts."""

    def run(record: Record | None, moment: Moment) -> Record | None:
        delta = edit(record, moment)
        destroyed.pop(session, None)
        if delta is not None and delta.destroy is not None:
            destroyed[session] = delta
        return delta

    return run
