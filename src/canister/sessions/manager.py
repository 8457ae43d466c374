"""The session manager: what every framework adapter does with a request's session.

A request loads its session, the application uses it as a mapping, and one commit, when the response
headers are about to leave, decides by the session's state what is written and which cookie is sent.
A session that was not used is not written and sets no cookie.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from canister.canister import Canister
from canister.errors import CannotTellError, ConfigError, InputError
from canister.freshness import covers, newest, stamp_for
from canister.life import accessed, interval_of
from canister.node import Needed, check_acks
from canister.record import Record, Slot, Version, stamp_of
from canister.sessions import stamp
from canister.sessions.changes import Succession, save, touch
from canister.sessions.cookie import CookieSettings
from canister.sessions.keys import find_keys
from canister.sessions.lookup import Found, Lookup, Verdict, is_open, needs_peers
from canister.sessions.outcome import Outcome
from canister.sessions.session import Session, State
from canister.sessions.token import Refusal, Token, draft

logger = logging.getLogger("canister.sessions")

Changes = dict[Slot, bytes | None]


class _Done(NamedTuple):
    """What a commit did: the token's cookie, and its version if it wrote; a touch stores nothing."""

    set_cookie: str | None
    version: Version | None = None
    stores: bool = True


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
    ) -> None:
        self.canister = canister
        self.cookie = cookie or CookieSettings()
        self.seen_cookie = self.cookie.for_seen()
        try:
            check_acks(acks)
        except InputError as error:
            raise ConfigError(str(error)) from error
        self._acks: Needed = acks
        self._node = canister.node
        if when_behind not in (None, "serve", "refuse"):
            raise ConfigError(f"when_behind is 'serve' or 'refuse', not {when_behind!r}")
        self._refuse = (when_behind or canister.config.when_behind) == "refuse"
        directory = self._node.store.files.path
        self.keys = find_keys(secret_keys, directory, clustered=canister.config.listen is not None)
        self._lookup = Lookup(self._node, self.keys)

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
        if _needs_peers(found):
            found = self._lookup.anywhere(found)
        return self._choose(found, carries_stamp=bool(stamps))

    async def aload(self, cookie_values: Sequence[str], seen_values: Sequence[str] = ()) -> Session:
        """Do what `load` does; the event loop goes on where a peer must be asked."""
        stamps = self._stamps(seen_values)
        found = self._lookup.here(cookie_values, stamps)
        if _needs_peers(found):
            found = await asyncio.to_thread(self._lookup.anywhere, found)
        return self._choose(found, carries_stamp=bool(stamps))

    def commit(self, session: Session) -> Outcome:
        """Store what the request changed; return what to tell the client.

        May be called again: a later commit stores what changed after the earlier one.

        Raises:
            AcknowledgementError: fewer members than *acks* hold it; it stands, and
                ``session.state.outcome`` is what to tell the client.
            CannotTellError: something was written to a session of which this node cannot tell whether
                it exists, or a session was to go on under a new id while there may be newer state.
            SessionDestroyedError: something was written, and another request destroyed the session.
            SessionEndedError: something was written, and the session expired meanwhile.
            InputError: a key or a value cannot be stored.
            StoreError: the database cannot be written.
        """
        state = session.state
        changes = session.changes(self.canister.config.max_value)
        if state.retired is not None:
            done = self._succeed(session, state.retired, changes)
        elif state.token is not None:
            done = self._update(session, state.token, changes)
        elif changes:
            done = self._create(session, changes)
        else:
            done = _Done(self.cookie.end() if state.stale else None)
        outcome = Outcome(done.set_cookie, vary=state.seen, set_seen=self._set_seen(session, done))
        state.outcome = outcome
        if done.version is not None and done.stores and self._acks != 1:
            self._node.await_held(done.version, self._acks)
        return outcome

    async def acommit(self, session: Session) -> Outcome:
        """Do what `commit` does; the event loop goes on while disk or members are waited for."""
        if self.canister.config.durability == "full" or (self._acks != 1 and session.state.seen):
            return await asyncio.to_thread(self.commit, session)
        return self.commit(session)  # some 50 us; a hop to a thread costs more

    def destroy(self, session: Session) -> Outcome:
        """Destroy the session now; return what to tell the client."""
        session.destroy()
        return self.commit(session)

    async def adestroy(self, session: Session) -> Outcome:
        """Do what `destroy` does; the event loop goes on while the disk is waited for."""
        session.destroy()
        return await self.acommit(session)

    def finish(self, session: Session, where: str) -> None:
        """Say so if the session was changed after its last commit; call it when the request is over.

        Args:
            session: the request's session.
            where: the request, for the log.
        """
        state = session.state
        try:
            lost = state.retired is not None or state.cleared or bool(session.changes())
        except InputError:
            lost = True
        if lost:
            logger.error(
                "what %s changed in session %s after the response headers had left is lost",
                where,
                session.handle,
            )

    def _stamps(self, values: Sequence[str]) -> Sequence[str]:
        """Return the stamps to look at: none while the node is alone."""
        return values if values and self._node.is_clustered else ()

    def _choose(self, found: list[Found], *, carries_stamp: bool) -> Session:
        for one in found:
            if one.record is not None and isinstance(one.token, Token):
                state = self._state(one, one.token)
                break
        else:
            doubts = [one.token for one in found if is_open(one) and isinstance(one.token, Token)]
            _log_refusals(found)
            state = State(doubt=doubts[0] if doubts else None)
            state.stale = bool(found) and not any(map(is_open, found))
            if doubts and self._refuse:
                state.refusal = _unknown(doubts[0])
        state.carries_stamp = carries_stamp
        return Session(state)

    def _state(self, found: Found, token: Token) -> State:
        """Return the state of a session that is here, be it as new as the client has seen it or not."""
        if found.verdict is not Verdict.BEHIND:
            return State(token=token, record=found.record, shown=found.shown, restamp=found.unheard)
        now, grace = self._node.clock.now(), self._node.policy.grace
        if all(now - stamp_of(version) >= grace for version in found.lacking):
            # Asked for, and nobody could tell; this once it is said, then the stamp is given up.
            logger.warning("session %s: a stamp older than the grace period is given up", token.handle)
            return State(token=token, record=found.record, shown=found.shown, restamp=True, behind=True)
        if self._refuse:
            return State(doubt=token, refusal=_behind(token))
        logger.warning("%s; it is served as it is here", _behind(token))
        state = State(token=token, record=found.record, shown=found.shown, behind=True)
        state.lacking = found.lacking
        return state

    def _set_seen(self, session: Session, done: _Done) -> str | None:
        """Return the Set-Cookie value for the stamp, None to leave it alone."""
        state, token = session.state, session.state.token
        if token is None:
            ended = done.set_cookie is not None and state.carries_stamp
            return self.seen_cookie.end() if ended else None
        if not (state.seen or state.restamp) or not self._node.is_clustered:
            return None
        served = state.served or (stamp_for(state.record) if state.record is not None else ())
        written = () if done.version is None else (done.version,)
        # What it lacks stays in the stamp, or the next answer could be older and nobody would know.
        state.served = newest((*served, *written), first=state.lacking)
        if state.served == state.shown or (covers(state.shown, state.served) and not state.restamp):
            return None
        state.shown, state.restamp = state.served, False
        return self.seen_cookie.keep(stamp.seal(state.served, token))

    def _create(self, session: Session, changes: Changes) -> _Done:
        state = session.state
        if state.doubt is not None:
            raise CannotTellError(_unknown(state.doubt))
        fresh = draft(self.keys)
        edit = Succession(self._node.policy, changes, carry=False).create(fresh)
        version = self._node.commit([(fresh.session, edit)])
        assert version is not None  # the edit always writes
        return self._issue(session, fresh.seal(version), changes)

    def _update(self, session: Session, token: Token, changes: Changes) -> _Done:
        state = session.state
        due = _is_touch_due(state.record, self._node.clock.now())
        if changes or state.cleared:
            edit = save(self._node.policy, changes, clear=state.cleared)
        elif state.read and due:
            edit = touch()
        else:
            return _Done(None)
        stores = bool(changes or state.cleared)
        version = self._node.commit([(token.session, edit)])
        session.committed(token, changes)
        # A cookie that outlives the browser is kept as long as the session is used.
        keep = due and self.cookie.max_age is not None
        return _Done(self.cookie.keep(token.text) if keep else None, version, stores)

    def _succeed(self, session: Session, retired: Token, changes: Changes) -> _Done:
        if session.state.carry and session.state.behind:
            raise CannotTellError(_behind(retired))  # destroying it would lose what is newer elsewhere
        succession = Succession(self._node.policy, changes, carry=session.state.carry)
        if not (session.state.carry or changes):
            version = self._node.commit([(retired.session, succession.destroy)])
            logger.info("session %s was destroyed", retired.handle)
            session.committed(None, changes)
            return _Done(self.cookie.end(), version)
        fresh = draft(self.keys)
        version = self._node.commit(
            [(retired.session, succession.destroy), (fresh.session, succession.create(fresh))]
        )
        assert version is not None  # both edits always write
        logger.info("session %s was destroyed, %s follows it", retired.handle, fresh.handle)
        return self._issue(session, fresh.seal(version), changes)

    def _issue(self, session: Session, token: Token, changes: Changes) -> _Done:
        logger.info("session %s was created", token.handle)
        session.committed(token, changes)
        state = session.state
        state.shown = state.lacking = ()
        state.served, state.behind = (token.issued,), False
        return _Done(self.cookie.keep(token.text), token.issued)


def _needs_peers(found: list[Found]) -> bool:
    if found and found[-1].verdict is Verdict.LIVE:  # the search ends with it
        return False
    return any(needs_peers(one) and isinstance(one.token, Token) for one in found)


def _is_touch_due(record: Record | None, now: int) -> bool:
    return record is not None and now >= accessed(record) + max(1, interval_of(record))


def _unknown(token: Token) -> str:
    return (
        f"session {token.handle} may exist on a member of the cluster that cannot be reached; "
        "the client's cookie was left as it is; try again"
    )


def _behind(token: Token) -> str:
    return (
        f"session {token.handle} may be newer on a member of the cluster that cannot be reached than it is "
        "here; the client's cookie was left as it is; try again"
    )


def _log_refusals(found: list[Found]) -> None:
    for one in found:
        if isinstance(one.token, Refusal):
            level = logging.INFO if one.token is Refusal.MALFORMED else logging.WARNING
            logger.log(level, "a session cookie was refused: %s", one.token.value)
        elif one.verdict is Verdict.GONE:
            logger.info("session %s is gone; its cookie is refused", one.token.handle)
