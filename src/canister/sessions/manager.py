"""The session manager: what every framework adapter does with a request's session.

A request loads its session, the application uses it as a mapping, and one commit, when the response
headers are about to leave, decides by the session's state what is written and which cookie is sent.
A session that was not used is not written and sets no cookie.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypedDict
from weakref import WeakSet

from canister.canister import Canister
from canister.clock import micros, to_datetime
from canister.config import parse_switch
from canister.engine import check_acks
from canister.errors import (
    AcknowledgementError,
    CanisterError,
    ConfigError,
    InputError,
    SessionDestroyedError,
    SessionEndedError,
    SessionError,
)
from canister.sessions.choice import Chooser
from canister.sessions.committer import Committer
from canister.sessions.cookie import CookieSettings
from canister.sessions.events import Event, EventKind, Events, Subscriber
from canister.sessions.glance import Glances
from canister.sessions.keys import find_keys
from canister.sessions.loading import SessionLoader
from canister.sessions.lookup import Lookup
from canister.sessions.movein import MoveIn, OldSystem
from canister.sessions.outcome import Outcome
from canister.sessions.renewal import RenewalTimes
from canister.sessions.session import Session
from canister.sessions.users import AtCap, Users
from canister.sessions.watch import Lease, Watch
from canister.store.base import Needed
from canister.texts import shown

logger = logging.getLogger("canister.sessions")


_READ, _UNREAD = Outcome(None, vary=True), Outcome(None, vary=False)
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


class SessionManager(SessionLoader):
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
        acks: how many members must hold what a request writes, and that sessions were ended, before it is
            answered, this one included: a number, ``"majority"`` or ``"all"``. Recording an access and
            keeping a user to *max_sessions* wait for nobody.
        max_sessions: how many sessions a user may have; None: any number.
        at_cap: what a log-in beyond that does: ``"evict"`` ends the oldest, ``"reject"`` refuses the new one.
        strict: whether a change that was never committed raises rather than being logged; by default
            under pytest and in Python's development mode.
        move_in: systems whose sessions go on here, see `canister.sessions.movein`.

    Attributes:
        users: a user's sessions: list them, end one, end all.

    Raises:
        ConfigError: a setting cannot work.
    """

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
        config, engine = canister.config, canister.engine
        self.canister = canister
        try:
            check_acks(acks)
        except InputError as error:
            raise ConfigError(str(error)) from error
        if when_behind not in (None, "serve", "refuse"):
            raise ConfigError(f"when_behind is 'serve' or 'refuse', not {when_behind!r}")
        self._acks: Needed = acks
        self._is_durable = config.durability == "full"
        self._strict = _is_test() if strict is None else parse_switch(strict, "strict")
        self.keys = find_keys(secret_keys, engine.key_directory, clustered=config.listen is not None)
        engine.announce_keys(self.keys.fingerprints)
        self.events = Events()
        self.users = Users(engine, max_sessions, at_cap, self._ended, acks)
        moving = MoveIn(engine, self.keys, self.users, move_in) if move_in else None
        lock = None if config.lock_timeout is None else micros(config.lock_timeout)
        self._watch = Watch(engine, self.users, self.events, lock)
        chooser = Chooser(engine, when_behind or config.when_behind, lock)
        after = None if config.renewal_timeout is None else micros(config.renewal_timeout)
        renewal = RenewalTimes(after, micros(config.renewal_window or config.session_timeout))
        glances = Glances(engine, after, lock)
        lookup = Lookup(engine, self.keys, self.users, glances)
        super().__init__(engine, cookie or CookieSettings(), lookup, glances, chooser, moving)
        _managers.add(self)
        self._committer = Committer(
            engine, self.keys, self.cookie, self.users, self._tell, acks, renewal, lock
        )

    def store(self, session: Session) -> None:
        """Store what was changed; the client is told at `commit`. What `Session.commit` calls.

        Raises:
            SessionError: a cookie would have to be sent, and the response headers have left.
            CanisterError: as for `commit`.
        """
        with self._alone(session):
            self._store(session)

    async def astore(self, session: Session) -> None:
        """Do what `store` does; the event loop goes on while disk or members are waited for."""
        if self.may_wait(session):
            await self._engine.beside(self.store, session)
        else:
            self.store(session)  # some 50 us; a hop to a thread costs more

    def commit(self, session: Session) -> Outcome:
        """Store what the request changed; return what to tell the client.

        To be called when the response headers leave: what it returns has to go with them.

        Raises:
            AcknowledgementError: fewer members than *acks* hold it; it stands.
            CannotTellError: something was written to a session of which this node cannot tell whether
                it exists, or the client's cookie was replaced so lately that it may have the next one, or a
                session was to go on under a new id while there may be newer state.
            SessionDestroyedError: something was written, and another request destroyed the session.
            SessionEndedError: something was written, and the session expired meanwhile.
            TooManySessionsError: a log-in beyond the user's number of sessions; none was made.
            InputError: a key or a value cannot be stored.
            StoreError: the database cannot be written.

        After an error ``session.state.outcome`` is what to tell the client: what was stored before stands.
        """
        return self._at_rest(session) or self._commit(session)

    async def acommit(self, session: Session) -> Outcome:
        """Do what `commit` does; the event loop goes on while disk or members are waited for."""
        outcome = self._at_rest(session)
        if outcome is None:
            waits = self.may_wait(session)
            outcome = await self._engine.beside(self.commit, session) if waits else self._commit(session)
        return outcome

    def is_due(self, session: Session) -> bool:
        """Tell whether a commit now would write a change, an access or a renewal, or send the cookie."""
        return self._committer.is_due(session)

    def begun(self, session: Session) -> None:
        """Note of a session that was loaded late that the headers have left: no new cookie can follow."""
        session.state.outcome = _UNREAD

    def discard(self, session: Session) -> Outcome:
        """Store nothing more of what the request changed; return what to tell the client.

        That is what the application itself has stored before, or what is left of a commit that failed.
        """
        session.state.failed = True
        return session.state.outcome or self._committer.deliver(session)

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
        if state.failed or session.is_as_stored():
            return
        try:
            lost = state.pending.retired is not None or session.changes().any
        except InputError:
            lost = True
        if not lost:
            return
        request = shown(" ".join(where))
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
            keep_alive: whether the stream counts as an access for as long as it lasts; not where the session
                is locked.
        """
        token, keep_alive = session.state.token, keep_alive and not session.state.locked
        return None if token is None else self._watch.hold(token.session, on_end, keep_alive=keep_alive)

    def may_wait(self, session: Session) -> bool:
        """Tell whether a commit may have to wait for disk, members or servers."""
        state = session.state
        return self._is_durable or ((state.varies or state.read) and (self._acks != 1 or self._engine.waits))

    def _at_rest(self, session: Session) -> Outcome | None:
        """Return what to tell the client of a session with nothing to store; None where it takes a look."""
        state, glance = session.state, session.state.glance
        if glance is None or glance.calm <= self._engine.clock.now() or not session.is_as_stored():
            return None
        if glance.clustered is not self._engine.is_clustered:
            return None  # clients that had no seen cookie get one now
        outcome = state.outcome = _READ if state.varies else _UNREAD
        return outcome

    def _commit(self, session: Session) -> Outcome:
        with self._alone(session):
            state = session.state
            state.outcome = None  # what comes of it reaches the client
            if state.lost is state.pending:
                return self._committer.deliver(session)  # the application was told, and answers by itself
            try:
                self._store(session)
            except CanisterError as error:
                state.failed = state.failed or not isinstance(error, AcknowledgementError)
                self._committer.deliver(session)  # what was stored before stands
                raise
            return self._committer.deliver(session)

    def _store(self, session: Session) -> None:
        try:
            self._committer.store(session)
        except (SessionDestroyedError, SessionEndedError):
            state = session.state
            state.failed, state.lost = True, state.pending
            raise

    def _alone(self, session: Session) -> AbstractContextManager[object]:
        """Return what keeps tasks and threads that share a session from storing it at once.

        Each goes on from what the one before has stored.
        """
        state = session.state
        if state.alone is None:
            vars(state).setdefault("alone", self._engine.alone())
        assert state.alone is not None
        return state.alone

    def _ended(self, handle: str, user: Any) -> None:
        logger.info("session %s was %s", handle, EventKind.DESTROYED)
        self._tell(EventKind.DESTROYED, handle, user)

    def _tell(self, kind: EventKind, handle: str | None, user: Any) -> None:
        if kind is EventKind.DESTROYED and handle is not None:
            self._watch.acted(handle)
        if self.events:
            self.events.tell(Event(kind, to_datetime(self._engine.clock.now()), handle, user))


def _is_test() -> bool:
    """Tell whether a lost change should fail loudly: under pytest, and in Python's development mode."""
    return "PYTEST_CURRENT_TEST" in os.environ or sys.flags.dev_mode
