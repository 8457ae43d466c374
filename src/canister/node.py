"""One node: puts settings, store and agent together, and decides when a read must ask the peers."""

import asyncio
import atexit
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from canister.agent import control
from canister.agent.control import AgentClient, AgentStatus, Heals, MemberState
from canister.agent.presence import AgentPresence
from canister.agent.thread import AgentThread
from canister.agent.wake import Waker
from canister.clock import SECOND, Clock
from canister.config import Config, Policy
from canister.engine import Changes, Loaded, check_acks
from canister.errors import AcknowledgementError, AgentError, CannotTellError, StoreError
from canister.freshness import Fetched, Seen, missing
from canister.life import NEVER
from canister.record import Record, Version, stamp_of
from canister.replication.acks import needed_of
from canister.store.base import Edit, Fingerprints, Known, Needed, Peers
from canister.store.sqlite import SqliteStore

_SWEEP_BATCH = 200
_MOST_RINGS = 16
"""Key rings of one process that the peers are told of."""
_RESYNC_PART = 64
"""Sessions that the agent is asked to fetch at once: requests' own look-ups need room beside them."""
_TAKEN_AT_ONCE = 512 * 1024
"""Bytes of values after which what is taken in is a transaction, and a message to the peers, of its own."""

_HELD_BACK = (
    "part of the session is held back until its time comes: a member's clock is ahead, or that of this node "
    "is behind; set them right, or read without after="
)
_PATIENCE = 2.0
"""Seconds for which a request waits for the agent on top of `remote_timeout`: it may hang."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Node:
    """A data directory with its agent; the processes that share the directory are one node.

    The `canister.engine.Engine` of data directories; what its verbs do is said there.

    Args:
        path: the data directory.
        config: the node's settings.
        clock: where the time comes from.
        may_run_agent: whether this process stands as a candidate for running the agent.
    """

    waits = False

    def __init__(self, path: Path, config: Config, clock: Clock, *, may_run_agent: bool) -> None:
        self.config = config
        self.policy = Policy.of(config)
        self.clock = clock
        self.store = SqliteStore(path, config, clock)
        self._client = AgentClient(self.store.files.control_socket)
        self._presence = AgentPresence(self.store.files.agent_lock, config.node_interval.total_seconds())
        self._waker: Waker | None = None
        self._fingerprints: Fingerprints = []
        self._caught_up: Peers | None = None
        """What was known of the peers when this node had all that they have, before the next look begins."""
        self.closing = threading.Event()
        self._agent = AgentThread(self.store, config, clock) if may_run_agent else None
        try:
            self._waker = Waker(self.store.files.wake_socket, self.store.files.wake_flag)
            if self._agent is not None:
                self._agent.start()
        except OSError as error:  # no descriptor is left
            self._release()
            raise StoreError(
                f"the data directory {self.store.files.path} cannot be used: {error.strerror}"
            ) from error
        except BaseException:
            self._release()
            raise
        atexit.register(self.close)

    @property
    def is_clustered(self) -> bool:
        """Tell whether the node has, or may have, peers; a tool need not know what it listens on."""
        return self.config.listen is not None or self.store.peers().exist

    @property
    def key_directory(self) -> Path:
        """The data directory: a secret key in it is for the processes that share it."""
        return self.store.files.path

    def announce_keys(self, ring: list[str]) -> None:
        """Let the agent tell the peers which secret keys a session manager of this process has.

        What the process says that speaks last holds for the node: its processes run one application.

        Args:
            ring: the keys' fingerprints, the signing one first.
        """
        self._fingerprints = [*(known for known in self._fingerprints if known != ring), ring][-_MOST_RINGS:]
        if self.store.fingerprints() != self._fingerprints:
            self.store.save_fingerprints(self._fingerprints)

    def close(self) -> None:
        """Stop the agent if it runs here, and release the data directory."""
        atexit.unregister(self.close)
        self.closing.set()
        if self._agent is not None:
            self._agent.stop()
        self._release()

    def load(self, session: bytes, *, after: Seen = (), local: bool = False, ask: bool = False) -> Loaded:
        # First what was heard, then the session: what is heard of in between only makes it newer.
        lacking = missing(after, self.store.heard_of) if after and not local else []
        known = self._caught_up
        stored = self.store.load(session)
        if local:
            return Loaded(stored, stored.is_here)
        if after and stored.held:
            raise CannotTellError(_HELD_BACK)
        # What `is_here` asks, without its call.
        is_here = stored.encoded is not None or stored.decoded is not None
        if not lacking and not ask:
            if is_here:
                return Loaded(stored, True)
            peers = self._peers_if_caught_up()
            if peers is not None and not stored.held:
                if peers is not known:
                    # What speaks for its absence may have come after the first look, and the session with it.
                    self._caught_up, stored = peers, self.store.load(session)
                return Loaded(stored, True)
        return self._load_from_all(session, lacking)

    def commit(
        self, edits: Sequence[tuple[bytes, Edit]], acks: Needed = 1, known: Known | None = None
    ) -> Version | None:
        check_acks(acks)
        version = self.store.commit(edits, known)
        if version is not None and self._waker is not None:
            self._waker.wake()
            if acks != 1:
                self.await_acks(version, acks)
        return version

    def await_acks(self, version: Version, acks: Needed) -> None:
        """Wait until as many members as *acks* hold the commit of *version*.

        Raises:
            AcknowledgementError: fewer hold it within ``remote_timeout``; here it stands.
        """
        timeout = self.config.remote_timeout.total_seconds()
        request = control.AwaitAcks(stamp_of(version), acks, timeout)
        try:
            reply = self._client.ask(request, control.AcksReply, timeout, patience=_PATIENCE)
        except AgentError as error:
            # Nobody could be asked who holds it, not even whether it is on this node's disk.
            others = [m for m in self.store.members() if m.node != self.store.node and not m.removed]
            raise AcknowledgementError([], needed_of(acks, 1 + len(others)), version) from error
        if len(reply.members) < reply.needed:
            raise AcknowledgementError(reply.members, reply.needed, version)

    def take(self, batch: Sequence[tuple[bytes, Record]]) -> None:
        """Merge sessions of another engine into what is here; they go to the peers like commits."""
        part: list[tuple[bytes, Record]] = []
        size = 0
        for session, record in batch:
            part.append((session, record))
            size += sum(len(cell.value or b"") for cell in record.cells.values())
            if size > _TAKEN_AT_ONCE:
                self._take(part)
                part, size = [], 0
        self._take(part)

    def last_stamp(self) -> int:
        with self.store.snapshot() as snapshot:
            return snapshot.last_stamp()

    def changes_since(self, stamp: int) -> Changes:
        with self.store.snapshot() as snapshot:
            entries = snapshot.log(stamp)
        upto = entries[-1].stamp if entries else stamp
        # The agent keeps the log for five seconds; a look that comes later may find a gap.
        missed = bool(entries) and self.clock.now() - stamp > 4 * SECOND
        return Changes([change for entry in entries for change in entry.changes], upto, missed)

    def alone(self) -> AbstractContextManager[object]:
        return threading.RLock()

    async def beside(self, act: Callable[[*Ts], T], *args: *Ts) -> T:
        return await asyncio.to_thread(act, *args)

    def forget(self, session: bytes) -> bool:
        if self.is_clustered:
            return self._client.ask(control.Forget(session), bool)
        return self.store.forget(session)

    def sweep(self, *, destroyed: bool) -> int:
        if self.is_clustered:
            return self._client.ask(control.Sweep(destroyed), int, timeout=600.0)
        total = 0
        while dropped := self.store.sweep(NEVER, _SWEEP_BATCH, destroyed=destroyed):
            total += dropped
        return total

    def status(self, at: int) -> AgentStatus:
        """Return what the agent knows, with the digest as of *at*."""
        return self._client.ask(control.AskStatus(at), AgentStatus)

    def members(self) -> list[MemberState]:
        return self.status(self.clock.now()).members

    def resync(self, sessions: list[bytes] | None) -> None:
        for part in [None] if sessions is None else _parts(sessions):
            self._client.ask(
                control.Resync(part), type(None), timeout=self.config.remote_timeout.total_seconds()
            )

    def num_queued(self) -> int:
        return self.status(self.clock.now()).queued

    def heals(self) -> Heals:
        """Return what the latest heals did, and when all members were last found equal."""
        return self._client.ask(control.AskHeals(), Heals)

    def isolate(self, *, on: bool) -> None:
        """Cut the node off from all peers, or let it back."""
        self._client.ask(control.Isolate(on), type(None))

    def remove_member(self, address: str) -> None:
        """Take a member out of the cluster; it may return with empty data only."""
        self._client.ask(control.RemoveMember(address), type(None))

    def _take(self, part: Sequence[tuple[bytes, Record]]) -> None:
        if part:
            self.store.merge(part, {}, tell=True)
            if self._waker is not None:
                self._waker.wake()

    def _peers_if_caught_up(self) -> Peers | None:
        """Return what is known of the peers if all that they have is here, else None."""
        # In this order: an agent that begins tells its doubts first. Without one they are old news.
        is_heard, peers = self._presence.is_there(), self.store.peers()
        return peers if not peers.exist or (is_heard and peers.doubts == 0) else None

    def _load_from_all(self, session: bytes, lacking: Sequence[Version]) -> Loaded:
        """Return a session after the peers were asked, as new as what this node was *lacking* at least."""
        fetched = self._fetch(session)
        stored = self.store.load(session)
        if lacking and stored.held:
            raise CannotTellError(_HELD_BACK)
        if lacking and not fetched.covers(lacking):
            raise CannotTellError(
                "this node is behind what the caller has seen, and no peer that could tell has answered; "
                "try again, or read without after="
            )
        certain = stored.is_here or (fetched.everyone and not stored.held)
        if not certain and self.config.when_behind == "refuse":
            raise CannotTellError("the session may exist on a member that cannot be reached; try again")
        return Loaded(stored, certain, fetched.everyone)

    def _fetch(self, session: bytes) -> Fetched:
        timeout = self.config.remote_timeout.total_seconds()
        if not self._presence.is_there():
            return Fetched([], everyone=False)
        try:
            request = control.FetchSession(session, timeout)
            reply = self._client.ask(request, control.FetchReply, timeout, patience=_PATIENCE)
        except AgentError:
            # Without an agent nobody can be asked: that is an answer of nobody, not an absence.
            return Fetched([], everyone=False)
        return reply.fetched()

    def _release(self) -> None:
        self.store.close()
        if self._waker is not None:  # after the store: who has committed still wakes the agent
            self._waker.close()


def _parts(sessions: list[bytes]) -> list[list[bytes]]:
    return [sessions[n : n + _RESYNC_PART] for n in range(0, len(sessions), _RESYNC_PART)]
