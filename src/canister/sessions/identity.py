"""Who is logged in: the metadata of a session that names its user, and what revokes it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from canister.clock import to_datetime
from canister.codec import decode_value, encode_user, encode_value
from canister.edits import REVOKED, Moment
from canister.errors import InputError
from canister.record import IDENTITY, USER, Record, Slot, Version, stamp_of

AT = Slot(IDENTITY + b"at")
"""The stamp of the log-in; it goes with the user from one id to the next."""
KNOWN = Slot(IDENTITY + b"known")
"""The newest revocation of the user's sessions that the log-in knew."""
METHODS = Slot(IDENTITY + b"methods")
ADDRESS = Slot(IDENTITY + b"address")
AGENT = Slot(IDENTITY + b"agent")
AGENT_LENGTH = 256
"""So many characters of the client's software are recorded where an adapter does so."""


class Identity(NamedTuple):
    """Who a session belongs to, and how that was found out.

    Attributes:
        user: the user's id.
        at: when the user logged in, or last did so again; None until it is stored.
        methods: what the user proved it with, such as ``("pwd", "otp")`` (RFC 8176 has names).
        address: the client's address, if the application chose to record it.
        agent: the client's software, likewise.
    """

    user: Any
    at: datetime | None = None
    methods: tuple[str, ...] = ()
    address: str | None = None
    agent: str | None = None

    def writes(self, moment: Moment, known: Version | None) -> dict[Slot, bytes | None]:
        """Return what a log-in stores.

        Args:
            moment: version and time of the commit.
            known: the newest revocation of the user's sessions that this node has heard of.
        """
        return {
            USER: encode_user(self.user),
            AT: encode_value(stamp_of(moment.version)),
            KNOWN: None if known is None else bytes(known),
            METHODS: encode_value(self.methods) if self.methods else None,
            ADDRESS: None if self.address is None else encode_value(self.address),
            AGENT: None if self.agent is None else encode_value(self.agent),
        }


def as_given(user: Any, methods: Any, address: Any, agent: Any) -> Identity:
    """Return who logs in, as an application says it.

    Raises:
        InputError: *methods* is not several texts, or *address* or *agent* is none.
    """
    if not (isinstance(methods, (list, tuple)) and _are_texts(cast("Sequence[Any]", methods))):
        raise InputError(f"methods is a tuple of texts such as ('pwd', 'otp'), not {methods!r:.80}")
    if not _are_texts([text for text in (address, agent) if text is not None]):
        raise InputError(f"address and agent are texts, not {address!r:.80} and {agent!r:.80}")
    return Identity(user, None, tuple(cast("Sequence[str]", methods)), address, agent)


def _are_texts(values: Sequence[Any]) -> bool:
    return all(type(value) is str for value in values)


def identity_of(record: Record | None) -> Identity | None:
    """Return who a session belongs to, None if nobody is logged in."""
    user = _read(record, USER)
    if user is None:
        return None
    at = _read(record, AT)
    return Identity(
        user=user,
        at=None if at is None else to_datetime(at),
        methods=_read(record, METHODS) or (),
        address=_read(record, ADDRESS),
        agent=_read(record, AGENT),
    )


def revocation_in(record: Record | None) -> Version | None:
    """Return the version of the revocation that a user's record holds."""
    cell = record.cells.get(REVOKED) if record is not None else None
    return None if cell is None else cell.version


def is_revoked(session: Record, revoked: Version | None, drift: int) -> bool:
    """Tell whether a session was ended with all of its user's.

    So it is if its log-in knew of less, and was not surely later: a log-in that knew of the revocation
    stands whatever the clocks say, and one that did not, and came within *drift* microseconds, falls.
    """
    if revoked is None:
        return False
    cell = session.cells.get(KNOWN)
    known = cell.value if cell is not None else None
    return (known or b"") < revoked and (_read(session, AT) or 0) <= stamp_of(revoked) + drift


def _read(record: Record | None, slot: Slot) -> Any:
    cell = record.cells.get(slot) if record is not None else None
    return None if cell is None or cell.value is None else decode_value(cell.value)
