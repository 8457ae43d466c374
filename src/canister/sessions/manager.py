"""The session manager: what every framework adapter does with a request's session.

A request loads its session, the application uses it as a mapping, and one commit, when the response
headers are about to leave, decides by the session's state what is written and which cookie is sent.
A session that was not used is not written and sets no cookie.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Literal

from canister.canister import Canister
from canister.errors import CannotTellError, ConfigError, InputError
from canister.life import accessed, interval_of
from canister.record import Record, Slot
from canister.sessions.changes import Succession, save, touch
from canister.sessions.cookie import CookieSettings
from canister.sessions.keys import find_keys
from canister.sessions.lookup import Found, Lookup, Verdict, is_open
from canister.sessions.outcome import Outcome
from canister.sessions.session import Session, State
from canister.sessions.token import Refusal, Token, draft

logger = logging.getLogger("canister.sessions")

Changes = dict[Slot, bytes | None]


class SessionManager:
    """Sessions of a web application over a canister. Safe to share between threads.

    Args:
        canister: where the sessions are stored.
        secret_keys: one key or several, the signing one first; ``CANISTER_SECRET_KEYS`` by default,
            or, for a node alone, a file in the data directory.
        cookie: the cookie's attributes.
        when_behind: what a request gets whose session may exist on a member that cannot be asked:
            ``"serve"`` an empty one that cannot be written, or ``"refuse"`` it. As the canister's
            setting by default.

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
    ) -> None:
        self.canister = canister
        self.cookie = cookie or CookieSettings()
        self._node = canister.node
        if when_behind not in (None, "serve", "refuse"):
            raise ConfigError(f"when_behind is 'serve' or 'refuse', not {when_behind!r}")
        self._refuse = (when_behind or canister.config.when_behind) == "refuse"
        directory = self._node.store.files.path
        self.keys = find_keys(secret_keys, directory, clustered=canister.config.listen is not None)
        self._lookup = Lookup(self._node, self.keys)

    def load(self, cookie_values: list[str]) -> Session:
        """Return the session that the request's cookies name, or a new one.

        Args:
            cookie_values: every value the request holds under the cookie's name.

        Raises:
            CannotTellError: the session may exist where nobody can be asked, and *when_behind* is
                ``"refuse"``.
            StoreError: the database cannot be read.
        """
        found = self._lookup.here(cookie_values)
        if _needs_peers(found):
            found = self._lookup.anywhere(found)
        return self._choose(found)

    async def aload(self, cookie_values: list[str]) -> Session:
        """Do what `load` does; the event loop goes on where a peer must be asked."""
        found = self._lookup.here(cookie_values)
        if _needs_peers(found):
            found = await asyncio.to_thread(self._lookup.anywhere, found)
        return self._choose(found)

    def commit(self, session: Session) -> Outcome:
        """Store what the request changed; return what to tell the client.

        May be called again: a later commit stores what changed after the earlier one.

        Raises:
            CannotTellError: something was written to a session of which this node cannot tell whether
                it exists.
            SessionDestroyedError: something was written, and another request destroyed the session.
            SessionEndedError: something was written, and the session expired meanwhile.
            InputError: a key or a value cannot be stored.
            StoreError: the database cannot be written.
        """
        state = session.state
        changes = session.changes(self.canister.config.max_value)
        cookie: str | None
        if state.retired is not None:
            cookie = self._succeed(session, state.retired, changes)
        elif state.token is not None:
            cookie = self._update(session, state.token, changes)
        else:
            cookie = self._create(session, changes)
        return Outcome(cookie, vary=state.seen)

    async def acommit(self, session: Session) -> Outcome:
        """Do what `commit` does; the event loop goes on while the disk is waited for."""
        if self.canister.config.durability == "full":
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

    def _choose(self, found: list[Found]) -> Session:
        for one in found:
            if one.verdict is Verdict.LIVE and isinstance(one.token, Token):
                return Session(State(token=one.token, record=one.record))
        doubts = [one.token for one in found if is_open(one) and isinstance(one.token, Token)]
        if doubts and self._refuse:
            raise _cannot_tell(doubts[0])
        _log_refusals(found)
        stale = bool(found) and not any(map(is_open, found))
        return Session(State(doubt=doubts[0] if doubts else None, stale=stale))

    def _create(self, session: Session, changes: Changes) -> str | None:
        state = session.state
        if not changes:
            return self.cookie.end() if state.stale else None
        if state.doubt is not None:
            raise _cannot_tell(state.doubt)
        fresh = draft(self.keys)
        edit = Succession(self._node.policy, changes, carry=False).create(fresh)
        version = self._node.commit([(fresh.session, edit)])
        assert version is not None  # the edit always writes
        return self._issue(session, fresh.seal(version), changes)

    def _update(self, session: Session, token: Token, changes: Changes) -> str | None:
        state = session.state
        due = _is_touch_due(state.record, self._node.clock.now())
        if changes or state.cleared:
            edit = save(self._node.policy, changes, clear=state.cleared)
        elif state.read and due:
            edit = touch()
        else:
            return None
        self._node.commit([(token.session, edit)])
        session.committed(token, changes)
        # A cookie that outlives the browser is kept as long as the session is used.
        return self.cookie.keep(token.text) if due and self.cookie.max_age is not None else None

    def _succeed(self, session: Session, retired: Token, changes: Changes) -> str:
        succession = Succession(self._node.policy, changes, carry=session.state.carry)
        if not (session.state.carry or changes):
            self._node.commit([(retired.session, succession.destroy)])
            logger.info("session %s was destroyed", retired.handle)
            session.committed(None, changes)
            return self.cookie.end()
        fresh = draft(self.keys)
        version = self._node.commit(
            [(retired.session, succession.destroy), (fresh.session, succession.create(fresh))]
        )
        assert version is not None  # both edits always write
        logger.info("session %s was destroyed, %s follows it", retired.handle, fresh.handle)
        return self._issue(session, fresh.seal(version), changes)

    def _issue(self, session: Session, token: Token, changes: Changes) -> str:
        logger.info("session %s was created", token.handle)
        session.committed(token, changes)
        return self.cookie.keep(token.text)


def _needs_peers(found: list[Found]) -> bool:
    if found and found[-1].verdict is Verdict.LIVE:  # the search ends with it
        return False
    return any(is_open(one) and isinstance(one.token, Token) for one in found)


def _is_touch_due(record: Record | None, now: int) -> bool:
    return record is not None and now >= accessed(record) + max(1, interval_of(record))


def _cannot_tell(token: Token) -> CannotTellError:
    return CannotTellError(
        f"session {token.handle} may exist on a member of the cluster that cannot be reached; "
        "the client's cookie was left as it is; try again"
    )


def _log_refusals(found: list[Found]) -> None:
    for one in found:
        if isinstance(one.token, Refusal):
            level = logging.INFO if one.token is Refusal.MALFORMED else logging.WARNING
            logger.log(level, "a session cookie was refused: %s", one.token.value)
        elif one.verdict is Verdict.GONE:
            logger.info("session %s is gone; its cookie is refused", one.token.handle)
