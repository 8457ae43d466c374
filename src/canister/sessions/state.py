"""What a request's session is, besides its keys: the book-keeping between load and commit."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager
from copy import deepcopy
from datetime import timedelta
from enum import StrEnum
from threading import RLock
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import msgspec

from canister.codec import decode_value, encode_value, slot_key
from canister.edits import Moment, Times
from canister.errors import AcknowledgementError, CanisterError
from canister.record import Record, Slot, Version
from canister.sessions.contents import NOTHING, Contents, Glance
from canister.sessions.identity import Identity
from canister.sessions.outcome import Outcome
from canister.sessions.sight import Sight
from canister.sessions.token import Token
from canister.sizes import check_value

_NONE: Mapping[Any, Any] = MappingProxyType({})

Late = Callable[[Record, Moment], dict[Slot, bytes | None]]
"""What is written depends on what is stored at the commit. It may run more than once, like any edit."""


class SessionStatus(StrEnum):
    """What a request has done with its session so far."""

    NEW = "new"
    UNREAD = "unread"
    READ = "read"
    MODIFIED = "modified"
    DESTROYED = "destroyed"


class Update(msgspec.Struct, frozen=True):
    """A key that functions of its value change, however often they have to run.

    Attributes:
        slot: the key.
        default: what the first function is given where there is no value.
        base: the encoded value as loaded.
        functions: what to apply, in order.
        result: the encoded value that came of it.
    """

    slot: Slot
    default: Any
    base: bytes | None
    functions: tuple[Callable[[Any], Any], ...]
    result: bytes

    def on(self, stored: bytes | None, most: int | None = None) -> bytes:
        """Return the encoded value that comes of the one that is stored now.

        Raises:
            InputError: it cannot be stored, or has more than *most* bytes.
        """
        if stored == self.base:
            return self.result
        value = deepcopy(self.default) if stored is None else decode_value(stored)
        for function in self.functions:
            value = function(value)
        key = slot_key(self.slot)
        data = encode_value(value, key, as_base=True)
        return data if data == stored else check_value(data, key, most)

    def since(self, done: "Update", stored: bytes) -> "Update":
        """Return what is left to do once *done*, which this one goes on from, is stored as *stored*."""
        left = msgspec.structs.replace(self, base=None, functions=self.functions[len(done.functions) :])
        return msgspec.structs.replace(left, base=stored, result=left.on(stored))


class Pending(msgspec.Struct, frozen=True):
    """What the commit has to do beside storing keys: what a request has asked for so far.

    Never changes, it is replaced when more is asked for.

    Attributes:
        retired: the token whose session it destroys.
        carry: whether the new session takes over what the retired one holds.
        cleared: whether it hides everything written before.
        logging_in: whether it stores who is logged in.
        wanted: whether it stores the session even if it holds nothing.
        facts: metadata it stores.
        updates: keys that functions change, by slot.
        increments: what it adds to the counters, by encoded key.
        times: the session's own times, to be stored.
        renew: whether it replaces the secret whatever its age.
        retire: whether the secret of before is good no more at once.
        resend: whether it sends the cookie whatever else it does.
    """

    retired: Token | None = None
    carry: bool = False
    cleared: bool = False
    logging_in: bool = False
    wanted: bool = False
    facts: Mapping[Slot, bytes | None] = _NONE
    updates: Mapping[Slot, Update] = _NONE
    increments: Mapping[bytes, int] = _NONE
    times: Times | None = None
    renew: bool = False
    retire: bool = False
    resend: bool = False

    def since(self, done: "Pending", made: Mapping[Slot, bytes]) -> "Pending":
        """Return what other tasks have asked for while a commit did what was asked before.

        Args:
            done: what was asked for when the commit began.
            made: the encoded values that it has stored of keys that functions change, by slot.
        """
        if self is done:
            return NOTHING_PENDING
        again = self.retired is not done.retired
        added = {key: by - done.increments.get(key, 0) for key, by in self.increments.items()}
        left = Pending(
            retired=self.retired if again else None,
            carry=self.carry and again,
            cleared=self.cleared and not done.cleared,
            logging_in=self.logging_in and not done.logging_in,
            wanted=self.wanted and not done.wanted,
            facts={slot: fact for slot, fact in self.facts.items() if done.facts.get(slot) != fact},
            updates=dict(self._updates_since(done, made)),
            increments={key: by for key, by in added.items() if by},
            times=self.times if self.times is not done.times else None,
            renew=self.renew and not done.renew,
            retire=self.retire and not done.retire,
            resend=self.resend and not done.resend,
        )
        return NOTHING_PENDING if left == NOTHING_PENDING else left

    def _updates_since(self, done: "Pending", made: Mapping[Slot, bytes]) -> Iterator[tuple[Slot, Update]]:
        for slot, update in self.updates.items():
            before = done.updates.get(slot)
            if before is None:
                yield slot, update
            elif update is not before and slot in made:
                yield slot, update.since(before, made[slot])


NOTHING_PENDING = Pending()
"""What most requests ask for. Told by identity: whoever has asked and taken it back is looked at closely."""


_MADE_NONE: MutableMapping[Slot, bytes] = cast("Any", _NONE)
"""What comes of no updates; it refuses to take any."""


class Changes(NamedTuple):
    """What a commit has to write.

    Attributes:
        writes: encoded values by slot, None for removed ones.
        updates: keys that functions change.
        late: what else to write, decided on what is stored.
        clear: whether everything written before is hidden.
        times: the session's own times, None to leave them.
        asked: what the request had asked for when this was worked out.
        made: the encoded values that came of the updates, by slot, once it is written.
        most: the greatest encoded size of a value; None: any.
    """

    writes: dict[Slot, bytes | None]
    updates: tuple[Update, ...] = ()
    late: tuple[Late, ...] = ()
    clear: bool = False
    times: Times | None = None
    asked: Pending = NOTHING_PENDING
    made: MutableMapping[Slot, bytes] = _MADE_NONE
    most: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.writes or self.updates or self.late or self.clear or self.times)

    def cells(self, record: Record, moment: Moment) -> dict[Slot, bytes | None]:
        """Return all that is written into the stored *record*."""
        cells = dict(self.writes)
        for update in self.updates:
            cell = record.cells.get(update.slot)
            value = update.on(None if cell is None else cell.value, self.most)
            cells[update.slot] = self.made[update.slot] = value
        for late in self.late:
            cells |= late(record, moment)
        return cells


NO_CHANGES = Changes({})


class State:
    """The session manager's book-keeping of one session.

    Most of it stays as it is in most requests, so it begins with values that all of them share.

    Args:
        token: the good token the client showed.
        contents: the session as loaded.
        glance: what was kept of this look; None where it may not be relied on.

    Attributes:
        token: the good token the client showed; None in a session that is not stored.
        alone: what keeps two commits apart, once there was one.
        doubt: a token of which this node cannot tell whether its session exists.
        outlived: a token that was good until a moment ago, whose client has been given another one since.
        ended: the token whose session this request has ended, as long as none has taken its place.
        stale: whether the client shows a token that is surely no good and should be taken away.
        varies: whether the response depends on the session.
        read: whether the request counts as an access.
        passive: whether it never does, whatever it reads.
        base: the encoded values as stored.
        fixed: those of them that cannot change in place, by key; empty once something was written.
        identity: who is logged in, stored or about to be.
        csrf: the secret that the session's forms carry.
        counts: the counters as stored, by encoded key.
        refusal: what every use of the session raises.
        locked: whether the session waits for `Session.unlock`.
        replaced: whether the client shows a secret that was replaced, and needs the new one.
        sight: what the client has seen of the session.
        max_age: how long the browser keeps the cookie; None: until it is closed.
        cookie: the Set-Cookie value that the client has yet to get.
        missing: which acknowledgements the last commit lacks.
        written: the version of the last commit, None if there was none.
        failed: whether the commit raised, so that nothing of the request is stored any more.
        lost: what a commit was asked for that found the session over: there is nowhere to store it any more.
        outcome: what the client was told when the response headers left.
        pending: what the commit has to do beside storing keys.
        glance: what was kept of the look at it; None where it may not be relied on, and after a write.
        commits: how many have been noted.
        at: when the session was loaded, which is when the request accesses it; None once it was stored.
    """

    token: Token | None
    glance: Glance | None
    sight: Sight
    _contents: Contents
    _stored: Record | None = None
    alone: AbstractContextManager[object] | None = None
    doubt: Token | None = None
    outlived: Token | None = None
    ended: Token | None = None
    stale: bool = False
    varies: bool = False
    read: bool = False
    passive: bool = False
    base: Mapping[Slot, bytes] = _NONE
    fixed: Mapping[Any, object] = _NONE
    identity: Identity | None = None
    csrf: bytes | None = None
    counts: Mapping[bytes, int] = _NONE
    refusal: CanisterError | None = None
    locked: bool = False
    replaced: bool = False
    max_age: timedelta | None = None
    cookie: str | None = None
    missing: AcknowledgementError | None = None
    written: Version | None = None
    failed: bool = False
    lost: Pending | None = None
    outcome: Outcome | None = None
    pending: Pending = NOTHING_PENDING
    commits: int = 0
    _turn: AbstractContextManager[object] | None = None
    at: int | None = None

    def __init__(
        self, token: Token | None = None, contents: Contents = NOTHING, glance: Glance | None = None
    ) -> None:
        self.token = token
        self._contents = contents
        self.glance = glance
        self.sight = Sight()
        if glance is not None:
            self.sight.shown = glance.shown

    def ask(self, **wishes: Any) -> None:
        """Have the commit do more, or less: fields of `Pending`."""
        with self.turn:
            self.pending = msgspec.structs.replace(self.pending, **wishes)

    @property
    def turn(self) -> AbstractContextManager[object]:
        """What keeps asking for more apart from a commit in another thread, to be held for a moment.

        Whoever works something out before looks at `commits` again: what was stored is not to be done twice.
        """
        turn = self._turn
        return vars(self).setdefault("_turn", RLock()) if turn is None else turn

    def note_stored(self, record: Record) -> None:
        """Note what a commit has stored: a connection that goes on is served by that."""
        self._stored = record

    @property
    def contents(self) -> Contents:
        """The session as loaded, or as the last commit has stored it."""
        stored, self._stored = self._stored, None
        if stored is not None:
            self._contents = Contents(stored)
        return self._contents

    @property
    def kept_record(self) -> Record | None:
        """The session as loaded, if what the commit stores goes on with its birth; None: it begins anew."""
        pending = self.pending
        stays = self.token is not None or (pending.carry and not pending.logging_in)
        return self.record if stays else None

    @property
    def record(self) -> Record | None:
        """The session as loaded, or as the last commit has stored it; None in one that is not stored."""
        return None if self.contents is NOTHING else self.contents.record
