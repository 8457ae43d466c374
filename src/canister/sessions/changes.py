"""What a session's commit writes: the edits it hands to the store.

Unlike the library's `put`, a commit never begins a session anew: what was destroyed or has expired since
it was loaded stays so, and the commit raises.
"""

import msgspec

from canister import edits
from canister.codec import encode_value
from canister.config import Policy
from canister.edits import Moment, Writes
from canister.errors import SessionDestroyedError, SessionEndedError
from canister.life import deadline
from canister.record import IDENTITY, KEY, Expiry, Record, Slot
from canister.sessions.token import Draft
from canister.store.base import Edit

_GOOD = encode_value(None)


def save(policy: Policy, writes: Writes, *, clear: bool) -> Edit:
    """Return the edit that writes into a session that is still live."""

    def edit(record: Record | None, moment: Moment) -> Record:
        return edits.write(_live(record, moment), moment, policy, writes, clear=clear)

    return edit


def touch() -> Edit:
    """Return the edit that records an access."""
    return lambda record, moment: edits.touch(record, moment, moment.now)


class Succession:
    """The two edits, of one commit, that destroy a session and create another.

    Args:
        policy: the times the new session is born with.
        writes: what the request has written.
        carry: whether the new session takes over what the old one holds at the commit.
    """

    def __init__(self, policy: Policy, writes: Writes, *, carry: bool) -> None:
        self._policy = policy
        self._writes = writes
        self._carry = carry
        self._carried: dict[Slot, bytes | None] = {}
        self._expiry: tuple[Expiry, int] | None = None

    def destroy(self, record: Record | None, moment: Moment) -> Record:
        """Write the tombstone, having read what is carried over."""
        if self._carry:
            live = _live(record, moment)
            spaces = (KEY[0], IDENTITY[0])
            self._carried = {s: c.value for s, c in live.cells.items() if s[0] in spaces}
            self._expiry = (live.expiry, live.reach) if live.expiry else None
        return edits.destroy(record, moment, self._policy)

    def create(self, draft: Draft) -> Edit:
        """Return the edit that creates the new session."""

        def edit(record: Record | None, moment: Moment) -> Record:
            cells = {s: v for s, v in (self._carried | dict(self._writes)).items() if v is not None}
            born = edits.write(record, moment, self._policy, {**cells, draft.slot: _GOOD})
            if self._expiry is None:
                return born
            expiry, reach = self._expiry
            own = Expiry(moment.version, expiry.idle, expiry.interval, expiry.until)
            return msgspec.structs.replace(born, expiry=own, reach=max(born.reach, reach))

        return edit


def _live(record: Record | None, moment: Moment) -> Record:
    if record is not None and record.destroy is not None:
        raise SessionDestroyedError(
            "another request destroyed the session while this one ran; what this one changed is not stored"
        )
    if record is None or deadline(record) <= moment.now:
        raise SessionEndedError("the session expired while the request ran; what it changed is not stored")
    return record
