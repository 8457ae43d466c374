"""Moving in: sessions of another system go on here, and nobody is logged out.

The id here is a hash of the old credential, so that two requests which move in at once meet in one
session; birth and end come from the old credential, alike on every node. What is left of the session,
if only its tombstone, stays until the old credential's own end: an old cookie that is shown again
cannot undo a log-out. So no secret key has a part in the id: keys are replaced.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Protocol, cast

import msgspec

from canister import edits
from canister.clock import instant, micros, to_datetime
from canister.codec import encode_user, encode_value, key_slot
from canister.config import Policy
from canister.edits import LONGEST, Moment
from canister.engine import Engine
from canister.errors import ConfigError, InputError
from canister.life import is_live
from canister.record import USER, Expiry, Record, Slot
from canister.sessions.identity import AT
from canister.sessions.keys import KeyRing
from canister.sessions.renewal import GOOD, SecretStatus, secret_status
from canister.sessions.token import ID_BYTES, Draft, Token
from canister.sessions.users import Users
from canister.sizes import check_value
from canister.store.base import Edit

logger = logging.getLogger("canister.sessions")


@dataclass(frozen=True, slots=True)
class OldSession:
    """A session of another system.

    Attributes:
        credential: what its client shows, as the old system knows it: a key or a signed text.
        data: its keys and values.
        ends: when the credential would end there; at most 400 days after *created* here. It has to be the
            same for all who ask, however late.
        created: when it began, or an instant before that; likewise.
        user: who is logged in, None if nobody is.
        idle: how long it may be idle; None: as long as any other session here.
    """

    credential: str = field(repr=False)
    data: dict[Any, Any] = field(repr=False)
    ends: datetime
    created: datetime
    user: Any = None
    idle: timedelta | None = None


Shown = Callable[[str], Iterable[str]]
"""What a request shows: the values of its cookies of a name."""


class OldSystem(Protocol):
    """Where sessions move in from."""

    @property
    def cookie_name(self) -> str:
        """The name of the old system's cookie."""
        ...

    def find(self, value: str) -> OldSession | None:
        """Return the session that a cookie's value names there.

        None if there is none, or the value is forged or over.

        Raises:
            OldSystemError: it cannot be asked; that is no reason to log anybody out.
        """
        ...


class MoveIn:
    """Lets the sessions that old cookies name go on here.

    Args:
        engine: where the sessions are stored.
        ring: the keys.
        users: who was logged out everywhere.
        systems: where sessions move in from.

    Raises:
        ConfigError: these are no systems.
    """

    def __init__(self, engine: Engine, ring: KeyRing, users: Users, systems: Sequence[OldSystem]) -> None:
        self._engine = engine
        self._users = users
        self._ring = ring
        self._systems = _checked(systems)

    def enter(self, shown: Shown) -> tuple[Token, Record] | None:
        """Return the session that a request's old cookies name, moved in now or before; None if none does.

        Raises:
            OldSystemError: an old system cannot be asked.
            StoreError: the database cannot be read or written.
        """
        for system in self._systems:
            for value in shown(system.cookie_name):
                old = system.find(value)
                entered = self._try(old) if old is not None else None
                if entered is not None:
                    return entered
        return None

    def _try(self, old: OldSession) -> tuple[Token, Record] | None:
        """Do what `_enter` does; a session that cannot be stored stays behind, as one that is over does."""
        try:
            return self._enter(old)
        except InputError as error:
            logger.warning("an old session cannot move in: %s", error)
            return None

    def _enter(self, old: OldSession) -> tuple[Token, Record] | None:
        drafts = self._drafts(old.credential.encode())
        draft, now = drafts[0], self._engine.clock.now()
        lived = _bounded(old, now)
        if lived is None:
            return None
        # Where it cannot be told whether it moved in elsewhere, it does so here too: the two are one.
        loaded = self._engine.load(draft.session)
        if loaded.stored.record is None:
            cells = _encoded(lived, self._engine.config.max_value) | {draft.slot: GOOD}
            self._engine.commit([(draft.session, _move_in(self._engine.policy, cells, lived))])
            loaded = self._engine.load(draft.session)
            logger.info("session %s moved in", draft.handle)
        record, now = loaded.stored.record, self._engine.clock.now()
        if record is None or not is_live(record, now) or self._users.has_revoked(record):
            logger.info("session %s has moved in before and is over", draft.handle)
            return None
        good = [d for d in drafts if secret_status(record, d.slot, now) is SecretStatus.GOOD]
        if not good:
            return None  # the token it was given has been replaced since
        return good[0].seal(record.cells[good[0].slot].version), record

    def _drafts(self, shown: bytes) -> list[Draft]:
        """Return the session and secret that a credential comes to, by each key, the signing one first.

        The secret is derived as well, so that all requests that move in at once get the same token.
        """
        id = blake2b(shown, digest_size=ID_BYTES, person=b"canister.movedin").digest()
        return [Draft(id, key.next_secret(id, shown), key) for key in self._ring]


def _checked(systems: object) -> list[OldSystem]:
    """Return what `move_in` lists; settings may come from a file."""
    is_list = isinstance(systems, Iterable) and not isinstance(systems, str)
    listed: list[Any] = list(cast("Iterable[Any]", systems)) if is_list else [systems]
    for system in listed:
        if not (hasattr(system, "cookie_name") and callable(getattr(system, "find", None))):
            raise ConfigError(f"move_in lists systems as in canister.integrations.moving, not {system!r}")
    return listed


def _bounded(old: OldSession, now: int) -> OldSession | None:
    """Return a session whose times can be stored; None if it is over, or ends too far off.

    Raises:
        InputError: it has naive times.
    """
    if old.ends.tzinfo is None or old.created.tzinfo is None:
        raise InputError(f"ends and created must be aware datetimes, not {old.ends!r} and {old.created!r}")
    longest = timedelta(microseconds=LONGEST)
    ends = old.ends if old.ends - old.created <= longest else old.created + longest
    # The old system's clock may be ahead. It is the end that has to be alike, and that stays as it is.
    created = min(old.created, to_datetime(now))
    if ends <= max(created, to_datetime(now)):
        return None
    if instant(ends) - instant(created) > LONGEST:
        logger.warning("an old session cannot move in: it would end at %s", ends)
        return None
    return replace(old, created=created, ends=ends)


def _move_in(policy: Policy, cells: dict[Slot, bytes | None], old: OldSession) -> Edit:
    """Return the edit that makes the session, unless another request has."""

    def edit(record: Record | None, moment: Moment) -> Record | None:
        if record is not None:
            return None
        return _with_life(edits.write(None, moment, policy, cells), policy, old)

    return edit


def _with_life(record: Record, policy: Policy, old: OldSession) -> Record:
    """Return a new session's record with the life of the old one."""
    assert record.birth is not None  # it was just made
    born = instant(old.created)
    absolute = instant(old.ends) - born
    birth = msgspec.structs.replace(
        record.birth, born=born, absolute=absolute, idle=min(record.birth.idle, absolute)
    )
    expiry = None
    if old.idle is not None:
        idle = min(micros(old.idle), absolute)
        expiry = Expiry(birth.version, idle, policy.interval_for(idle), None)
    # Kept to its end, however early it expires: else the old cookie would move in once more.
    return msgspec.structs.replace(record, birth=birth, expiry=expiry, reach=max(record.reach, absolute))


def _encoded(old: OldSession, most: int) -> dict[Slot, bytes | None]:
    """Return keys, values and user as they are stored; what cannot be is left behind, and logged.

    Args:
        old: the session that moves in.
        most: the greatest encoded size of a value.

    Raises:
        InputError: the user cannot be stored.
    """
    cells: dict[Slot, bytes | None] = {}
    for key, value in old.data.items():
        try:
            cells[key_slot(key)] = check_value(encode_value(value, key, as_base=True), key, most)
        except InputError as error:
            logger.warning("a key of a session that moves in is left behind: %s", error)
    if old.user is not None:
        cells |= {USER: encode_user(old.user), AT: encode_value(instant(old.created))}
    return cells
