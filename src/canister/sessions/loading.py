"""The loading half of a session manager: from what a request shows to its session."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

from canister.engine import Engine
from canister.errors import CanisterError, CannotTellError, OldSystemError, StoreUnavailableError
from canister.life import hard_end
from canister.record import Record
from canister.sessions.choice import Chooser, log_refusals
from canister.sessions.contents import Contents
from canister.sessions.cookie import CookieSettings, values_of
from canister.sessions.events import EventKind
from canister.sessions.glance import Glances
from canister.sessions.identity import identity_of
from canister.sessions.lookup import Found, Lookup, may_need_peers
from canister.sessions.movein import MoveIn, Shown
from canister.sessions.renewal import SecretStatus
from canister.sessions.session import Session
from canister.sessions.state import State
from canister.sessions.token import Refusal

logger = logging.getLogger("canister.sessions")


class SessionLoader(ABC):
    """Loads the sessions of requests.

    Args:
        engine: where the sessions are stored.
        cookie: the cookies' attributes.
        lookup: finds what a token names.
        glances: knows what was found before.
        chooser: decides which session a request gets.
        move_in: asks old systems; None where there are none.

    Attributes:
        session_class: what a request's session is made of; an adapter may put its framework's own here.
    """

    session_class: type[Session] = Session

    def __init__(
        self,
        engine: Engine,
        cookie: CookieSettings,
        lookup: Lookup,
        glances: Glances,
        chooser: Chooser,
        move_in: MoveIn | None,
    ) -> None:
        self.cookie = cookie
        self.seen_cookie = cookie.for_seen()
        self._engine = engine
        self._lookup = lookup
        self._glances = glances
        self._chooser = chooser
        self._move_in = move_in

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
            session = self.load(*self._shown(headers))
            if self.may_move_in(session):
                return self.move_in(session, partial(values_of, headers))
        except (StoreUnavailableError, CannotTellError) as error:
            return self._unknown(error)
        return session

    async def aopen(self, headers: Sequence[str], host: str = "") -> Session:
        """Do what `open` does; the event loop goes on where a peer or an old system must be asked."""
        self.cookie.check_host(host)
        try:
            session = await self.aload(*self._shown(headers))
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
        seen_values = self._to_look_at(seen_values)
        session = None if self._engine.waits else self._at_a_glance(cookie_values, seen_values)
        if session is not None:
            return session
        found = self._lookup.here(cookie_values, seen_values)
        if may_need_peers(found):
            found = self._lookup.anywhere(found)
        return self._session(found, carries_seen=bool(seen_values))

    async def aload(self, cookie_values: Sequence[str], seen_values: Sequence[str] = ()) -> Session:
        """Do what `load` does; the event loop goes on where a peer or a server must be asked."""
        session = self.load_here(cookie_values, seen_values)
        return (
            await self._engine.beside(self.load, cookie_values, seen_values) if session is None else session
        )

    def load_here(self, cookie_values: Sequence[str], seen_values: Sequence[str] = ()) -> Session | None:
        """Do what `load` does, without waiting: None where a peer or a server would have to be asked."""
        if self._engine.waits and cookie_values:
            return None
        seen_values = self._to_look_at(seen_values)
        session = self._at_a_glance(cookie_values, seen_values)
        if session is not None:
            return session
        found = self._lookup.here(cookie_values, seen_values)
        return None if may_need_peers(found) else self._session(found, carries_seen=bool(seen_values))

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
        contents = Contents(record)
        state = State(token, contents)
        self._chooser.lock_idle(state, token, contents)
        state.at, state.max_age = self._engine.clock.now(), self.cookie.max_age
        state.ask(resend=True)
        return self.session_class(state, self)

    def _shown(self, headers: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the values of both cookies."""
        return values_of(headers, self.cookie.name), values_of(headers, self.seen_cookie.name)

    def _to_look_at(self, values: Sequence[str]) -> Sequence[str]:
        """Return the values of the seen cookie to look at: none while the node is alone."""
        return values if values and self._engine.is_clustered else ()

    def _at_a_glance(self, values: Sequence[str], seen_values: Sequence[str]) -> Session | None:
        """Return the session of a client that shows what it showed before; None where a look is needed."""
        found = self._glances.find(values[0], seen_values) if len(values) == 1 else None
        if found is None:
            return None
        contents, glance, now = found
        state = State(glance.token, contents, glance)
        state.at = now
        return self._made(state, carries_seen=bool(seen_values))

    def _session(self, found: list[Found], *, carries_seen: bool) -> Session:
        state = self._chooser.choose(found)
        state.at = self._engine.clock.now()
        if state.token is None or len(found) > 1:
            self._refused(found)
        return self._made(state, carries_seen=carries_seen)

    def _made(self, state: State, *, carries_seen: bool) -> Session:
        state.sight.carried = carries_seen
        state.max_age = self.cookie.max_age
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
        for one in found:
            if isinstance(one.token, Refusal):
                self._tell(EventKind.UNKNOWN_TOKEN, None, None)
            elif one.secret is SecretStatus.RETIRED:
                identity = identity_of(self._engine.store.load(one.token.session).record)
                user = None if identity is None else identity.user
                self._tell(EventKind.RETIRED_TOKEN_USED, one.token.handle, user)

    def life_of(self, record: Record | None) -> tuple[int, int]:
        """Return the absolute lifetime and the end of a session; None: of one that begins now."""
        if record is not None and record.birth is not None:
            return record.birth.absolute, hard_end(record)
        absolute = self._engine.policy.absolute
        return absolute, self._engine.clock.now() + absolute

    @abstractmethod
    def store(self, session: Session) -> None:
        """Store what was changed."""

    @abstractmethod
    async def astore(self, session: Session) -> None:
        """Do what `store` does; the event loop goes on."""

    @abstractmethod
    def _tell(self, kind: EventKind, handle: str | None, user: Any) -> None:
        """Tell whoever subscribed."""
