"""Seeing what other requests, processes and nodes do to sessions: leases of streams, and events.

One thread of a process reads what was written to the store since it last looked, or hears what ends on the
servers. It starts with the first lease or subscriber, and ends with the node.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from canister.clock import SECOND, to_datetime
from canister.codec import decode_id, is_encoded_id, is_session_id, is_user_record_id, user_in, user_record_id
from canister.engine import Changes, Engine
from canister.errors import CanisterError
from canister.forks import is_only_forked, notice_fork, watch_forks
from canister.life import accessed, deadline, interval_of, is_live, is_touch_due
from canister.record import Record, user_of
from canister.sessions.changes import Access, touch
from canister.sessions.events import Event, EventKind, Events
from canister.sessions.identity import identity_of
from canister.sessions.users import Users
from canister.store.base import Change

logger = logging.getLogger("canister.sessions")

_PAUSE = 0.25
"""Seconds between two looks."""
_LONGEST = 30 * SECOND
"""Microseconds after which a session is looked at whatever is told of it."""
_REMEMBERED = 60.0
"""Seconds for which it is remembered that the end of a session was told."""


class Lease:
    """A stream's hold on a session: says when the session is over. Made by `Watch.hold`.

    Attributes:
        over: whether the session was found to be over.
        next: when it has to be looked at, whatever is told of it.
        user: where the store keeps what is true of all its user's sessions.
    """

    def __init__(
        self, watch: "Watch", session: bytes, on_end: Callable[[], object], keep_alive: bool
    ) -> None:
        self._watch = watch
        self.session = session
        self.on_end = on_end
        self.keep_alive = keep_alive
        self.over = False
        self.next = 0
        self.user: bytes | None = None

    def is_touched_by(self, changed: set[bytes]) -> bool:
        """Tell whether a change may have ended the session: its own, or that of its user's record."""
        return self.session in changed or (self.user is not None and self.user in changed)

    def close(self) -> None:
        """Give the hold up."""
        self._watch.release(self)


class Watch:
    """The thread, and the leases it looks after.

    Args:
        engine: whose changes to watch.
        users: who was logged out everywhere.
        events: whom to tell what others did.
        lock: after how many microseconds without an access a session is locked; None: never.
    """

    def __init__(self, engine: Engine, users: Users, events: Events, lock: int | None = None) -> None:
        self._engine = engine
        self._users = users
        self._events = events
        self._access = Access(lock=lock)
        self._thread = threading.Thread()
        self._begin()
        watch_forks(self)

    def start(self) -> None:
        """Start the thread, if it does not run. In uWSGI's master it does not: its workers have their own."""
        if is_only_forked():
            return
        notice_fork()
        with self._lock:
            if not self._thread.is_alive() and not self._engine.closing.is_set():
                self._stamp = self._engine.last_stamp()
                self._thread = threading.Thread(target=self._run, name="canister-watch", daemon=True)
                self._thread.start()

    def hold(self, session: bytes, on_end: Callable[[], object], *, keep_alive: bool = False) -> Lease:
        """Return a lease of a session.

        Args:
            session: the encoded id.
            on_end: called once, in the watching thread, within a second of the session's end.
            keep_alive: whether the stream counts as an access for as long as it lasts.
        """
        notice_fork()
        lease = Lease(self, session, on_end, keep_alive)
        with self._lock:
            self._leases.setdefault(session, set()).add(lease)
        self.start()
        return lease

    def release(self, lease: Lease) -> None:
        """Forget a lease."""
        with self._lock:
            held = self._leases.get(lease.session, set())
            held.discard(lease)
            if not held:
                self._leases.pop(lease.session, None)

    def acted(self, handle: str) -> None:
        """Note that this process has told of a session's end."""
        if self._events:
            with self._lock:
                self._told[handle] = time.monotonic()

    def look(self) -> None:
        """Look once.

        What cannot be looked at now is looked at the next time, after all that is due by then.

        Raises:
            StoreError: something could not be looked at.
        """
        try:
            self._take(self._engine.changes_since(self._stamp))
            self._tell_all()
            self._forget()
        finally:  # what is due has to be looked at also while nothing is told
            self._check_all()

    def _take(self, changes: Changes) -> None:
        """Note what changes make due."""
        self._stamp = changes.upto
        if self._events:
            self._untold.extend(changes.sessions)
        changed = {change.session for change in changes.sessions}
        for lease in self._held() if changed or changes.missed else ():
            if changes.missed or lease.is_touched_by(changed):
                lease.next = 0

    def _held(self) -> list[Lease]:
        with self._lock:
            return [lease for held in self._leases.values() for lease in held]

    def _tell_all(self) -> None:
        while self._untold:
            change = self._untold.popleft()
            try:
                self._tell(change)
            except CanisterError:
                self._untold.append(change)
                raise

    def _forget(self) -> None:
        """Forget what was told long ago."""
        with self._lock:
            while self._told:
                handle, told = next(iter(self._told.items()))
                if time.monotonic() - told < _REMEMBERED:
                    break
                del self._told[handle]

    def _check_all(self) -> None:
        now = self._engine.clock.now()
        for lease in sorted(self._held(), key=lambda lease: lease.next):
            if lease.next > now:
                break
            try:
                self._check(lease, now)
            except CanisterError:
                lease.next = now
                raise

    def before_fork(self) -> None:
        """Nothing to do: the parent's thread goes on."""

    def after_fork(self, *, child: bool) -> None:
        """Begin anew in the child, where the thread is not; its streams are the parent's."""
        if child:
            self._begin()
            if self._events:
                self.start()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread = threading.Thread()
        self._leases: dict[bytes, set[Lease]] = {}
        self._told: dict[str, float] = {}
        self._untold: deque[Change] = deque()
        self._stamp = 0

    def _run(self) -> None:
        complained = ""
        while not self._engine.closing.wait(_PAUSE):
            try:
                self.look()
                complained = ""
            except Exception as error:  # without the thread no stream would end, and nothing be told any more
                if not self._engine.closing.is_set() and str(error) != complained:
                    complained = str(error)
                    trace = not isinstance(error, CanisterError)
                    logger.warning(
                        "what happens to sessions cannot be seen, trying again: %s", error, exc_info=trace
                    )

    def _check(self, lease: Lease, now: int) -> None:
        record = self._engine.store.load(lease.session).record
        if record is None or not is_live(record, now) or self._users.has_revoked(record):
            lease.over = True
            self.release(lease)
            self._end(lease)
            return
        used = accessed(record)
        if lease.keep_alive and is_touch_due(record, now):
            self._engine.commit([(lease.session, touch(self._access))])
            used = now
        user = user_of(record)
        lease.user = None if user is None else user_record_id(user)
        lease.next = min(now + _LONGEST, deadline(record))
        if lease.keep_alive:
            lease.next = min(lease.next, used + max(1, interval_of(record)))

    def _end(self, lease: Lease) -> None:
        try:
            lease.on_end()
        except Exception:
            logger.exception("what was to be done at the end of a session has failed")

    def _tell(self, change: Change) -> None:
        session = change.session
        if is_user_record_id(session):
            for own, record in self._engine.store.of_user(user_in(session)):
                self._tell_end(own, record)
        elif not (is_session_id(session) and is_encoded_id(session)):
            return
        elif change.expired:
            self._tell_of(EventKind.EXPIRED, session, None)
        elif change.after is not None:
            self._tell_end(session, self._engine.store.load(session).record)

    def _tell_end(self, session: bytes, record: Record | None) -> None:
        """Tell of a session that was destroyed, or ended with all of its user's, unless that was told."""
        if record is None or str(decode_id(session)) in self._told:
            return
        live = is_live(record, self._engine.clock.now())
        if record.destroy is not None or (live and self._users.has_revoked(record)):
            self.acted(str(decode_id(session)))  # another change may show the same end
            self._tell_of(EventKind.DESTROYED, session, record)

    def _tell_of(self, kind: EventKind, session: bytes, record: Record | None) -> None:
        identity = identity_of(record)
        user = None if identity is None else identity.user
        at, handle = to_datetime(self._engine.clock.now()), str(decode_id(session))
        self._events.tell(Event(kind, at, handle, user, here=False))
