"""A user's sessions: listed from the sessions themselves, ended one by one or all at once."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from canister import edits
from canister.clock import to_datetime
from canister.codec import decode_id, encode_id, encode_user, user_record_id
from canister.edits import Moment
from canister.engine import Engine
from canister.errors import (
    AcknowledgementError,
    ClockError,
    ConfigError,
    InputError,
    InvalidIdError,
    TooManySessionsError,
)
from canister.life import accessed, is_live
from canister.record import Cell, Record, Version, user_of
from canister.sessions.identity import KNOWN, Identity, identity_of, is_revoked, revocation_in
from canister.sessions.session import Session
from canister.store.base import Edit, Needed

AtCap = Literal["evict", "reject"]


class UserSession(NamedTuple):
    """A live session as its user may see it.

    Attributes:
        handle: the session's id, no secret.
        identity: who logged in, when, by what and, if the application recorded it, from where.
        created: when the session was made.
        last_seen: when it was last accessed, to within a touch interval.
    """

    handle: str
    identity: Identity
    created: datetime
    last_seen: datetime


class Users:
    """What is known and done of the sessions of one user, on every node alike.

    Args:
        engine: where the sessions are stored.
        most: how many sessions a user may have; None: any number.
        at_cap: what a log-in beyond that does: ``"evict"`` ends the oldest log-in, ``"reject"`` refuses
            the new one. It is exact on one side of a split; after it the oldest go.
        ended: called with each session that is ended here.
        acks: how many members must hold that sessions were ended, before who asked for it is answered.

    Raises:
        ConfigError: *most* or *at_cap* cannot work.
    """

    def __init__(
        self,
        engine: Engine,
        most: int | None,
        at_cap: AtCap,
        ended: Callable[[str, Any], None],
        acks: Needed = 1,
    ) -> None:
        if most is not None and (type(most) is not int or most < 1):  # settings may come from a file
            raise ConfigError(f"max_sessions is a number from 1, or None, not {most!r}")
        if at_cap not in ("evict", "reject"):
            raise ConfigError(f"at_cap is 'evict' or 'reject', not {at_cap!r}")
        self._engine = engine
        self._acks: Needed = acks
        self.most = most
        self.at_cap: AtCap = at_cap
        self._ended = ended

    @property
    def rejects(self) -> bool:
        """Whether there is a cap, and what a log-in beyond it does is to fail."""
        return self.most is not None and self.at_cap == "reject"

    def sessions(self, user: object) -> list[UserSession]:
        """Return a user's live sessions, the one last seen first. The cost follows their number.

        They are as this node knows them: what was begun or ended elsewhere a moment ago may be missing.

        Raises:
            InputError: *user* is no user id.
        """
        found = [_shown(session, record) for session, record in self._live(encode_user(user))]
        return sorted(found, key=lambda one: one.last_seen, reverse=True)

    def end(self, user: object, handle: str) -> bool:
        """End one of a user's sessions for good; False if *handle*, whatever it is, is none of them any more.

        Raises:
            InputError: *user* is no user id.
            AcknowledgementError: fewer members than the session manager's ``acks`` hold that it is over; it
                is, and that spreads.
        """
        try:
            session = encode_id(handle)
        except InvalidIdError:
            return False
        if not any(session == own for own, _ in self._live(encode_user(user))):
            return False
        return self._end([(session, self._destroyed_once)], [handle], user) is not None

    def end_all(self, user: object, *, keep: Session | str = "") -> int:
        """End all sessions of a user, also those not heard of yet; return how many are known here.

        What the other side of a split still holds, or logs in before it hears of this, falls when it
        does. To be called when a password was changed, or an account was closed.

        Args:
            user: the user's id.
            keep: the session that stays, such as the request's own, or its handle. Of the session itself the
                answer tells the client, so that no node takes it for one that was ended.

        Raises:
            AcknowledgementError: as for `end`.
            ClockError: this node's clock is wrong. What is known here is over all the same, all else is not:
                to be called again once the clock is right.
            InputError: *keep* is neither: a session that is about to go on under a new id has no handle.
        """
        encoded = encode_user(user)
        kept = _id_of(keep)
        others = [session for session, _ in self._live(encoded) if session != kept]
        policy = self._engine.policy
        work: list[tuple[bytes, Edit]] = [
            (user_record_id(encoded), lambda record, moment: edits.revoke(record, moment, policy))
        ]
        if kept is not None:
            work.append((kept, _know_revocation(encoded)))
        ends: list[tuple[bytes, Edit]] = [(session, self._destroyed) for session in others]
        handles = [str(decode_id(session)) for session in others]
        try:
            version = self._end([*work, *ends], handles, user)
        except AcknowledgementError as error:
            _show(keep, Version(error.version))
            raise
        except ClockError:
            self._end(ends, handles, user)  # a destroy waits for no clock
            raise
        _show(keep, version)
        return len(others)

    def revocation(self, user: bytes) -> Version | None:
        """Return the newest revocation of an encoded user's sessions that was heard of here."""
        return revocation_in(self._engine.store.load(user_record_id(user)).record)

    def has_revoked(self, record: Record) -> bool:
        """Tell whether a session was ended with all of its user's."""
        return self.has_ended(record, self.record_of(record))

    def record_of(self, record: Record) -> Record | None:
        """Return what the store holds of the user of a session; None where there is nothing."""
        user = user_of(record)
        return None if user is None else self._engine.store.load(user_record_id(user)).record

    def has_ended(self, record: Record, known: Record | None) -> bool:
        """Tell whether a session was ended by what is *known* of its user."""
        return is_revoked(record, revocation_in(known), self._engine.policy.drift)

    def admit(self, user: object, retiring: str | None) -> None:
        """Refuse a log-in beyond the cap, where that is the rule.

        Args:
            user: who is about to log in.
            retiring: the handle of the session that the new one replaces.

        Raises:
            TooManySessionsError: the user has as many sessions as are allowed.
        """
        if self.most is None or not self.rejects:
            return
        if len([one for one in self.sessions(user) if one.handle != retiring]) >= self.most:
            raise TooManySessionsError(
                f"the user has {self.most} sessions, as many as are allowed; end one of them first"
            )

    def keep_cap(self, user: object) -> list[str]:
        """End what is beyond the cap; return the handles of the sessions that were ended.

        They are the oldest log-ins, or where new ones are refused, the newest.
        """
        if self.most is None:
            return []
        found = sorted(self._live(encode_user(user)), key=lambda one: (_logged_in(one[1]), one[0]))
        excess = len(found) - self.most
        if excess <= 0:
            return []
        going = found[:excess] if self.at_cap == "evict" else found[-excess:]
        handles = [str(decode_id(session)) for session, _ in going]
        self._engine.commit([(session, self._destroyed) for session, _ in going])
        self._tell(handles, user)
        return handles

    def _live(self, user: bytes) -> list[tuple[bytes, Record]]:
        now, revoked, drift = self._engine.clock.now(), self.revocation(user), self._engine.policy.drift
        found = self._engine.store.of_user(user)
        return [(s, r) for s, r in found if is_live(r, now) and not is_revoked(r, revoked, drift)]

    def _end(self, work: list[tuple[bytes, Edit]], handles: list[str], user: object) -> Version | None:
        """Commit what ends sessions, and tell of them; return the commit's version."""
        try:
            version = self._engine.commit(work, self._acks)
        except AcknowledgementError:
            self._tell(handles, user)  # here they are over
            raise
        if version is not None:
            self._tell(handles, user)
        return version

    def _tell(self, handles: list[str], user: object) -> None:
        for handle in handles:
            self._ended(handle, user)

    def _destroyed(self, record: Record | None, moment: Moment) -> Record:
        return edits.destroy(record, moment, self._engine.policy)

    def _destroyed_once(self, record: Record | None, moment: Moment) -> Record | None:
        """Do nothing where a request has ended it meanwhile: it may go on under a new id."""
        is_over = record is not None and record.destroy is not None
        return None if is_over else self._destroyed(record, moment)


def _id_of(session: object) -> bytes | None:
    """Return the id of a session that is to stay, as it is stored now; None if none is."""
    if isinstance(session, str):
        return encode_id(session) if session else None
    if not isinstance(session, Session):
        raise InputError(
            f"keep is a session or its handle, not {type(session).__name__}; nothing was ended. Before it is "
            "stored under a new id a session has no handle: give the session itself"
        )
    state = session.state
    token = state.token or (state.pending.retired if state.pending.carry else None)
    return None if token is None else token.session


def _show(session: Session | str, version: Version | None) -> None:
    """Have the client of a session that stays show at any node that this was written."""
    if not isinstance(session, str) and version is not None:
        session.mark_accessed()
        session.state.glance, session.state.written = None, version


def _know_revocation(user: bytes) -> Edit:
    """Return the edit by which a session outlives the revocation of the same commit."""

    def edit(record: Record | None, moment: Moment) -> Record | None:
        if record is None or not is_live(record, moment.now) or user_of(record) != user:
            return None
        return Record(cells={KNOWN: Cell(moment.version, bytes(moment.version))})

    return edit


def _logged_in(record: Record) -> float:
    identity = identity_of(record)
    return identity.at.timestamp() if identity is not None and identity.at is not None else 0.0


def _shown(session: bytes, record: Record) -> UserSession:
    identity = identity_of(record)
    assert identity is not None  # it was found by its user
    born = record.birth.born if record.birth else 0
    return UserSession(str(decode_id(session)), identity, to_datetime(born), to_datetime(accessed(record)))
