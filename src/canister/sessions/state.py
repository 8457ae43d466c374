"""What a request's session is, besides its keys: the book-keeping between load and commit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from canister.codec import decode_value, encode_value
from canister.edits import Moment, Times
from canister.errors import AcknowledgementError, CanisterError
from canister.freshness import Stamp
from canister.record import Record, Slot, Version
from canister.sessions.contents import NOTHING, Contents, Glance
from canister.sessions.identity import Identity
from canister.sessions.outcome import Outcome
from canister.sessions.token import Token

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


class Changes(NamedTuple):
    """What a commit has to write.

    Attributes:
        writes: encoded values by slot, None for removed ones.
        late: what else to write, decided on what is stored.
        clear: whether everything written before is hidden.
        times: the session's own times, None to leave them.
    """

    writes: dict[Slot, bytes | None]
    late: tuple[Late, ...] = ()
    clear: bool = False
    times: Times | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.writes or self.late or self.clear or self.times)

    def cells(self, record: Record, moment: Moment) -> dict[Slot, bytes | None]:
        """Return all that is written into the stored *record*."""
        cells = dict(self.writes)
        for late in self.late:
            cells |= late(record, moment)
        return cells


NO_CHANGES = Changes({})


@dataclass(slots=True)
class Update:
    """A key that a function of its value changes, however often it has to run.

    Attributes:
        slot: the key.
        default: what the function is given where there is no value.
        base: the encoded value as loaded.
        functions: what to apply, in order.
        result: the encoded value that came of it.
    """

    slot: Slot
    default: Any
    base: bytes | None
    functions: list[Callable[[Any], Any]]
    result: bytes

    def apply(self, record: Record, _moment: Moment) -> dict[Slot, bytes | None]:
        """Return the value to store, made of the one that is stored now."""
        cell = record.cells.get(self.slot)
        stored = cell.value if cell is not None else None
        if stored != self.base:
            value = self.default if stored is None else decode_value(stored)
            for function in self.functions:
                value = function(value)
            self.base, self.result = stored, encode_value(value, as_base=True)
        return {self.slot: self.result}


class Pending(msgspec.Struct, frozen=True):
    """What the commit has to do beside storing keys: what a request has asked for so far.

    Replaced when more is asked for; only an `Update` notes what its functions have made.

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
    resend: bool = False


NOTHING_PENDING = Pending()
"""What most requests ask for. Told by identity: whoever has asked and taken it back is looked at closely."""


class State:
    """The session manager's book-keeping of one session.

    Most of it stays as it is in most requests, so it begins with values that all of them share.

    Args:
        token: the good token the client showed.
        contents: the session as loaded.
        glance: what was kept of this look; None where it may not be relied on.

    Attributes:
        token: the good token the client showed; None in a session that is not stored.
        contents: the session as loaded.
        doubt: a token of which this node cannot tell whether its session exists.
        stale: whether the client shows a token that is surely no good and should be taken away.
        seen: whether the response depends on the session.
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
        behind: whether the client has seen newer state than what is here.
        lacking: what it has seen that may be missing here.
        shown: what it has seen, by the stamp it carries.
        restamp: whether that stamp is to be replaced even if it covers what was served.
        carries_stamp: whether the client carries a stamp, good or not.
        served: what it has seen after this request; None until something was written.
        max_age: how long the browser keeps the cookie; None: until it is closed.
        cookie: the Set-Cookie value that the client has yet to get.
        missing: which acknowledgements the last commit lacks.
        written: the version of the last commit, None if there was none.
        failed: whether the commit raised, so that nothing of the request is stored any more.
        outcome: what the client was told when the response headers left.
        pending: what the commit has to do beside storing keys.
        glance: what was kept of the look at it; None where it may not be relied on, and after a write.
    """

    token: Token | None
    contents: Contents
    glance: Glance | None
    doubt: Token | None = None
    stale: bool = False
    seen: bool = False
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
    behind: bool = False
    lacking: Stamp = ()
    shown: Stamp = ()
    restamp: bool = False
    carries_stamp: bool = False
    served: Stamp | None = None
    max_age: timedelta | None = None
    cookie: str | None = None
    missing: AcknowledgementError | None = None
    written: Version | None = None
    failed: bool = False
    outcome: Outcome | None = None
    pending: Pending = NOTHING_PENDING

    def __init__(
        self, token: Token | None = None, contents: Contents = NOTHING, glance: Glance | None = None
    ) -> None:
        self.token = token
        self.contents = contents
        self.glance = glance
        if glance is not None:
            self.shown = glance.shown

    def ask(self, **wishes: Any) -> None:
        """Have the commit do more, or less: fields of `Pending`."""
        self.pending = msgspec.structs.replace(self.pending, **wishes)

    @property
    def record(self) -> Record | None:
        """The session as loaded; None in one that was not stored."""
        return None if self.contents is NOTHING else self.contents.record
