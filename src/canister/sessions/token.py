"""The token that a client carries: what names its session and proves that it was given it.

::

    1  format           3  number of the key     16  session id       32  secret
    16  issue stamp: the version of the commit that stored the secret's hash
    16  MAC of all that

84 bytes are 112 characters of base64url with no padding and no spare bits, so a token has one spelling.
A wrong MAC is found without a look at disk or network.
"""

import base64
import binascii
import hmac
import secrets
from dataclasses import dataclass, field
from enum import Enum

from canister.codec import encode_id
from canister.record import META, VERSION_BYTES, Slot, Version
from canister.sessions.keys import MAC_BYTES, NUMBER_BYTES, Key, KeyRing

FORMAT = b"\x01"
ID_BYTES = 16
SECRET_BYTES = 32
LENGTH = 112

_KEY_AT = len(FORMAT)
_ID_AT = _KEY_AT + NUMBER_BYTES
_SECRET_AT = _ID_AT + ID_BYTES
_ISSUED_AT = _SECRET_AT + SECRET_BYTES
_MAC_AT = _ISSUED_AT + VERSION_BYTES

_TO_STANDARD = bytes.maketrans(b"-_+/", b"+/!!")
"""To the alphabet of the strict decoder; "+" and "/", which are not how we write, to what it refuses."""

SECRET = META + b"s"
"""Name space of the hashes of live secrets, one slot for each."""


class Refusal(Enum):
    """Why a text is not taken for a token of ours."""

    MALFORMED = "malformed"
    UNKNOWN_KEY = "made with a key that is not listed here"
    FORGED = "forged"
    SURPLUS = "beyond the number of cookies that are looked at"


@dataclass(slots=True)
class Draft:
    """A session's id and secret, before the commit that stores them. Not to be changed.

    Attributes:
        session: the session's encoded id, as the store knows it.
        slot: where the store says that the secret is good; holds a keyed hash of it.
    """

    id: bytes
    secret: bytes = field(repr=False)
    key: Key = field(repr=False)
    session: bytes = field(init=False, repr=False, compare=False)
    slot: Slot = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.session = encode_id(self.handle)
        self.slot = Slot(SECRET + self.key.hash_secret(self.id, self.secret))

    @property
    def handle(self) -> str:
        """The session's id as text, no secret: for logs, lists and the command line."""
        return self.id.hex()

    def seal(self, issued: Version) -> "Token":
        """Return the token, now that the commit has its version."""
        data = FORMAT + self.key.number + self.id + self.secret + issued
        text = base64.urlsafe_b64encode(data + self.key.mac(data)).decode()
        return Token(self.id, self.secret, self.key, issued, text)


@dataclass(slots=True, weakref_slot=True)
class Token(Draft):
    """A token whose MAC is right."""

    issued: Version = field(repr=False)
    text: str = field(repr=False)


def draft(ring: KeyRing) -> Draft:
    """Draw a session id and a secret."""
    return Draft(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES), ring.current)


def parse(text: str, ring: KeyRing) -> Token | Refusal:
    """Return the token that *text* is, or why it is none."""
    data = _decode(text)
    if data is None:
        return Refusal.MALFORMED
    key = ring.find(data[_KEY_AT:_ID_AT])
    if key is None:
        return Refusal.UNKNOWN_KEY
    if not hmac.compare_digest(key.mac(data[:_MAC_AT]), data[_MAC_AT:]):
        return Refusal.FORGED
    id, secret, issued = data[_ID_AT:_SECRET_AT], data[_SECRET_AT:_ISSUED_AT], data[_ISSUED_AT:_MAC_AT]
    return Token(id, secret, key, Version(issued), text)


def _decode(text: str) -> bytes | None:
    if len(text) != LENGTH or not text.isascii():
        return None
    try:
        data = binascii.a2b_base64(text.encode().translate(_TO_STANDARD), strict_mode=True)
    except binascii.Error:
        return None
    return data if len(data) == _MAC_AT + MAC_BYTES and data.startswith(FORMAT) else None
