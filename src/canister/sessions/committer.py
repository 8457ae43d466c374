"""The commit of a request's session: what is written, and which cookies the client gets."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from canister import edits
from canister.codec import encode_user
from canister.edits import Moment
from canister.engine import Engine
from canister.errors import (
    AcknowledgementError,
    CanisterError,
    CannotTellError,
    InputError,
    SessionError,
    TooManySessionsError,
)
from canister.life import is_live
from canister.record import EMPTY, Record, Slot, Version
from canister.sessions import seen
from canister.sessions.changes import Access, Noting, Succession, save, touch
from canister.sessions.cookie import CookieSettings
from canister.sessions.doubts import behind, too_late, unknown
from canister.sessions.events import EventKind
from canister.sessions.identity import Identity, identity_of
from canister.sessions.keys import KeyRing
from canister.sessions.outcome import Outcome
from canister.sessions.renewal import (
    Renewal,
    RenewalTimes,
    SecretStatus,
    due_from,
    secret_status,
    successor_of,
)
from canister.sessions.session import Session
from canister.sessions.state import Changes, State
from canister.sessions.token import Draft, Token, draft
from canister.sessions.users import Users
from canister.store.base import Edit, Known, Needed

logger = logging.getLogger("canister.sessions")

Tell = Callable[[EventKind, str, Any], None]
"""Tells of what happened to a session: its handle, and its user."""


class Committer:
    """Commits by the settings of one session manager.

    Args:
        engine: where the sessions are stored.
        keys: what signs tokens.
        cookie: attributes of the token's cookie.
        users: who has how many sessions.
        tell: who wants to know what happens.
        acks: how many members must hold what is written.
        renewal: when a secret is replaced.
        lock: after how many microseconds without an access a session is locked; None: never.
    """

    def __init__(
        self,
        engine: Engine,
        keys: KeyRing,
        cookie: CookieSettings,
        users: Users,
        tell: Tell,
        acks: Needed,
        renewal: RenewalTimes,
        lock: int | None,
    ) -> None:
        self._engine = engine
        self._destroy: Edit = partial(edits.destroy, policy=engine.policy)
        self._keys = keys
        self._cookie = cookie
        self._seen_cookie = cookie.for_seen()
        self._users = users
        self._tell = tell
        self._acks: Needed = acks
        self._renewal = renewal
        self._lock = lock

    def store(self, session: Session) -> None:
        """Write what the request changed; see `SessionManager.commit`."""
        state = session.state
        changes = session.changes(self._engine.config.max_value)
        logging_in = state.identity if state.pending.logging_in else None
        if logging_in is not None:
            changes = self._logging_in(state, logging_in, changes)
        state.missing = None
        state.written = self._write(session, changes) or state.written
        if logging_in is not None:
            self._keep_cap(session, logging_in.user)
        if state.missing is not None:
            raise state.missing

    def is_due(self, session: Session) -> bool:
        """Tell whether there is something to store or to send; see `SessionManager.is_due`."""
        state = session.state
        try:
            pending = state.pending
            if session.changes().any or pending.retired is not None or pending.wanted or pending.resend:
                return True
        except InputError:
            return True
        if state.token is None or state.locked:
            return False
        if state.replaced and state.varies:
            return True
        if not state.read or state.passive:
            return False
        now = self._engine.clock.now()
        return now >= state.contents.due or now >= due_from(state.token, self._renewal.after)

    def deliver(self, session: Session) -> Outcome:
        """Return what to tell the client, now that the response headers leave."""
        state = session.state
        cookie, state.cookie = state.cookie, None
        seen = self._set_seen(state, ended=cookie is not None and state.token is None)
        outcome = state.outcome = Outcome(cookie, state.varies, seen)
        return outcome

    def _write(self, session: Session, changes: Changes) -> Version | None:
        state = session.state
        if state.pending.retired is not None:
            return self._succeed(session, state.pending.retired, changes)
        if state.token is not None:
            return self._update(session, state.token, changes)
        if changes.any or state.pending.wanted:
            return self._create(session, changes)
        if state.stale:
            state.cookie = self._cookie.end()
        return None

    def _create(self, session: Session, changes: Changes) -> Version:
        state = session.state
        if state.doubt is not None:
            raise CannotTellError(unknown(state.doubt))
        if state.outlived is not None:
            raise CannotTellError(too_late(state.outlived))
        _check_headers(state)
        fresh = draft(self._keys)
        succession = Succession(self._engine.policy, changes, self._access(state), carry=False)
        noting = Noting(succession.create(fresh))
        made: list[tuple[bytes, Edit]] = [(fresh.session, noting)]
        if state.ended is not None:  # by a commit of its own, which did not know that this one would follow
            made.insert(0, (state.ended.session, succession.destroy))
        version = self._commit(state, made, {fresh.session: None})
        assert version is not None  # creating one always writes
        return self._issue(session, fresh.seal(version), changes, noting)

    def _update(self, session: Session, token: Token, changes: Changes) -> Version | None:
        state = session.state
        now = self._engine.clock.now()
        if state.pending.resend and state.outcome is None:
            self._send_again(state, token, now)
        if state.locked:
            return None  # what is written counts as an access, and would open it
        due = now >= state.contents.due and not state.passive
        asked = changes.any or state.pending.renew
        renewal = self._due_renewal(state, token, now)
        changes = _with_secrets(state, changes, renewal)
        if changes.any:
            noting = Noting(save(self._engine.policy, changes, self._access(state), asked=asked))
        elif state.read and due:
            noting = Noting(touch(self._access(state)))
        else:
            return None
        # Recording an access is not waited for.
        known = {} if state.record is None else {token.session: state.record}
        version = self._commit(state, [(token.session, noting)], known, self._acks if changes.any else 1)
        follower = renewal.token() if renewal is not None and version is not None else None
        session.committed(follower or token, changes)
        if version is not None:
            self._note_stored(state, noting)
        if follower is not None:
            state.cookie = self._keep(state, follower)
            self._happened(EventKind.RENEWED, token.handle, state)
        elif version is not None and state.cookie is None and due and state.max_age is not None:
            # A cookie that outlives the browser is kept as long as the session is used. Where nothing was
            # written the session may be over, and the client may have the cookie of another one by now.
            state.cookie = self._keep(state, token)
        if due and state.identity is not None:
            self._users.keep_cap(state.identity.user)
        return version

    def _send_again(self, state: State, token: Token, now: int) -> None:
        """Send the cookie that the client has, as it was asked for, if it still opens the session."""
        if self._opens(token, now):
            state.cookie = self._keep(state, token)
        state.ask(resend=False)

    def _access(self, state: State) -> Access:
        """Return the access that a commit records: of the request until its headers leave, then its own."""
        return Access(state.at if state.outcome is None else None, self._lock)

    def _opens(self, token: Token, now: int) -> bool:
        """Tell whether a token still opens its session: nobody has ended or renewed it meanwhile."""
        record = self._engine.store.load(token.session).record
        return (
            record is not None
            and is_live(record, now)
            and secret_status(record, token.slot, now) is SecretStatus.GOOD
            and not self._users.has_revoked(record)
        )

    def _due_renewal(self, state: State, token: Token, now: int) -> Renewal | None:
        """Return the renewal that the commit makes; a replaced secret only has its new one sent again."""
        if state.pending.renew and state.outcome is not None:
            state.ask(renew=False)  # it is said once: what else a stream stores has to go on
            _check_headers(state)
        if state.outcome is not None or state.record is None:
            return None  # the headers have left: no cookie can follow them
        if state.replaced:
            follower = successor_of(token, self._keys, state.record)
            if follower is not None and state.varies:
                state.cookie = self._keep(state, follower)
            return None
        due = state.read and not state.passive and now >= due_from(token, self._renewal.after)
        window = 0 if state.pending.retire else self._renewal.window
        return Renewal(token, self._keys, window) if due or state.pending.renew else None

    def _keep(self, state: State, token: Token) -> str:
        return self._cookie.lasting(state.max_age).keep(token.text)

    def _succeed(self, session: Session, retired: Token, changes: Changes) -> Version | None:
        state = session.state
        if state.pending.carry and state.sight.behind:
            raise CannotTellError(behind(retired))  # destroying it would lose what is newer elsewhere
        carry = state.pending.carry
        known: dict[bytes, Record | None] = {} if state.record is None else {retired.session: state.record}
        if not (carry or changes.any or state.pending.wanted):
            version = self._commit(state, [(retired.session, _ending(retired, self._destroy))], known)
            session.committed(None, changes)
            state.ended, state.cookie = retired, self._cookie.end()
            self._happened(EventKind.DESTROYED, retired.handle, state)
            return version
        _check_headers(state)
        again = _before(state.record) if state.pending.logging_in else None
        succession = Succession(self._engine.policy, changes, self._access(state), carry=carry, again=again)
        fresh = draft(self._keys)
        noting = Noting(succession.create(fresh))
        destroy: Edit = succession.destroy
        if not (carry or state.pending.logging_in):
            destroy = _ending(retired, destroy)
        both: list[tuple[bytes, Edit]] = [(retired.session, destroy), (fresh.session, noting)]
        try:
            version = self._commit(state, both, {**known, fresh.session: None})
        except CanisterError:
            self._give_up(fresh)
            raise
        assert version is not None  # both edits always write
        self._happened(EventKind.DESTROYED, retired.handle, state)
        return self._issue(session, fresh.seal(version), changes, noting)

    def _give_up(self, fresh: Draft) -> None:
        """End the session of a commit that failed, if the half of it that creates it was written.

        Sessions on different masters of a Redis Cluster are written one after the other. Nobody has its
        cookie.
        """
        with suppress(CanisterError):  # the error of the commit is the one to tell
            if self._engine.store.load(fresh.session).record is not None:
                self._engine.commit([(fresh.session, self._destroy)])

    def _commit(
        self, state: State, edits: Sequence[tuple[bytes, Edit]], known: Known, acks: Needed | None = None
    ) -> Version | None:
        """Commit; what is not acknowledged stands, and is raised when the client's cookies are known."""
        try:
            return self._engine.commit(edits, self._acks if acks is None else acks, known)
        except AcknowledgementError as error:
            state.missing = error
            return Version(error.version)

    def _note_stored(self, state: State, noting: Noting) -> None:
        """Go on from what was stored. Of what others have written meanwhile the client has seen nothing."""
        if state.sight.served is None and self._engine.is_clustered:
            state.sight.served = state.contents.seen
        assert noting.stored is not None, "it was written"
        state.note_stored(noting.stored)

    def _issue(self, session: Session, token: Token, changes: Changes, noting: Noting) -> Version:
        session.committed(token, changes)
        state = session.state
        state.ended, state.replaced = None, False
        state.sight.begin_anew(token.issued)
        self._note_stored(state, noting)
        if state.identity is not None and not state.pending.logging_in:
            state.identity = state.contents.identity  # with the instant of the log-in
        state.cookie = self._keep(state, token)
        self._happened(EventKind.CREATED, token.handle, state)
        return token.issued

    def _logging_in(self, state: State, identity: Identity, changes: Changes) -> Changes:
        """Return the changes with those of the log-in, if the user may have one more session."""
        retired = state.pending.retired
        self._users.admit(identity.user, retired.handle if retired is not None else None)
        known = self._users.revocation(encode_user(identity.user))

        def log_in(_record: Record, moment: Moment) -> dict[Slot, bytes | None]:
            return identity.writes(moment, known)

        return changes._replace(late=(*changes.late, log_in))

    def _keep_cap(self, session: Session, user: object) -> None:
        """Keep a user who has just logged in to the cap, with log-ins that came at the same time."""
        state = session.state
        token, ended = state.token, self._users.keep_cap(user)
        if token is None:
            return
        if not self._users.rejects:
            if token.handle in ended:
                # By a later log-in, of the same client perhaps, which has that one's cookie.
                state.token = state.cookie = None
        elif token.handle in ended or not self._opens(token, self._engine.clock.now()):
            state.token, state.cookie = None, self._cookie.end()
            raise TooManySessionsError("the user has as many sessions as are allowed; this one was not made")

    def _happened(self, kind: EventKind, handle: str, state: State) -> None:
        logger.info("session %s was %s", handle, kind)
        identity = identity_of(state.record) if kind is EventKind.DESTROYED else state.identity
        self._tell(kind, handle, identity.user if identity is not None else None)

    def _set_seen(self, state: State, *, ended: bool) -> str | None:
        """Return the Set-Cookie value of the seen cookie, None to leave it alone."""
        token, sight = state.token, state.sight
        if token is None:
            return self._seen_cookie.end() if ended and sight.carried else None
        if not (state.varies or sight.renews) or not self._engine.is_clustered:
            return None
        says = sight.next(sight.served or state.contents.seen, state.written)
        return None if says is None else self._seen_cookie.lasting(state.max_age).keep(seen.seal(says, token))


def _before(record: Record | None) -> Record:
    """Return what a log-in goes on from where another request has ended its session, as one sent twice has.

    That is what this one had loaded, unless somebody was logged in then: a log-out stands.
    """
    return record if record is not None and identity_of(record) is None else EMPTY


def _ending(token: Token, destroy: Edit) -> Edit:
    """Return the edit that ends a session, unless another request has its client go on with another one.

    That one would outlive a log-out that is answered as done.
    """

    def ending(record: Record | None, moment: Moment) -> Record | None:
        if record is not None and record.destroy is not None and record.destroy.followed:
            raise CannotTellError(too_late(token))
        return destroy(record, moment)

    return ending


def _with_secrets(state: State, changes: Changes, renewal: Renewal | None) -> Changes:
    """Return the changes with what happens to the secrets: a new one, and old ones that retire."""
    if renewal is not None:
        changes = changes._replace(late=(*changes.late, renewal.apply))
    retires = not state.replaced or (state.pending.retire and state.cookie is not None)
    if state.contents.replaced and state.varies and retires:
        changes = changes._replace(writes={**changes.writes, **state.contents.replaced})
    return changes


def _check_headers(state: State) -> None:
    if state.outcome is not None:
        raise SessionError("the response headers have left: no new cookie can follow; nothing was written")
