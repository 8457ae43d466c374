"""The store on Redis: a commit begins with what was loaded, and is tried again where that is old."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from canister.clock import Clock, next_stamp
from canister.config import Config
from canister.edits import Moment
from canister.errors import AcknowledgementError, CanisterError, ConfigError, StoreBusyError, StoreError
from canister.forks import notice_fork, watch_forks
from canister.life import NEVER, retention
from canister.record import (
    EMPTY,
    NodeId,
    Record,
    Version,
    encode_record,
    make_version,
    merge,
    new_server_node_id,
    newest,
    stamp_of,
    user_of,
    versions,
)
from canister.sizes import check_size
from canister.store.base import NO_PEERS, Edit, Known, Needed, Page, Peers, Stored
from canister.store.redis.asking import run, run_each, run_on, servers_of, spread_of
from canister.store.redis.clock import ServerClock
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import (
    Command,
    Layout,
    Versioned,
    Write,
    as_it_is,
    is_written,
    read_hash,
    read_present,
    read_time,
    versioned,
)
from canister.store.redis.links import ROLE
from canister.store.redis.listening import Listener
from canister.store.redis.servers import Server, open_servers
from canister.store.redis.url import Topology, parse_url, show
from canister.store.redis.users import UserLists
from canister.store.redis.walking import info, walk
from canister.store.redis.wire import Replies

_PAGE = 100
"""How many sessions are asked for at once; they are in memory together."""

_WAIT_SHARE = 0.8
"""The part of the time left for which a server waits for its replicas; the rest is for its answer."""


class _Draft(NamedTuple):
    """What a commit is going to write."""

    version: Version
    writes: list[Write]


class RedisStore:
    """A `Store` on Redis or Valkey servers. Safe to share between threads and forks.

    Every process is a node of its own, by an id that lives as long as the process.

    Args:
        url: the servers; see `canister.store.redis.url`.
        config: the settings; ``remote_timeout`` is the one limit to everything a call does.
        clock: where the time comes from; the servers by default.

    Raises:
        ConfigError: the URL cannot be used, or the servers may drop sessions.
        StoreError: the servers cannot be reached.
    """

    def __init__(self, url: str, config: Config, clock: Clock | None = None) -> None:
        self._url = parse_url(url)
        self.clock: Clock = clock or ServerClock()
        self._layout = Layout(config.cluster)
        self._patience = config.remote_timeout.total_seconds()
        self._max_session = config.max_session
        self._node = new_server_node_id()
        self._last = 0
        self._lock = threading.Lock()
        self._closed = False
        self._servers = open_servers(self._url)
        self._lists = UserLists(self._servers, self._layout, self._fetch_all, self._patience)
        self.listener = Listener(self._servers, self._layout, self._patience)
        try:
            self._check_servers()
        except BaseException:
            self.close()
            raise
        watch_forks(self)

    def __str__(self) -> str:
        """Return where the sessions are, without user and password."""
        return f"Redis at {self._url}"

    @property
    def node(self) -> NodeId:
        return self._node

    def load(self, session: bytes) -> Stored:
        return Stored(self._fetch(session, self._deadline()).record, held=False)

    def commit(
        self, edits: Sequence[tuple[bytes, Edit]], known: Known | None = None, acks: Needed = 1
    ) -> Version | None:
        """Run the edits and write what they return; see `canister.store.base.Store.commit`.

        Sessions on different masters of a cluster are written one after the other, those that are
        destroyed last. *acks* is how many servers must hold the write, the master included.

        Raises:
            AcknowledgementError: fewer hold it within ``remote_timeout``; it stands on the master.
            StoreBusyError: others kept writing to the session for as long as that.
            StoreUnavailableError: no server answered for as long as that.
        """
        return self._run(edits, {} if known is None else known, acks, self._max_session)

    def scan(self) -> Iterator[tuple[bytes, Record]]:
        """Yield every session.

        One may come twice while a server's table grows or shrinks; all do if a server is another one.
        """
        return (found for page in self.pages() for found in page.sessions)

    def pages(self, position: bytes = b"") -> Iterator[Page]:
        """Do what `scan` does, page by page; goes on after the page of *position*."""
        self._check_open()
        for at, share, keys, anew in walk(self._servers, self._layout.pattern, self._patience, position):
            page = self._fetch_all([self._layout.session(key) for key in keys], self._deadline())
            found = [(session, there.record) for session, there in page if there.record is not None]
            yield Page(at, share, found, anew)

    def load_all(self, sessions: Iterable[bytes]) -> dict[bytes, Record]:
        """Return those of *sessions* that are there, in one round trip a page to each master."""
        self._check_open()
        found = self._fetch_all(list(sessions), self._deadline())
        return {session: there.record for session, there in found if there.record is not None}

    def take(self, batch: Sequence[tuple[bytes, Record]]) -> None:
        """Merge sessions of another engine into what is here, whatever their size."""
        with self._lock:
            # What this process writes from now on, these sessions' revisions first, is newer.
            self._last = max([self._last, *(newest(record) for _, record in batch)])

        def taking(incoming: Record) -> Edit:
            return lambda record, _: None if merge(record or EMPTY, incoming) == record else incoming

        for session, record in batch:  # not in one commit: others write to one or the other all the time
            self._run([(session, taking(record))], {session: None}, 1, NEVER)

    def of_user(self, user: bytes) -> list[tuple[bytes, Record]]:
        self._check_open()
        return self._lists.of(user, self.clock.now())

    def heard_of(self, node: NodeId) -> int:
        self._check_open()
        return NEVER  # all processes read what all have written

    def peers(self) -> Peers:
        self._check_open()
        return NO_PEERS

    def close(self) -> None:
        self._closed = True
        self.listener.close()
        self._servers.close()

    def servers(self) -> list[Server]:
        """Return the servers that are known, masters first."""
        self._check_open()
        return servers_of(self._servers, self._deadline())

    def before_fork(self) -> None:
        """Nothing to do: what a thread is in the middle of stays with the parent."""

    def after_fork(self, *, child: bool) -> None:
        """Make the child a node of its own: two processes must not draw the same version."""
        if child:
            self._lock = threading.Lock()
            self._node = new_server_node_id()

    def _run(
        self, edits: Sequence[tuple[bytes, Edit]], hints: Known, acks: Needed, most: int
    ) -> Version | None:
        """Run the edits; no session may become larger than *most* bytes."""
        self._check_open()
        deadline = self._deadline()
        there: dict[bytes, Versioned] = {s: versioned(hints[s]) for s, _ in edits if s in hints}
        hinted = set(there)
        missing: AcknowledgementError | None = None
        while True:
            for session in {session for session, _ in edits} - there.keys():
                there[session] = self._fetch(session, deadline)
            try:
                draft = self._draft(edits, there, most)
            except CanisterError:
                if not hinted:
                    raise
                # It may refuse only because of what has changed since it was loaded.
                there = {s: h for s, h in there.items() if s not in hinted}
                hinted.clear()
                continue
            if draft is None:
                return None
            missing = self._list_users(draft, acks, deadline) or missing
            present = self._apply(draft, acks, deadline)
            if not present:
                if missing is not None:
                    raise missing
                return draft.version
            if deadline.is_first_retry:
                there |= present
                hinted -= present.keys()
            else:  # after a pause what is there now is old, the older the longer it was
                there.clear()
                hinted.clear()
            if not deadline.pause():
                raise StoreBusyError("others kept writing to the session first; try again")

    def _fetch(self, session: bytes, deadline: Deadline) -> Versioned:
        self._check_open()
        commands: list[Command] = [self._layout.load(session)]
        if isinstance(self.clock, ServerClock) and self.clock.is_due:
            commands.append((b"TIME",))
        hash_, *time = run(self._servers, self._layout.key(session), commands, deadline)
        self._set_clock(time)
        return read_hash(hash_)

    def _fetch_all(self, sessions: Sequence[bytes], deadline: Deadline) -> Iterator[tuple[bytes, Versioned]]:
        """Yield sessions, a page of them in one round trip to each server that has some."""
        for start in range(0, len(sessions), _PAGE):
            page = [self._layout.key(session) for session in sessions[start : start + _PAGE]]
            replies = run_each(self._servers, page, self._layout.load_key, deadline)
            for session, reply in zip(sessions[start:], replies, strict=False):
                yield session, self._fetch(session, deadline) if reply is None else read_hash(reply)

    def _draft(
        self, edits: Sequence[tuple[bytes, Edit]], there: dict[bytes, Versioned], most: int
    ) -> _Draft | None:
        """Run the edits on what there is; None if they write nothing."""
        floor = max((stamp_of(Version(h.revision)) for h in there.values() if h.revision), default=0)
        with self._lock:  # edits take microseconds
            now = self.clock.now()
            stamp = next_stamp(max(self._last, floor), now)
            moment = Moment(make_version(stamp, self._node), now)
            after: dict[bytes, Record] = {}
            for session, edit in edits:
                record = after.get(session, _shown(there[session].record, now))
                delta = edit(record, moment)
                if delta is not None:
                    after[session] = merge(record or EMPTY, delta)
                    check_size(encode_record(after[session]), record, delta, most)
            if not after:
                return None
            self._last = stamp
        writes = [
            Write(session, there[session], record, moment.version, now) for session, record in after.items()
        ]
        return _Draft(moment.version, writes)

    def _apply(self, draft: _Draft, acks: Needed, deadline: Deadline) -> dict[bytes, Versioned]:
        """Write a draft; return what the sessions are now if one of them had changed, else nothing."""
        missing: AcknowledgementError | None = None
        written: dict[bytes, Versioned] = {}
        for group in self._groups(draft.writes):
            key = self._layout.key(group[0].session)
            needed = self._needed(acks, key, deadline)
            reply, *confirmed = self._write(group, key, needed - 1, deadline)
            while not is_written(reply):
                present = dict(zip((w.session for w in group), read_present(reply), strict=True))
                if not any(_bears(there, draft.version) for there in present.values()):
                    return written | present
                # An attempt whose reply was lost has written, and others since: what is left is to wait for
                # replicas, which needs a write on this connection.
                group = [as_it_is(write, present[write.session]) for write in group]
                reply, *confirmed = self._write(group, key, needed - 1, deadline)
            written |= {write.session: write.written for write in group}
            missing = self._missing(key, needed, confirmed, draft.version, deadline) or missing
        if missing is not None:
            raise missing
        return {}

    def _write(self, writes: Sequence[Write], key: bytes, replicas: int, deadline: Deadline) -> Replies:
        wait = _wait(replicas, deadline)
        if wait:
            # The whole script: if the server did not know it, the time would be waited away for nothing.
            command = self._layout.commit(writes, whole=True)
            return run(self._servers, key, [command, *wait], deadline)
        replies = run(self._servers, key, [self._layout.commit(writes)], deadline)
        if isinstance(replies[0], NoScriptError):
            replies = run(self._servers, key, [self._layout.commit(writes, whole=True)], deadline)
        self._set_clock(replies[0][:1])  # where replicas are waited for, the time has come long ago
        return replies

    def _list_users(self, draft: _Draft, acks: Needed, deadline: Deadline) -> AcknowledgementError | None:
        """List sessions as their users', before they are written: no session is left out.

        Returns:
            What to raise once they are written, if fewer servers than *acks* hold a list.
        """
        missing: AcknowledgementError | None = None
        for write in draft.writes:
            user, before = user_of(write.after), write.before.record
            if user is None or (before is not None and user_of(before) == user):
                continue
            key, needed = self._layout.user(user), 1
            # On one server whoever holds a session holds what was written before it.
            if acks != 1 and not self._servers.together([key, self._layout.key(write.session)]):
                needed = self._needed(acks, key, deadline)
            wait = _wait(needed - 1, deadline.share(2))  # the other half is for the session
            confirmed = self._lists.add(user, write.session, write.now, wait, deadline)
            missing = self._missing(key, needed, confirmed, draft.version, deadline) or missing
        return missing

    def _missing(
        self, key: bytes, needed: int, confirmed: Replies, version: Version, deadline: Deadline
    ) -> AcknowledgementError | None:
        """Return what to raise if fewer replicas have *confirmed* a write to *key* than were waited for."""
        if not confirmed or confirmed[0] >= needed - 1:
            return None
        address = show(self._servers.pool_of(key, deadline).address)
        return AcknowledgementError([address], needed, version, replicas=confirmed[0])

    def _groups(self, writes: list[Write]) -> list[list[Write]]:
        """Return what one script can write at a time. A session that follows another is written first."""
        if self._servers.together([self._layout.key(write.session) for write in writes]):
            return [writes]
        return [[write] for write in sorted(writes, key=lambda write: write.after.destroy is not None)]

    def _needed(self, acks: Needed, key: bytes, deadline: Deadline) -> int:
        """Return how many servers are asked for, the master included."""
        if isinstance(acks, int):
            return acks
        ((_, _, replicas),) = run(self._servers, key, [ROLE], deadline)
        members = 1 + len(replicas)
        return members if acks == "all" else members // 2 + 1

    def _check_servers(self) -> None:
        """Refuse servers that would drop sessions, or that are not what the URL says; set the clock."""
        deadline = self._deadline()
        for pool in spread_of(self._servers, deadline).masters:
            asked: list[Command] = [(b"INFO", b"memory"), (b"INFO", b"cluster"), (b"TIME",)]
            memory, cluster, time, _ = run_on(
                self._servers, pool, [*asked, self._layout.try_to_speak()], deadline
            )
            self._set_clock([time])
            policy = info(memory, "maxmemory_policy")
            if policy != "noeviction" and not self._url.allow_eviction:
                raise ConfigError(
                    f"Redis at {show(pool.address)} has the maxmemory-policy {policy or '(unknown)'}: it may "
                    "drop sessions and tombstones that are in use; set it to noeviction, or add "
                    "?allow_eviction=yes to the URL"
                )
            if info(cluster, "cluster_enabled") == "1" and self._url.topology is not Topology.CLUSTER:
                raise ConfigError(
                    f"Redis at {show(pool.address)} is a node of a cluster; the URL is then redis+cluster://"
                )

    def _set_clock(self, times: Sequence[Any]) -> None:
        if times and isinstance(self.clock, ServerClock):
            self.clock.compare(read_time(times[0]))

    def _deadline(self) -> Deadline:
        return Deadline(self._patience)

    def _check_open(self) -> None:
        notice_fork()
        if self._closed:
            raise StoreError(f"the store on {self} is closed")


def _wait(replicas: int, deadline: Deadline) -> list[Command]:
    """Return what waits for so many replicas, down the connection of what was written."""
    if replicas < 1:
        return []
    return [(b"WAIT", replicas, max(1, int(deadline.left * _WAIT_SHARE * 1000)))]


def _bears(there: Versioned, version: Version) -> bool:
    """Tell whether what a session holds is partly the work of the commit of that version."""
    return there.record is not None and version in versions(there.record)


def _shown(record: Record | None, now: int) -> Record | None:
    """Return what an edit is given. A tombstone past its time is gone, dropped or not."""
    over = record is not None and record.destroy is not None and retention(record) <= now
    return None if over else record
