"""What a session's commit writes: the edits it hands to the store.

Unlike the library's `put`, a commit never begins a session anew: what was destroyed or has expired since
it was loaded stays so, and the commit raises.
"""

from typing import NamedTuple

import msgspec

from canister import edits
from canister.config import Policy
from canister.edits import Moment
from canister.errors import SessionDestroyedError, SessionEndedError
from canister.life import deadline, idle_from, is_touch_due
from canister.record import EMPTY, IDENTITY, KEY, Birth, Cell, Expiry, Record, Slot, Touch, merge
from canister.sessions import counters
from canister.sessions.renewal import GOOD
from canister.sessions.state import Changes
from canister.sessions.token import Draft
from canister.store.base import Edit


class Noting:
    """An edit that keeps what is stored once it is written.

    Args:
        edit: the edit.

    Attributes:
        stored: the session then; None if there is none.
    """

    stored: Record | None = None

    def __init__(self, edit: Edit) -> None:
        self._edit = edit

    def __call__(self, record: Record | None, moment: Moment) -> Record | None:
        """Do what the edit does."""
        written = self._edit(record, moment)
        self.stored = record if written is None else merge(record or EMPTY, written)
        return written


class Access(NamedTuple):
    """The access of a request or a connection that a commit records.

    A request is one from when its session was loaded: however long it takes, that keeps the session.

    Attributes:
        at: the instant; None: the commit is one itself, of a connection that goes on.
        lock: after how many microseconds without one the session is locked, None for never: then a connection
            that goes on is none.
    """

    at: int | None = None
    lock: int | None = None

    def moment(self, commit: Moment) -> Moment:
        """Return the moment of a commit as of the access."""
        return commit if self.at is None or self.at >= commit.now else Moment(commit.version, self.at)

    def keeps(self, record: Record, commit: Moment) -> bool:
        """Tell whether a session is live at its commit, if the access is recorded."""
        end = deadline(record)
        if end > commit.now:
            return True
        at = self.moment(commit)
        if end <= at.now or not is_touch_due(record, at.now):
            return False
        return deadline(msgspec.structs.replace(record, touch=Touch(at.version, at.now))) > commit.now

    def counts(self, record: Record, commit: Moment) -> bool:
        """Tell whether it is to be recorded: nothing that began before a session was locked opens it."""
        return self.lock is None or self.at is not None or commit.now < idle_from(record, self.lock)


def save(policy: Policy, changes: Changes, access: Access, *, asked: bool = True) -> Edit:
    """Return the edit that writes into a session that is still live.

    Args:
        policy: the times a new session is born with.
        changes: what to write.
        access: the access that goes with it.
        asked: whether a request has asked for it: if the session is over it is told so.
    """

    def edit(record: Record | None, moment: Moment) -> Record | None:
        if not asked and (record is None or not access.keeps(record, moment)):
            return None
        live, at = _live(record, moment, access), access.moment(moment)
        shown = merge(live, Record(clear=moment.version)) if changes.clear else live
        cells = changes.cells(shown, moment)
        written = edits.write(live, at, policy, cells, clear=changes.clear)
        written = _timed(written, live, at, policy, changes)
        return written if access.counts(live, moment) else msgspec.structs.replace(written, touch=None)

    return edit


def touch(access: Access) -> Edit:
    """Return the edit that records an access."""

    def edit(record: Record | None, moment: Moment) -> Record | None:
        at = access.moment(moment)
        if record is None or not access.keeps(record, moment) or not access.counts(record, moment):
            return None
        return Record(touch=Touch(at.version, at.now)) if is_touch_due(record, at.now) else None

    return edit


class Succession:
    """The two edits, of one commit, that destroy a session and create another.

    Args:
        policy: the times the new session is born with.
        changes: what the request has written.
        access: the access of the request.
        carry: whether the new session takes over what the old one holds at the commit.
        again: what it takes over where another request has ended the old one, if it is made by a log-in;
            None: that is an error, and it lives no longer than the old one could have.
    """

    def __init__(
        self, policy: Policy, changes: Changes, access: Access, *, carry: bool, again: Record | None = None
    ) -> None:
        self._policy = policy
        self._changes = changes
        self._access = access
        self._carry = carry
        self._again = again
        self._carried: dict[Slot, bytes | None] = {}
        self._expiry: tuple[Expiry, int] | None = None
        self._birth: Birth | None = None

    def destroy(self, record: Record | None, moment: Moment) -> Record:
        """Write the tombstone, having read what is carried over."""
        if self._carry:
            live = self._old(record, moment)
            spaces = (KEY[0], IDENTITY[0])
            self._carried = {s: c.value for s, c in live.cells.items() if s[0] in spaces}
            self._carried |= counters.carry(live, moment)
            self._expiry = (live.expiry, live.reach) if live.expiry else None
            self._birth = live.birth if self._again is None else None
        return edits.destroy(record, moment, self._policy, followed=True)

    def _old(self, record: Record | None, moment: Moment) -> Record:
        """Return what is carried over."""
        try:
            return _live(record, moment, self._access)
        except (SessionDestroyedError, SessionEndedError):
            if self._again is None:
                raise
            return self._again

    def create(self, draft: Draft) -> Edit:
        """Return the edit that creates the new session."""

        def edit(record: Record | None, moment: Moment) -> Record:
            old = Record(cells={slot: Cell(moment.version, value) for slot, value in self._carried.items()})
            cells = self._carried | self._changes.cells(old, moment) | {draft.slot: GOOD}
            born = edits.write(
                record, moment, self._policy, {s: v for s, v in cells.items() if v is not None}
            )
            if self._birth is not None:
                birth = msgspec.structs.replace(self._birth, version=moment.version)
                born = msgspec.structs.replace(born, birth=birth, reach=birth.idle + birth.interval)
            if self._expiry is not None:
                expiry, reach = self._expiry
                own = Expiry(moment.version, expiry.idle, expiry.interval, expiry.until)
                born = msgspec.structs.replace(born, expiry=own, reach=max(born.reach, reach))
            return _timed(born, born, moment, self._policy, self._changes)

        return edit


def _timed(written: Record, live: Record, moment: Moment, policy: Policy, changes: Changes) -> Record:
    """Return what is written with the times the session was given by the same request."""
    if changes.times is None:
        return written
    timed = edits.set_expiry(live, moment, policy, *changes.times) or EMPTY
    # Both are of one version: of two expiries the request's own is the one that was asked for.
    return msgspec.structs.replace(
        merge(written, timed), expiry=timed.expiry or written.expiry, reach=max(written.reach, timed.reach)
    )


def _live(record: Record | None, moment: Moment, access: Access) -> Record:
    if record is not None and record.destroy is not None:
        raise SessionDestroyedError(
            "another request destroyed the session while this one ran; what this one changed is not stored"
        )
    if record is None or not access.keeps(record, moment):
        raise SessionEndedError("the session expired while the request ran; what it changed is not stored")
    return record
