"""From what was found of a request's cookies to the session it gets."""

import logging
from typing import Literal

from canister.engine import Engine
from canister.errors import CannotTellError, SessionLockedError
from canister.life import idle_from
from canister.record import stamp_of
from canister.sessions.contents import Contents
from canister.sessions.doubts import behind, unknown
from canister.sessions.lookup import Found, Verdict, is_open
from canister.sessions.renewal import SecretStatus
from canister.sessions.state import State
from canister.sessions.token import Refusal, Token

logger = logging.getLogger("canister.sessions")


class Chooser:
    """Chooses by the settings of one session manager.

    Args:
        engine: where the sessions are stored.
        when_behind: what a request gets that may see less than its client has seen.
        lock: after how many microseconds without an access a session is locked; None: never.
    """

    def __init__(self, engine: Engine, when_behind: Literal["serve", "refuse"], lock: int | None) -> None:
        self._engine = engine
        self._refuse = when_behind == "refuse"
        self._lock = lock

    def choose(self, found: list[Found]) -> State:
        """Return the state of the session that a request gets."""
        for one in found:
            if one.contents is not None and isinstance(one.token, Token):
                return self._here(one, one.token, one.contents)
        doubts = [one.token for one in found if is_open(one) and isinstance(one.token, Token)]
        state = State()
        state.doubt = doubts[0] if doubts else None
        # A late answer would take away the cookie that the client was given since.
        lately = [one for one in found if one.lately]
        state.stale = bool(found) and not lately and not any(map(is_open, found))
        # So would a new session. Whose session was ended without another one has no other cookie.
        outlived = [one.token for one in lately if one.outlived]
        state.outlived = next((token for token in outlived if isinstance(token, Token)), None)
        if doubts and self._refuse:
            state.refusal = CannotTellError(unknown(doubts[0]))
        return state

    def _here(self, found: Found, token: Token, contents: Contents) -> State:
        """Return the state of a session that is here, be it as new as the client has seen it or not."""
        state = State(token, contents, found.glance)
        sight = state.sight
        sight.shown, sight.renews = found.shown, found.unheard
        state.replaced = found.secret is SecretStatus.REPLACED
        if found.verdict is Verdict.BEHIND:
            now, grace = self._engine.clock.now(), self._engine.policy.grace
            sight.renews = False
            if all(now - stamp_of(version) >= grace for version in found.lacking):
                # Asked for, and nobody could tell; this once it is said, then it is given up.
                logger.warning(
                    "session %s: nobody has what its client saw longer ago than the grace period",
                    token.handle,
                )
                sight.renews = True
            elif self._refuse:
                state = State()
                state.doubt, state.refusal = token, CannotTellError(behind(token))
                return state
            else:
                logger.warning("%s; it is served as it is here", behind(token))
                sight.lacking = found.lacking
            sight.behind = True
        self.lock_idle(state, token, contents)
        return state

    def lock_idle(self, state: State, token: Token, contents: Contents) -> None:
        """Lock a session that has been idle for too long."""
        if self._lock is not None and self._engine.clock.now() >= idle_from(contents.record, self._lock):
            state.locked = True
            state.refusal = SessionLockedError(
                f"session {token.handle} was idle too long; its user must prove to be there, then unlock() it"
            )


def log_refusals(found: list[Found]) -> None:
    """Log the cookies that name no session."""
    for one in found:
        if isinstance(one.token, Refusal):
            level = logging.INFO if one.token is Refusal.MALFORMED else logging.WARNING
            logger.log(level, "a session cookie was refused: %s", one.token.value)
        elif one.secret is SecretStatus.RETIRED:
            logger.warning("session %s: a token was used after it had been replaced", one.token.handle)
        elif one.verdict is Verdict.GONE:
            logger.info("session %s is gone; its cookie is refused", one.token.handle)
