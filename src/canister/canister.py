"""The verbs of the library over one engine."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from canister import edits
from canister.agent.control import MemberState
from canister.clock import Clock, to_datetime
from canister.codec import decode_id, encode_id, encode_value, is_session_id, key_slot
from canister.config import Policy, load_config
from canister.edits import Moment, Writes
from canister.engine import check_acks
from canister.errors import ConfigError, InputError, StoreError
from canister.freshness import decode_seen, encode_seen, seen_in
from canister.life import Status, accessed, is_live, is_touch_due, status, updated
from canister.node import Node
from canister.opening import open_engine
from canister.record import Record, Version
from canister.sizes import check_value
from canister.store.base import ABSENT, Edit, Needed, Stored
from canister.views import RecordStatus, SessionInfo, data_of, datetime_of, info_of, status_of, value_of

logger = logging.getLogger("canister")

SessionId = str | bytes


class Canister:
    """A distributed session store: every node holds all sessions, any node takes writes.

    With a URL of Redis or Valkey the servers hold them instead. Safe to share between threads; may be
    opened before a fork and used after it.

    Args:
        path_or_url: the data directory of this node; processes that share it are one node. Or a URL:
            ``redis://``, ``rediss://``, ``redis+sentinel://`` or ``redis+cluster://``.
        agent: whether this process may run the node's agent; False for short-lived tools.
        serves: whether this process serves sessions; a tool that does not may also look at an engine whose
            sessions are moving.
        clock: where the time comes from; this machine or the servers by default.
        settings: the fields of `canister.config.Config`.

    Raises:
        ConfigError: a setting is wrong.
        MigrationError: the sessions are moving, or have moved, to another engine.
        StoreError: the data directory or the servers cannot be used.
        ListenError: ``listen`` is taken by another program.
    """

    def __init__(
        self,
        path_or_url: str | Path,
        *,
        agent: bool = True,
        serves: bool = True,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        self.config = load_config(settings)
        self.engine = open_engine(path_or_url, self.config, clock, may_run_agent=agent, serves=serves)
        self._clock = self.engine.clock
        self._policy = self.engine.policy

    @property
    def node(self) -> Node:
        """The node of a data directory, for tools that manage it.

        Raises:
            ConfigError: the sessions are on servers.
        """
        if not isinstance(self.engine, Node):
            raise ConfigError(f"{self.engine.store} is no data directory; this is for nodes that replicate")
        return self.engine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the agent if it runs here, and release the data directory."""
        self.engine.close()

    def put(self, id: SessionId, key: object, value: object, *, acks: Needed = 1) -> Any:
        """Store *value* under *key*; return the previous value or None.

        Creates the session if there is none, and starts an expired one afresh.

        Args:
            id: the session.
            key: a str, bytes, int or tuple of these.
            value: see `canister.codec` for the types.
            acks: how many members must hold it before this returns, this one included: a number,
                ``"majority"`` or ``"all"``.

        Raises:
            AcknowledgementError: fewer members hold it within ``remote_timeout``; it stands here.
            InputError: the id, the key or the value cannot be stored.
            SessionDestroyedError: the session was destroyed.
            SessionEndedError: the session is past its absolute lifetime.
            StoreError: the database cannot be written; nothing was stored, unless it is a
                `StoreUnavailableError`: then that is not known.
        """
        slot = key_slot(key)
        before = self._write(encode_id(id), {slot: self._encode(key, value)}, acks)
        return value_of(before, slot, None)

    def update(self, id: SessionId, mapping: Mapping[Any, object], *, acks: Needed = 1) -> None:
        """Store all items of *mapping* in one transaction, seen whole on every node.

        Raises:
            AcknowledgementError: as for `put`.
            InputError: as for `put`; nothing was stored.
        """
        session = encode_id(id)
        check_acks(acks)
        if mapping:
            self._write(session, {key_slot(k): self._encode(k, v) for k, v in mapping.items()}, acks)

    def remove(self, id: SessionId, key: object, *, acks: Needed = 1) -> Any:
        """Remove one key; return its value, or None if the session or the key is not there.

        Raises:
            AcknowledgementError: as for `put`.
            InputError: the id or the key cannot be stored.
            StoreError: as for `put`.
        """
        session, slot = encode_id(id), key_slot(key)
        before: Record | None = None

        def edit(record: Record | None, moment: Moment) -> Record | None:
            nonlocal before
            before = record if is_live(record, moment.now) else None
            cell = before.cells.get(slot) if before is not None else None
            if cell is None or cell.value is None:
                return None
            return edits.write(record, moment, self._policy, {slot: None})

        self.engine.commit([(session, edit)], acks)
        return value_of(before, slot, None)

    def get(
        self,
        id: SessionId,
        key: object,
        default: Any = None,
        *,
        local: bool = False,
        after: str | None = None,
    ) -> Any:
        """Return the value of *key*, or *default*; counts as an access of the session.

        Args:
            id: the session.
            key: the key.
            default: returned if the session or the key is not there.
            local: never ask a peer, and record no access.
            after: a `version`; the answer is at least as new.

        Raises:
            CannotTellError: nobody who could answer as new as *after* was reached.
        """
        session, slot = encode_id(id), key_slot(key)
        seen = decode_seen(after) if after is not None else ()
        stored = self.engine.load(session, local=local, after=seen).stored
        # The field, where that is all: a property costs a call.
        record = stored.decoded if stored.encoded is None else stored.record
        if record is None:
            return default
        now = self._clock.now()
        if stored.end <= now and not stored.is_live(now):
            return default
        if not local and stored.due <= now and stored.is_touch_due(now):
            self._touch_by_reading(session, record)
        return value_of(record, slot, default)

    def peek(self, id: SessionId, key: object, default: Any = None) -> Any:
        """Return the value of *key*, or *default*, without counting as an access."""
        return value_of(self._live(encode_id(id)).record, key_slot(key), default)

    def get_data(self, id: SessionId, *, local: bool = False, after: str | None = None) -> dict[Any, Any]:
        """Return all keys and values, empty if there is no such session; no access is counted.

        Raises:
            CannotTellError: nobody who could answer as new as *after* was reached.
        """
        return data_of(self._live(encode_id(id), local=local, after=after))

    def session_info(self, id: SessionId) -> SessionInfo | None:
        """Return data and times of a live session, None if there is none."""
        return info_of(self._live(encode_id(id)))

    def set_expiry(
        self,
        id: SessionId,
        idle: timedelta | str | None = None,
        until: datetime | None = None,
        *,
        acks: Needed = 1,
    ) -> bool:
        """Give a live session times of its own; None means the default. False if it is not live.

        Args:
            id: the session.
            idle: idle timeout.
            until: an instant at which the session ends whatever happens.
            acks: as for `put`.

        Raises:
            AcknowledgementError: as for `put`.
            SessionEndedError: *idle* or *until* would pass the session's absolute lifetime.
            InputError: *idle* is not more than zero, or *until* has no time zone.
        """
        times = edits.own_times(idle, until)
        return self._commit(id, lambda r, m: edits.set_expiry(r, m, self._policy, *times), acks) is not None

    def version(self, id: SessionId) -> str | None:
        """Return what to pass as ``after=`` to read at least this state anywhere; None if unknown."""
        record = self.engine.store.load(encode_id(id)).record
        if record is None or status(record, self._clock.now()) is Status.UNKNOWN:
            return None
        return encode_seen(seen_in(record))

    def clear(self, id: SessionId, *, acks: Needed = 1) -> None:
        """Empty the session and hide everything written before, also what has not arrived yet.

        Where there is none an empty one is made, to hide what has not arrived.

        Raises:
            AcknowledgementError: as for `put`.
            SessionDestroyedError: the session was destroyed.
            StoreError: as for `put`.
        """
        self._commit(id, lambda r, m: edits.write(r, m, self._policy, {}, clear=True), acks)

    def destroy(self, id: SessionId, *, acks: Needed = 1) -> None:
        """End the session for good: nothing older, concurrent or newer brings the id back.

        Raises:
            AcknowledgementError: as for `put`; here the session is destroyed.
        """
        self._commit(id, lambda r, m: edits.destroy(r, m, self._policy), acks)

    def forget(self, id: SessionId) -> bool:
        """Drop this node's copy only; the next comparison with the peers brings it back."""
        return self.engine.forget(encode_id(id))

    def touch(self, id: SessionId, when: datetime | None = None, *, local: bool = False) -> bool:
        """Record an access, at most once per touch interval; return whether the session is live.

        Args:
            id: the session.
            when: the time of the access, now by default; an earlier one than recorded changes nothing.
            local: record nothing, only answer.

        Raises:
            InputError: *when* is in the future or has no time zone.
        """
        session, now = encode_id(id), self._clock.now()
        access = now if when is None else edits.aware_instant(when, "when")
        if access > now:
            raise InputError(f"when={when} is in the future")
        record = self._live(session, local=local).record
        if record is not None and not local:
            self._touch_if_due(session, record, access)
        return record is not None

    def last_access_time(self, id: SessionId) -> datetime | None:
        """Return when the session was last accessed, to within a touch interval; None if not live."""
        record = self._live(encode_id(id)).record
        return to_datetime(accessed(record)) if record else None

    def last_update_time(self, id: SessionId) -> datetime | None:
        """Return when a key was last written or removed, or all were cleared; None if never or not live."""
        record = self._live(encode_id(id)).record
        return datetime_of(updated(record)) if record else None

    def deleted_time(self, id: SessionId) -> datetime | None:
        """Return when the session was destroyed; for one of `Status.CLEARED` when that was; else None."""
        return self.record_status(id).deleted

    def record_status(self, id: SessionId) -> RecordStatus:
        """Return what this node holds of an id, asking nobody."""
        return status_of(self.engine.store.load(encode_id(id)).record, self._clock.now())

    def all_sessions(self) -> Iterator[SessionId]:
        """Yield the ids of the sessions on this node that are `Status.LIVE`; the whole list is never held."""
        for session, record in self._sessions():
            if status(record, self._clock.now()) is Status.LIVE:
                yield decode_id(session)

    def num_local_sessions(self) -> int:
        """Return how many live sessions this node holds."""
        now = self._clock.now()
        return sum(status(record, now) is Status.LIVE for _, record in self._sessions())

    def clear_untouched_sessions(self) -> int:
        """Drop the data of expired sessions past their grace period now; return how many."""
        return self.engine.sweep(destroyed=False)

    def delete_deleted_sessions(self) -> int:
        """Drop the tombstones that have nothing left to hide now; return how many."""
        return self.engine.sweep(destroyed=True)

    def members(self) -> list[MemberState]:
        """Return all members with state, address, lag and clock offset; this node comes first."""
        return self.engine.members()

    def resync(self, ids: Iterable[SessionId] | None = None) -> None:
        """Compare with all peers now; with *ids*, fetch just these sessions from all peers.

        Raises:
            AgentError: the node's agent did not answer.
        """
        if isinstance(ids, (str, bytes)):
            raise InputError(f"ids must be several session ids, not {ids!r}; pass [{ids!r}]")
        self.engine.resync(None if ids is None else [encode_id(id) for id in ids])

    def is_resyncing(self) -> bool:
        """Tell whether a comparison with a peer is under way."""
        return self.num_queued() > 0

    def num_queued(self) -> int:
        """Return how many comparisons and sessions are still to be exchanged with peers."""
        return self.engine.num_queued()

    def _encode(self, key: object, value: object) -> bytes:
        return check_value(encode_value(value, key), key, self.config.max_value)

    def _write(self, session: bytes, writes: Writes, acks: Needed = 1) -> Record | None:
        """Write keys; return what was visible before."""
        write = _Write(self._policy, writes)
        self.engine.commit([(session, write)], acks)
        return write.before

    def _commit(self, id: SessionId, edit: Edit, acks: Needed = 1) -> Version | None:
        return self.engine.commit([(encode_id(id), edit)], acks)

    def _live(self, session: bytes, *, local: bool = False, after: str | None = None) -> Stored:
        """Return a session that is live; without a record if there is none."""
        seen = decode_seen(after) if after is not None else ()
        stored = self.engine.load(session, local=local, after=seen).stored
        now = self._clock.now()
        return stored if stored.end > now or stored.is_live(now) else ABSENT

    def _touch_if_due(self, session: bytes, record: Record, when: int | None = None) -> None:
        access = self._clock.now() if when is None else when
        if is_touch_due(record, access):
            touch: tuple[bytes, Edit] = (session, lambda r, m: edits.touch(r, m, min(access, m.now)))
            self.engine.commit([touch], known={session: record})

    def _touch_by_reading(self, session: bytes, record: Record) -> None:
        try:
            self._touch_if_due(session, record)
        except StoreError as error:
            # What was read is right; that the access is not recorded may end the session early.
            logger.warning("an access could not be recorded: %s", error)

    def _sessions(self) -> Iterator[tuple[bytes, Record]]:
        """Yield what the store holds but for the records of users."""
        return (found for found in self.engine.store.scan() if is_session_id(found[0]))


class _Write:
    """An edit that writes keys, and keeps what was visible before."""

    __slots__ = ("_policy", "_writes", "before")

    def __init__(self, policy: Policy, writes: Writes) -> None:
        self._policy = policy
        self._writes = writes
        self.before: Record | None = None

    def __call__(self, record: Record | None, moment: Moment) -> Record:
        delta = edits.write(record, moment, self._policy, self._writes)
        # Nothing is visible of what is born by the commit, or starts afresh with it.
        self.before = record if delta.birth is None and delta.clear is None else None
        return delta
