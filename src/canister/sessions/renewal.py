"""Renewal: the same session goes on under a new secret, and the old one soon is good no more.

The old secret stays good until the new one shows up, or until the window ends: requests that were
under way with it are not refused. The new secret is derived from the old one and the server's key, so
that two requests that renew at once, on two nodes as well, give the client the same one, and an answer
that was lost is given again.
"""

from enum import Enum
from typing import NamedTuple

from canister.codec import decode_value, encode_value
from canister.edits import Moment
from canister.life import NEVER
from canister.record import Record, Slot, Version, stamp_of
from canister.sessions.keys import KeyRing
from canister.sessions.token import SECRET, Draft, Token

GOOD = encode_value(None)
"""What the slot of a secret's hash holds; once it is replaced, the instant until which it is good."""


class SecretStatus(Enum):
    """What a session says of a token's secret."""

    GOOD = "good"
    REPLACED = "replaced, and good for a while"
    RETIRED = "retired"
    UNKNOWN = "unknown"


class RenewalTimes(NamedTuple):
    """When a secret is replaced, in microseconds.

    Attributes:
        after: the age at which it is, None for never.
        window: how long the old one stays good.
    """

    after: int | None
    window: int


def secret_status(record: Record, slot: Slot, now: int) -> SecretStatus:
    """Return what the session says of the secret whose hash names *slot*."""
    cell = record.cells.get(slot)
    if cell is None:
        return SecretStatus.UNKNOWN
    if cell.value == GOOD:
        return SecretStatus.GOOD
    if cell.value is not None and decode_value(cell.value) > now:
        return SecretStatus.REPLACED
    return SecretStatus.RETIRED


def due_from(token: Token, after: int | None) -> int:
    """Return the instant from which a token's secret is to be replaced; *after* None: never."""
    return NEVER if after is None else stamp_of(token.issued) + after


def successor(token: Token, ring: KeyRing) -> Draft:
    """Return the draft of the token that follows *token*."""
    return Draft(token.id, token.key.next_secret(token.id, token.secret), ring.current)


def successor_of(token: Token, ring: KeyRing, record: Record) -> Token | None:
    """Return the token that follows a replaced one; None if the session holds another successor."""
    follows = successor(token, ring)
    cell = record.cells.get(follows.slot)
    return None if cell is None or cell.value is None else follows.seal(cell.version)


class Renewal:
    """What a commit does to replace a token's secret, and the token that came of it.

    Args:
        token: the token to follow.
        ring: the keys; the new token is of the first.
        window: how many microseconds the old secret stays good.
    """

    def __init__(self, token: Token, ring: KeyRing, window: int) -> None:
        self._token = token
        self._follows = successor(token, ring)
        self._window = window
        self._issued: Version | None = None

    def apply(self, record: Record, moment: Moment) -> dict[Slot, bytes | None]:
        """Return what to write; nothing where another request has replaced the secret."""
        cell = record.cells.get(self._follows.slot)
        if cell is not None:
            self._issued = cell.version if cell.value is not None else None
            return {}
        if secret_status(record, self._token.slot, moment.now) is not SecretStatus.GOOD:
            self._issued = None
            return {}
        self._issued = moment.version
        return {self._follows.slot: GOOD, self._token.slot: encode_value(moment.now + self._window)}

    def token(self) -> Token | None:
        """Return the new token, after the commit; None if the session holds another successor."""
        return None if self._issued is None else self._follows.seal(self._issued)


def retire(record: Record) -> dict[Slot, bytes | None]:
    """Return what ends the replaced secrets, now that the new one has shown up."""
    return {
        slot: None
        for slot, cell in record.cells.items()
        if slot.startswith(SECRET) and cell.value is not None and cell.value != GOOD
    }
