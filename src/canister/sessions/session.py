"""The session of one request: a dict that knows what became of it."""

from datetime import datetime, timedelta
from typing import Any, Protocol

from canister.clock import to_datetime
from canister.codec import encode_user
from canister.edits import own_times
from canister.errors import CannotTellError, InputError, SessionError
from canister.life import deadline
from canister.record import Record
from canister.sessions import csrf
from canister.sessions.cookie import check_age
from canister.sessions.doubts import too_late
from canister.sessions.identity import Identity, as_given
from canister.sessions.mapping import SessionData
from canister.sessions.state import SessionStatus, State


class Keeper(Protocol):
    """Where a session is stored when the application asks for it."""

    def store(self, session: "Session") -> None:
        """Store what was changed."""
        ...

    async def astore(self, session: "Session") -> None:
        """Do what `store` does; the event loop goes on."""
        ...

    def life_of(self, record: Record | None) -> tuple[int, int]:
        """Return the absolute lifetime and the end of a session; None: of one that begins now."""
        ...


class Session(SessionData):
    """A mapping of the session's keys to their values; the commit stores what differs.

    Nested values may be changed in place: the commit compares encoded bytes.

    Args:
        state: what the session manager found.
        keeper: who stores it.
    """

    __slots__ = ("_keeper",)

    def __init__(self, state: State | None = None, keeper: Keeper | None = None) -> None:
        super().__init__(state)
        self._keeper = keeper

    # What the session is.

    @property
    def handle(self) -> str | None:
        """The stored session's id as text, no secret: for logs and lists. None before it is stored."""
        return self.state.token.handle if self.state.token else None

    @property
    def identity(self) -> Identity | None:
        """Who is logged in, since when and by what; None if nobody is. It counts as an access.

        It can be asked of a locked session, to which it is none.

        Raises:
            CanisterError: as every use of a session that is refused for another reason.
        """
        if not self.state.locked:
            self._check()
        self.mark_accessed()
        self.state.read = True
        return self.state.identity

    @property
    def user(self) -> Any:
        """The id of the user who is logged in; None if nobody is. Raises as `identity` does."""
        identity = self.identity
        return None if identity is None else identity.user

    def known_user(self) -> Any:
        """Return the id of the user who is logged in, None if surely nobody is; it counts as an access.

        Raises:
            CannotTellError: nobody is as far as this node knows, and it cannot tell.
            CanisterError: as every use of a session that is refused.
        """
        self._use()
        if self.user is None and self.cannot_tell:
            raise CannotTellError("this node cannot tell whether the client is logged in; try again")
        return self.user

    @property
    def ends(self) -> datetime | None:
        """When the session ends unless it is accessed again before; None before it is stored."""
        record = self.state.record
        return to_datetime(deadline(record)) if record is not None and self.state.token else None

    @property
    def cannot_tell(self) -> bool:
        """Whether the client may have a session, or newer state of it, that this request does not see.

        A member cannot be asked, or the client was given the cookie of another one a moment ago.

        An empty session with this set is not "no session": do not send the user to the log-in for it.
        """
        state = self.state
        return state.doubt is not None or state.outlived is not None or state.sight.behind or self._is_unknown

    @property
    def is_behind(self) -> bool:
        """Whether what is here may be older than what the client has seen; no member could tell."""
        return self.state.sight.behind

    @property
    def is_locked(self) -> bool:
        """Whether it was idle for so long that its data is locked until `unlock`."""
        return self.state.locked

    @property
    def status(self) -> SessionStatus:
        """What the request has done with the session so far."""
        state = self.state
        if state.pending.retired is not None and not state.pending.carry and not self.changes().any:
            return SessionStatus.DESTROYED
        if state.token is None and state.pending.retired is None:
            over = state.written is not None and not self.changes().any  # what was committed ended it
            return SessionStatus.DESTROYED if over else SessionStatus.NEW
        if state.pending.retired is not None or self.changes().any:
            return SessionStatus.MODIFIED
        return SessionStatus.READ if state.read else SessionStatus.UNREAD

    # The session's life.

    def login(
        self,
        user: object,
        *,
        methods: tuple[str, ...] = (),
        address: str | None = None,
        agent: str | None = None,
    ) -> None:
        """Log a user in, or in again: a new id, the keys carried over, both time-outs begun anew.

        The keys of another user are not carried over.

        Args:
            user: the user's id: a str, bytes, int or UUID.
            methods: what the user proved it with, for step-up decisions.
            address: the client's address, to be shown in the user's list of sessions.
            agent: the client's software, likewise.

        Raises:
            InputError: *user* is no such id, or another argument is not as described.
        """
        encode_user(user)
        identity = as_given(user, methods, address, agent)
        before = self.state.identity
        if before is not None and before.user != user:
            self.destroy()
        else:
            self.unlock()
            self.regenerate()
        self.state.read = True
        self.state.identity = identity
        self.state.ask(logging_in=True)

    def logout(self) -> None:
        """End the session for good; keys set afterwards go into a new one."""
        self.destroy()

    def destroy(self) -> None:
        """End the session for good, as at log-out; keys set afterwards go into a new one.

        Raises:
            CannotTellError: the client may have another session, or another cookie, which would live on.
        """
        self._check_known()
        if self.state.outlived is not None:
            raise CannotTellError(too_late(self.state.outlived))
        self._retire()
        self._begin_anew()
        self._drop_pending()
        self.state.ask(times=None)
        self._put({})

    invalidate = destroy

    def regenerate(self) -> None:
        """Go on under a new id and destroy the old one: to be called at every change of privilege.

        Where the session is refused, the new one takes nothing over.

        Raises:
            SessionLockedError: it is locked; `unlock` it, or `login`.
        """
        self._check_known()
        if self.state.locked:
            self._check()
        if self.state.refusal is not None:
            self._put({})
        self.mark_accessed()
        if self.state.pending.cleared:
            self._begin_anew()
        elif self.state.token is not None:
            self.state.ask(carry=True)
        self._retire()

    def supersede(self, other: "Session") -> None:
        """Take the place of *other*, which the commit destroys; nothing of it is carried over.

        For frameworks whose handlers ask for a new session; this one must not be stored yet.
        """
        other._check_known()
        self.mark_accessed()
        self.state.ask(retired=self.state.pending.retired or other.state.token or other.state.doubt)
        self.state.stale = self.state.stale or other.state.stale

    def renew(self) -> None:
        """Go on under the same id with a new secret; the commit sends it."""
        self._use()
        self.state.ask(renew=True)

    def unlock(self) -> None:
        """Open a locked session: the user has just proved to be there. Its secret is replaced at once.

        Raises:
            SessionError: it is locked, and the response headers have left: no new cookie can follow.
        """
        if self.state.locked:
            if self.state.outcome is not None:
                raise SessionError("the response headers have left: what is locked cannot be opened any more")
            self.state.locked, self.state.refusal = False, None
            self._refill()
            self.renew()
            self.state.ask(retire=True)  # whoever else holds it has proved nothing

    def set_expiry(self, idle: timedelta | str | None = None, until: datetime | None = None) -> None:
        """Give the session times of its own; None means the default.

        Args:
            idle: idle timeout.
            until: an instant at which the session ends whatever happens.

        Raises:
            InputError: *idle* is not more than zero, *until* has no time zone, or they pass the
                absolute lifetime, which a log-in begins anew.
            CanisterError: as every use of a session that is refused.
        """
        self._use()
        times = own_times(idle, until)
        if self._keeper is not None:
            too_long = times.beyond(*self._keeper.life_of(self.state.kept_record))
            if too_long:
                raise InputError(too_long)
        self.state.ask(times=times)

    def set_cookie_age(self, age: timedelta | None) -> None:
        """Let the browser keep the cookie for *age*, None: until it is closed; the commit sends it.

        It is not stored: what keeps the cookie alive in later requests has to say it there, too.

        Raises:
            InputError: *age* is not a span of 1 second to 400 days.
            CanisterError: as every use of a session that is refused.
        """
        self._use()
        if age is not None:
            check_age(age)
        if age != self.state.max_age:
            self.state.ask(resend=True)
        self.state.max_age = age

    def ensure_stored(self) -> None:
        """Let the commit store the session even if it holds nothing."""
        self.mark_accessed()
        self.state.ask(wanted=self.state.token is None)

    def commit(self) -> None:
        """Store now what was changed; once the response headers have left, the only way to.

        Raises:
            SessionError: it needs a new cookie, and the headers have left; else as `SessionManager.commit`.
        """
        self._kept().store(self)

    async def acommit(self) -> None:
        """Do what `commit` does; the event loop goes on where disk or members are waited for."""
        await self._kept().astore(self)

    @property
    def _is_unknown(self) -> bool:
        """Whether it cannot be told which session the client has: a server or an old system is away."""
        state = self.state
        return state.refusal is not None and state.doubt is None and not state.locked

    def _check_known(self) -> None:
        """Raise where the client may have a session that is not known: it would outlive a log-out."""
        if self._is_unknown:
            self._check()

    def _kept(self) -> Keeper:
        if self._keeper is None:
            raise SessionError("this session belongs to no session manager: there is nowhere to store it")
        return self._keeper

    # Forms.

    def csrf_token(self) -> str:
        """Return what a form of this session carries; another text each time, all of them good.

        A new session is stored by it. The token is good until the session goes on under a new id.
        """
        return csrf.mask(self._csrf_secret())

    def _csrf_secret(self) -> bytes:
        """Return what the session's forms carry; the commit stores it where it is the first."""
        self._use()
        return self.state.csrf or self._keep_csrf(csrf.new_secret(self.state.token))

    def _keep_csrf(self, secret: bytes) -> bytes:
        self.state.csrf = secret
        with self.state.turn:
            self.state.ask(facts={**self.state.pending.facts, csrf.CSRF: secret})
        return secret

    def is_csrf_token(self, text: str) -> bool:
        """Tell whether *text* is a `csrf_token` of this session; compares in constant time.

        Raises:
            CannotTellError: it is none as far as this node knows, and it cannot tell.
        """
        self.mark_accessed()
        if csrf.matches(text, self.state.csrf):
            return True
        if self.cannot_tell:
            raise CannotTellError("this node cannot tell what the form's token is to be; try again")
        return False
