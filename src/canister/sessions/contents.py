"""What a session's record says, worked out once: requests that load the same record share it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from canister.codec import FIXED, decode_value, slot_key
from canister.freshness import Seen, seen_in
from canister.life import NEVER, deadline, due
from canister.record import EMPTY, KEY, Record, Slot
from canister.sessions import counters, csrf
from canister.sessions.identity import identity_of
from canister.sessions.renewal import retire
from canister.sessions.token import Token
from canister.store.base import Stored

_NONE: Mapping[Any, Any] = MappingProxyType({})


class Glance(msgspec.Struct, frozen=True):
    """What a client showed that opens a session.

    Attributes:
        token: the good token.
        seen_values: the values of the seen cookie.
        shown: what the client has seen, by these values; it is here.
        until: the instant until which a request that shows the same is served the session as it is.
        calm: the instant until which nothing has to be written or sent for one that only reads.
        user: the id of the record of the user who is logged in: it tells when all sessions were ended.
        known: that record; None: there was none.
        clustered: whether the node had peers, or might have had.
    """

    token: Token
    seen_values: tuple[str, ...]
    shown: Seen
    until: int
    calm: int
    user: bytes | None
    known: Record | None
    clustered: bool


class Contents:
    """A record as requests ask for it. Nothing of what it says ever changes.

    Args:
        record: the session as loaded.

    Attributes:
        record: the same.
        end: the instant at which readers see the session end.
        due: the instant from which an access is to be recorded.
        replaced: what ends the secrets that were replaced.
        base: the encoded values.
        values: them decoded, by key, in their order; None where a value can change in place.
        fixed: those of them that cannot.
        loose: those that can, each with its key, encoded: each request decodes its own.
        identity: who is logged in.
        counts: the counters by encoded key.
        csrf: the secret that the session's forms carry.
        token: the good token that was shown last: no longer in memory than what it opens.
        glance: what was shown last with nothing left to decide.
    """

    __slots__ = (
        "_seen", "base", "counts", "csrf", "due", "end", "fixed", "glance", "identity", "loose", "record",
        "replaced", "token", "values",
    )  # fmt: skip

    def __init__(self, record: Record) -> None:
        self.record = record
        self.end = deadline(record)
        self.due = due(record) if record.touch is not None else NEVER
        self.replaced: Mapping[Slot, bytes | None] = retire(record) or _NONE
        self.base: dict[Slot, bytes] = {
            s: c.value for s, c in record.cells.items() if s[0] == KEY[0] and c.value is not None
        }
        self.values: dict[Any, Any] = {slot_key(s): decode_value(data) for s, data in self.base.items()}
        self.fixed = self.values
        self.loose: tuple[tuple[Any, bytes], ...] = ()
        if not FIXED.issuperset(map(type, self.values.values())):
            self.fixed = {key: value for key, value in self.values.items() if type(value) in FIXED}
            encoded = zip(self.values, self.base.values(), strict=True)
            self.loose = tuple(pair for pair in encoded if pair[0] not in self.fixed)
            self.values = dict.fromkeys(self.values) | self.fixed
        self.identity = identity_of(record)
        self.counts: Mapping[bytes, int] = counters.counts_in(record) or _NONE
        self.csrf = csrf.secret_in(record)
        self._seen: Seen | None = None
        self.token: Token | None = None
        self.glance: Glance | None = None

    @property
    def seen(self) -> Seen:
        """What a client has seen that is served the session."""
        if self._seen is None:
            self._seen = seen_in(self.record)
        return self._seen


NOTHING = Contents(EMPTY)
"""What a session holds that is not stored."""


def contents_of(stored: Stored) -> Contents | None:
    """Return what a stored session holds, None if there is none; kept as long as the store keeps it."""
    record = stored.record
    if record is None:
        return None
    kept: Contents | None = stored.memo
    if kept is None or kept.record is not record:
        contents = stored.memo = Contents(record)
        contents.token = kept.token if kept is not None else None
        return contents
    return kept
