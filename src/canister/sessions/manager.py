"""The session manager: what every framework adapter does with a request's session.

A request loads its session, the application uses it as a mapping, and one commit, when the response
headers are about to leave, decides by the session's state what is written and which cookie is sent.
A session that was not used is not written and sets no cookie.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypedDict
from weakref import WeakSet

from canister.canister import Canister
from canister.clock import micros, to_datetime
from canister.engine import check_acks
from canister.errors import (
    AcknowledgementError,
    CanisterError,
    CannotTellError,
    ConfigError,
    InputError,
    OldSystemError,
    SessionError,
    StoreUnavailableError,
)
from canister.sessions.choice import Chooser, log_refusals
from canister.sessions.committer import Committer
from canister.sessions.contents import Contents
from canister.sessions.cookie import CookieSettings, values_of
from canister.sessions.events import Event, EventKind, Events, Subscriber
from canister.sessions.keys import find_keys
from canister.sessions.lookup import Found, Lookup, may_need_peers
from canister.sessions.movein import MoveIn, OldSystem, Shown
from canister.sessions.outcome import Outcome
from canister.sessions.renewal import SecretStatus
from canister.sessions.session import Session
from canister.sessions.state import State
from canister.sessions.token import Refusal
from canister.sessions.users import AtCap, Users
from canister.sessions.watch import Lease, Watch
from canister.store.base import Needed

logger = logging.getLogger("canister.sessions")


_managers: WeakSet["SessionManager"] = WeakSet()


def session_managers() -> list["SessionManager"]:
    """Return the session managers of this process."""
    return list(_managers)


class ManagerOptions(TypedDict, total=False):
    """The settings of a `SessionManager`, as the adapters pass them on."""

    secret_keys: str | Sequence[str] | None
    cookie: CookieSettings | None
    when_behind: Literal["serve", "refuse"] | None
    acks: Needed
    max_sessions: int | None
    at_cap: AtCap
    strict: bool | None
    move_in: Sequence[OldSystem]


class SessionManager:
    """Sessions of a web application over a canister. Safe to share between threads.

    Args:
        canister: where the sessions are stored.
        secret_keys: one key or several, the signing one first; ``CANISTER_SECRET_KEYS`` by default,
            or, for a node alone, a file in the data directory.
        cookie: the cookies' attributes.
        when_behind: what a request gets whose session may exist, or be newer, on a member that cannot
            be asked. ``"serve"``: what is here, marked as `Session.is_behind`, or where nothing is,
            an empty one that cannot be written. ``"refuse"``: a session of which every use raises
            `CannotTellError`. As the canister's setting by default.
        acks: how many members must hold what a request writes before it is answered, this one
            included: a number, ``"majority"`` or ``"all"``. Recording an access waits for nobody.
        max_sessions: how many sessions a user may have; None: any number.
        at_cap: what a log-in beyond that does: ``"evict"`` ends the oldest, ``"reject"`` refuses the new one.
        strict: whether a change that was never committed raises rather than being logged; by default
            under pytest and in Python's development mode.
        move_in: systems whose sessions go on here, see `canister.sessions.movein`.

    Attributes:
        users: a user's sessions: list them, end one, end all.
        session_class: what a request's session is made of; an adapter may put its framework's own here.

    Raises:
        ConfigError: a setting cannot work.
    """

    session_class: type[Session] = Session

    def __init__(
        self,
        canister: Canister,
        *,
        secret_keys: str | Sequence[str] | None = None,
        cookie: CookieSettings | None = None,
        when_behind: Literal["serve", "refuse"] | None = None,
        acks: Needed = 1,
        max_sessions: int | None = None,
        at_cap: AtCap = "evict",
        strict: bool | None = None,
        move_in: Sequence[OldSystem] = (),
    ) -> None:
        config, node = canister.config, canister.engine
        self.canister = canister
        self.cookie = cookie or CookieSettings()
        self.seen_cookie = self.cookie.for_seen()
        try:
            check_acks(acks)
        except InputError as error:
            raise ConfigError(str(error)) from error
        if when_behind not in (None, "serve", "refuse"):
            raise ConfigError(f"when_behind is 'serve' or 'refuse', not {when_behind!r}")
        self._acks: Needed = acks
        self._is_durable = config.durability == "full"
        self._strict = _is_test() if strict is None else strict
        self._node = node
        self.keys = find_keys(secret_keys, node.key_directory, clustered=config.listen is not None)
        node.announce_keys(self.keys.fingerprints)
        self.events = Events()
        self.users = Users(node, max_sessions, at_cap, self._ended)
        self._watch = Watch(node, self.users, self.events)
        self._lookup = Lookup(node, self.keys, self.users)
        self._move_in = MoveIn(node, self.keys, self.users, move_in) if move_in else None
        lock = None if config.lock_timeout is None else micros(config.lock_timeout)
        self._chooser = Chooser(node, when_behind or config.when_behind, lock)
        renewal = None if config.renewal_timeout is None else micros(config.renewal_timeout)
        times = (renewal, micros(config.renewal_window or config.session_timeout))
        _managers.add(self)
        self._committer = Committer(node, self.keys, self.cookie, self.users, self._tell, acks, times)

    def open(self, headers: Sequence[str], host: str = "") -> Session:
        """Return the session of a request: by its own cookies, or of a system that moves in.

        Where it cannot be told which session that is, every use of what is returned raises why: a server
        or an old system is away. That logs nobody out.

        Args:
            headers: the Cookie headers.
            host: the Host header; looked at where cookies go over plain http.

        Raises:
            ConfigError: plain http, and the host is not one of a private network.
            StoreError: the database cannot be read.
        """
        self.cookie.check_host(host)
        try:
            session = self.load(self.cookie.values_in(headers), self.seen_cookie.values_in(headers))
            return (
                self.move_in(session, partial(values_of, headers)) if self.may_move_in(session) else session
            )
        except (StoreUnavailableError, CannotTellError) as error:
            return self._unknown(error)

    async def aopen(self, headers: Sequence[str], host: str = "") -> Session:
        """Do what `open` does; the event loop goes on where a peer or an old system must be asked."""
        self.cookie.check_host(host)
        values, seen = self.cookie.values_in(headers), self.seen_cookie.values_in(headers)
        try:
            session = await self.aload(values, seen)
            if self.may_move_in(session):
                return await asyncio.to_thread(self.move_in, session, partial(values_of, headers))
        except (StoreUnavailableError, CannotTellError) as error:
            return self._unknown(error)
        return session

    def load(self, cookie_values: Sequence[str], seen_values: Sequence[str] = ()) -> Session:
        """Return the session that the request's cookies name, or a new one.

        Args:
            cookie_values: every value the request holds under the cookie's name.
            seen_values: every value it holds under the second cookie's name.

        Raises:
            StoreError: the database cannot be read.
        """
        stamps = self._stamps(seen_values)
        found = self._lookup.here(cookie_values, stamps)
        if may_need_peers(found):
            found = self._lookup.anywhere(found)
        return self._session(found, carries_stamp=bool(stamps))

    async def aload(self, cookie_values: Sequence[str], seen_values: Sequence[str] = ()) -> Session:
        """Do what `load` does; the event loop goes on where a peer or a server must be asked."""
        session = self.load_here(cookie_values, seen_values)
        return await self._node.beside(self.load, cookie_values, seen_values) if session is None else session

    def load_here(self, cookie_values: Sequence[str], seen_values: Sequence[str] = ()) -> Session | None:
        """Do what `load` does, without waiting: None where a peer or a server would have to be asked."""
        if self._node.waits and cookie_values:
            return None
        stamps = self._stamps(seen_values)
        found = self._lookup.here(cookie_values, stamps)
        return None if may_need_peers(found) else self._session(found, carries_stamp=bool(stamps))

    def may_move_in(self, session: Session) -> bool:
        """Tell whether old systems have to be asked: what was loaded is no session, nor may be one."""
        if self._move_in is None:
            return False
        return session.state.token is None and session.state.doubt is None

    def move_in(self, session: Session, shown: Shown) -> Session:
        """Return the session of an old system that goes on here; where there is none, *session*.

        Every use of what is returned raises `OldSystemError` where an old system cannot be asked.

        Args:
            session: what was loaded.
            shown: what the request shows.

        Raises:
            StoreError: the database cannot be read or written.
        """
        if self._move_in is None or not self.may_move_in(session):
            return session
        try:
            entered = self._move_in.enter(shown)
        except OldSystemError as error:
            return self._unknown(error)
        if entered is None:
            return session
        token, record = entered
        state = State(token, Contents(record))
        state.max_age = self.cookie.max_age
        state.ask(resend=True)
        return self.session_class(state, self)

    def store(self, session: Session) -> None:
        """Store what was changed; the client is told at `commit`. What `Session.commit` calls.

        Raises:
            SessionError: a cookie would have to be sent, and the response headers have left.
            CanisterError: as for `commit`.
        """
        self._committer.store(session)

    async def astore(self, session: Session) -> None:
        """Do what `store` does; the event loop goes on while disk or members are waited for."""
        if self.may_wait(session):
            await self._node.beside(self.store, session)
        else:
            self.store(session)  # some 50 us; a hop to a thread costs more

    def commit(self, session: Session) -> Outcome:
        """Store what the request changed; return what to tell the client.

        To be called when the response headers leave: what it returns has to go with them.

        Raises:
            AcknowledgementError: fewer members than *acks* hold it; it stands, and
                ``session.state.outcome`` is what to tell the client.
            CannotTellError: something was written to a session of which this node cannot tell whether
                it exists, or a session was to go on under a new id while there may be newer state.
            SessionDestroyedError: something was written, and another request destroyed the session.
            SessionEndedError: something was written, and the session expired meanwhile.
            TooManySessionsError: a log-in beyond the user's number of sessions; none was made.
            InputError: a key or a value cannot be stored.
            StoreError: the database cannot be written.
        """
        session.state.outcome = None  # what comes of it reaches the client
        try:
            self._committer.store(session)
        except AcknowledgementError:
            self._committer.deliver(session)
            raise
        except CanisterError:
            session.state.failed = True
            raise
        return self._committer.deliver(session)

    async def acommit(self, session: Session) -> Outcome:
        """Do what `commit` does; the event loop goes on while disk or members are waited for."""
        if self.may_wait(session):
            return await self._node.beside(self.commit, session)
        return self.commit(session)

    def is_due(self, session: Session) -> bool:
        """Tell whether a commit now would write a change, an access or a renewal, or send the cookie."""
        return self._committer.is_due(session)

    def discard(self, session: Session) -> Outcome:
        """Store nothing more of what the request changed; return what to tell the client.

        That is what the application itself has stored before. For requests that failed.
        """
        session.state.failed = True
        return self._committer.deliver(session)

    def destroy(self, session: Session) -> Outcome:
        """Destroy the session now; return what to tell the client."""
        session.destroy()
        return self.commit(session)

    async def adestroy(self, session: Session) -> Outcome:
        """Do what `destroy` does; the event loop goes on while the disk is waited for."""
        session.destroy()
        return await self.acommit(session)

    def finish(self, session: Session, *where: str) -> None:
        """Say so if the session was changed after its last commit; call it when the request is over.

        Args:
            session: the request's session.
            where: what names the request in the log.

        Raises:
            SessionError: it was, and the manager is strict; otherwise it is logged.
        """
        state = session.state
        try:
            lost = not state.failed and (state.pending.retired is not None or session.changes().any)
        except InputError:
            lost = True
        if not lost:
            return
        request = " ".join(where)
        what = (
            f"what {request} changed in session {session.handle} after the response headers had left is lost"
        )
        if self._strict:
            raise SessionError(f"{what}; call session.commit() (or await session.acommit()) there")
        logger.error("%s", what)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call *subscriber* with each `Event`; return what ends that.

        What this process does is told as it happens; the ends of sessions that others caused, within a
        second or so, at least once.
        """
        self._watch.start()
        return self.events.subscribe(subscriber)

    def hold(
        self, session: Session, on_end: Callable[[], object], *, keep_alive: bool = False
    ) -> Lease | None:
        """Return a lease for a stream of a stored session, None where the session is not stored.

        Args:
            session: the session.
            on_end: called once, in another thread, within a second of the session's end on any node.
            keep_alive: whether the stream counts as an access for as long as it lasts.
        """
        token = session.state.token
        return None if token is None else self._watch.hold(token.session, on_end, keep_alive=keep_alive)

    def may_wait(self, session: Session) -> bool:
        """Tell whether a commit may have to wait for disk, members or servers."""
        return self._is_durable or (session.state.seen and (self._acks != 1 or self._node.waits))

    def _stamps(self, values: Sequence[str]) -> Sequence[str]:
        """Return the stamps to look at: none while the node is alone."""
        return values if values and self._node.is_clustered else ()

    def _session(self, found: list[Found], *, carries_stamp: bool) -> Session:
        state = self._chooser.choose(found)
        state.carries_stamp = carries_stamp
        state.max_age = self.cookie.max_age
        if state.token is None or len(found) > 1:
            self._refused(found)
        return self.session_class(state, self)

    def _unknown(self, error: CanisterError) -> Session:
        """Return the session of a request of which it cannot be told which one it is."""
        logger.warning("the session of a request cannot be told: %s", error)
        state = State()
        state.refusal = error
        return self.session_class(state, self)

    def _refused(self, found: list[Found]) -> None:
        """Log the cookies that name no session, and tell of them."""
        log_refusals(found)
        for one in found if self.events else ():
            if isinstance(one.token, Refusal):
                self._tell(EventKind.UNKNOWN_TOKEN, None, None)
            elif one.secret is SecretStatus.RETIRED:
                self._tell(EventKind.RETIRED_TOKEN_USED, one.token.handle, None)

    def _ended(self, handle: str, user: Any) -> None:
        logger.info("session %s was %s", handle, EventKind.DESTROYED)
        self._tell(EventKind.DESTROYED, handle, user)

    def _tell(self, kind: EventKind, handle: str | None, user: Any) -> None:
        if kind is EventKind.DESTROYED and handle is not None:
            self._watch.acted(handle)
        if self.events:
            self.events.tell(Event(kind, to_datetime(self._node.clock.now()), handle, user))


def _is_test() -> bool:
    """Tell whether a lost change should fail loudly: under pytest, and in Python's development mode."""
    return "PYTEST_CURRENT_TEST" in os.environ or sys.flags.dev_mode
