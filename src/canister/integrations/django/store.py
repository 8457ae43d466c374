"""The session store: what Django calls a session, over one of ours.

``session_key`` is the token, a secret; ``handle`` names the session in logs and lists. A key comes with the
write that makes it good, so reading ``session_key`` after `SessionStore.cycle_key` stores the session.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.http import HttpRequest
from django.utils.asyncio import async_unsafe

from canister.errors import CannotTellError, ConfigError, SessionDestroyedError, SessionEndedError
from canister.integrations.django import expiry
from canister.integrations.django.configuration import session_manager
from canister.integrations.unwanted import Unwanted
from canister.sessions import Identity, Session
from canister.sessions.renewal import successor_of


class SessionStore(SessionBase):
    """A session as Django's code expects it: what the base class documents holds.

    Nested values may also be changed in place: a save compares what is there with what is stored.

    Args:
        session_key: the token that the client showed; None for a new session.
    """

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        if self._session_key is None:
            self.adopt(session_manager().load(()))

    # What the session is.

    @property
    def handle(self) -> str | None:
        """The stored session's id, no secret: for logs and lists. None before it is stored."""
        session: Session = self._session
        return session.handle

    @property
    def user(self) -> Any:
        """The id of the user who is logged in; None if nobody is."""
        return self._session.user

    @property
    def identity(self) -> Identity | None:
        """Who is logged in, since when and by what; None if nobody is."""
        session: Session = self._session
        return session.identity

    @property
    def session_key(self) -> str | None:
        """The token that the client is to show; None before there is one."""
        if self.loaded is not None and self.loaded.state.pending.wanted:
            self.save()
        return self._session_key

    @property
    def modified(self) -> bool:
        """Whether there is something to save: a change, or an access that is to be recorded.

        False: what was changed so far is not to be saved by the middleware, unless there are more changes;
        a log-in, a log-out and a new key stand.
        """
        session = self.loaded
        if session is None or self.is_unwanted(session):
            return self._modified
        return self._modified or session_manager().is_due(session)

    @modified.setter
    def modified(self, value: bool) -> None:
        self._modified = value
        self._unwanted = None if value or self.loaded is None else Unwanted(self.loaded)

    def is_unwanted(self, session: Session) -> bool:
        """Tell whether the project wants nothing saved of what *session*, the loaded one, has changed."""
        return self._unwanted is not None and self._unwanted.is_all(session)

    def is_empty(self) -> bool:
        """Return True when there is no key, made or to be made, and the session is empty."""
        wanted = self.loaded is not None and self.loaded.state.pending.wanted
        return not wanted and super().is_empty()

    # Loading.

    @property
    def loaded(self) -> Session | None:
        """The session itself; None before it was used."""
        return self.__dict__.get("_session_cache")

    def adopt(self, session: Session) -> None:
        """Be *session*, which was loaded by the token the client showed."""
        self._session_cache = self._read(session)

    def note_key(self, session: Session) -> None:
        """Have the key of *session*, which was loaded or stored; where it is not known, keep the client's.

        A client that shows a key which was replaced is to get the new one, as the commit has it.
        """
        state = session.state
        if state.token is not None:
            record = state.record if state.replaced and state.varies else None
            follower = successor_of(state.token, session_manager().keys, record) if record else None
            self._session_key = (follower or state.token).text
        elif not session.cannot_tell:
            self._session_key = None

    def load(self) -> Session:
        """Return what is stored under the key, here or where sessions move in from.

        Raises:
            SynchronousOnlyOperation: a member or an old system would have to be waited for in an event loop.
        """
        session, manager = _find(self._session_key), session_manager()
        if self._session_key and manager.may_move_in(session):
            _may_block()
            session = manager.move_in(session, self._shown)
        return self._read(session)

    async def aload(self) -> Session:
        """Return what is stored under the key, here or where sessions move in from."""
        session, manager = await _afind(self._session_key), session_manager()
        if self._session_key and manager.may_move_in(session):
            session = await asyncio.to_thread(manager.move_in, session, self._shown)
        return self._read(session)

    def exists(self, session_key: str) -> bool:
        """Tell whether a key names a stored session.

        Raises:
            CannotTellError: it may name one that only a member has who cannot be reached.
        """
        return _is_stored(_as_named(_find(session_key)))

    async def aexists(self, session_key: str) -> bool:
        """Do what `exists` does."""
        return _is_stored(_as_named(await _afind(session_key)))

    # Storing.

    def save(self, must_create: bool = False) -> None:
        """Store what was changed, in a new session where there is none yet.

        Raises:
            CreateError: *must_create*, and the session is stored already.
            UpdateError: the session was destroyed or has expired since it was loaded.
            CanisterError: as `SessionManager.commit`.
        """
        with self._saving(self._session, must_create) as session:
            _check_waiting(session)
            session_manager().store(session)

    async def asave(self, must_create: bool = False) -> None:
        """Do what `save` does."""
        with self._saving(await self._aget_session(), must_create) as session:
            await session_manager().astore(session)

    def create(self) -> None:
        """Store the session under a new id now, and destroy the old one."""
        self.cycle_key()
        self.save()

    async def acreate(self) -> None:
        """Do what `create` does."""
        await self.acycle_key()
        await self.asave()

    def cycle_key(self) -> None:
        """Go on under a new id, with the data; the old one is destroyed by the same write."""
        self._cycle(self._session)

    async def acycle_key(self) -> None:
        """Do what `cycle_key` does."""
        self._cycle(await self._aget_session())

    def clear(self) -> None:
        """Remove all data and log the user out; the session stays."""
        session: Session = self._session
        wanted = session.state.pending.wanted
        session.clear()
        if wanted:
            session.ensure_stored()  # it has got its key
        self._set_times(session)
        self.modified = True

    def flush(self) -> None:
        """Destroy the session now; what is put into it afterwards goes into a new one."""
        session: Session = self._session
        session.destroy()
        _check_waiting(session)
        session_manager().store(session)
        self._flushed(session)

    async def aflush(self) -> None:
        """Do what `flush` does."""
        session: Session = await self._aget_session()
        session.destroy()
        await session_manager().astore(session)
        self._flushed(session)

    def delete(self, session_key: str | None = None) -> None:
        """Destroy the session of a key, by default of this one's; this object stays as it is."""
        other = _as_named(_find(session_key or self.session_key))
        other.destroy()
        _check_waiting(other)
        session_manager().store(other)

    async def adelete(self, session_key: str | None = None) -> None:
        """Do what `delete` does."""
        other = _as_named(await _afind(session_key or self._session_key))
        other.destroy()
        await session_manager().astore(other)

    # Expiry.

    def set_expiry(self, value: Any) -> None:
        """Set when this session ends: seconds of idleness, an instant, or None for the default.

        0 is the default, with a cookie that ends with the browser.
        """
        super().set_expiry(value)
        self._set_times(self._session)

    async def aset_expiry(self, value: Any) -> None:
        """Do what `set_expiry` does."""
        await super().aset_expiry(value)
        self._set_times(await self._aget_session())

    @classmethod
    def clear_expired(cls) -> None:
        """Free the space of sessions that have expired, as the agent does from time to time."""
        session_manager().canister.clear_untouched_sessions()

    # Log-in, by Django's signal.

    def log_in(self, user: object, *, address: str | None = None, agent: str | None = None) -> None:
        """Go on under a new id that belongs to *user*, with the data; `Session.login` says more.

        Where the session belonged to somebody else, only what Django's log-in has put there is kept.
        """
        session: Session = self._session
        given = {key: session[key] for key in session if str(key).startswith("_auth_user_")}
        is_others = session.user not in (None, user)
        session.login(user, address=address, agent=agent)
        session.update(given)
        if is_others:
            self._note_age(session)
        self._cycled(session)

    # How.

    def _shown(self, _cookie_name: str) -> list[str]:
        """Return what the client showed: Django's middleware has looked for the cookie."""
        return [self._session_key] if self._session_key else []

    def _read(self, session: Session) -> Session:
        self.note_key(session)
        self._note_age(session)
        return session

    def _note_age(self, session: Session) -> None:
        session.state.max_age = expiry.cookie_age(self, session)

    @contextmanager
    def _saving(self, session: Session, must_create: bool) -> Generator[Session]:
        if must_create and session.state.token is not None:
            raise CreateError("the session is stored already")
        before, key = session.state.pending.wanted, self._session_key
        session.ensure_stored()
        try:
            yield session
        except (SessionDestroyedError, SessionEndedError) as error:
            raise UpdateError(str(error)) from error
        finally:
            if session.state.pending.wanted and not before:
                session.state.ask(wanted=False)  # what failed asks for nothing more
            self.note_key(session)
            if self._session_key != key:
                self.modified = True  # the client is to get it, also from Django's middleware

    def _flushed(self, session: Session) -> None:
        self._session_key = None
        self._note_age(session)
        self.modified = True

    def _cycle(self, session: Session) -> None:
        session.regenerate()
        self._cycled(session)

    def _cycled(self, session: Session) -> None:
        session.ensure_stored()
        self.modified = True

    def _set_times(self, session: Session) -> None:
        idle, until = expiry.times(session, session_manager())
        session.set_expiry(idle, until)
        state = session.state
        is_new = state.token is None and state.doubt is None and not state.pending.carry
        if is_new and idle is None and until is None:
            state.ask(times=None)  # it has them anyway: asking for them makes no session
        session.set_cookie_age(expiry.cookie_age(self, session))


def session_of(request: HttpRequest) -> Session:
    """Return the session behind ``request.session``, with what Django has no name for.

    Such are `Session.increment`, `Session.update_key`, `Session.peek` and `Session.unlock`.

    Raises:
        ConfigError: the project's sessions are not ours.
    """
    store = getattr(request, "session", None)
    if not isinstance(store, SessionStore):
        raise ConfigError(
            f"the request's session is {type(store).__name__}: "
            "set SESSION_ENGINE = 'canister.integrations.django', and have a session middleware"
        )
    session: Session = store._session
    return session


def _find(session_key: str | None) -> Session:
    values = [session_key] if session_key else []
    session = session_manager().load_here(values)
    if session is None:
        _may_block()
        session = session_manager().load(values)
    return session


async def _afind(session_key: str | None) -> Session:
    return await session_manager().aload([session_key] if session_key else [])


def _as_named(session: Session) -> Session:
    """Return what was found by a key: whether its client was given another one since is not asked."""
    session.state.outlived = None
    return session


def _is_stored(session: Session) -> bool:
    if session.handle is None and session.cannot_tell:
        raise CannotTellError("the session may exist on a member that cannot be reached; try again")
    return session.handle is not None


def _check_waiting(session: Session) -> None:
    if session_manager().may_wait(session):
        _may_block()


@async_unsafe(
    "The session has to wait for the disk or for another member. In an event loop call the method whose name "
    "begins with 'a', such as asave(), and have canister.integrations.django.SessionMiddleware load it."
)
def _may_block() -> None:
    """Refuse to block an event loop."""
