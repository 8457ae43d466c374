"""The seen cookie, which a client carries beside its token: what it has seen of its session.

::

    1  format           16 each  one to three versions           16  MAC

The MAC binds it to the session, with the key that the token names: whoever can verify the token can
verify this. At most 65 bytes, 87 characters of base64url in one spelling. A value that is wrong in any
way counts as none; it is found so without a look at disk or network.
"""

import base64
import binascii
import hmac
from collections.abc import Iterable

from canister.freshness import MOST_ENTRIES, Seen, as_seen
from canister.record import VERSION_BYTES, Version
from canister.sessions.keys import MAC_BYTES
from canister.sessions.token import Token

FORMAT = b"\x01"
MOST_SHOWN = 4
"""How many values of one request are looked at: a browser holds more only under attack."""

_LONGEST = len(FORMAT) + MOST_ENTRIES * VERSION_BYTES + MAC_BYTES


def seal(seen: Seen, token: Token) -> str:
    """Return what the client of *token* has seen, as text for it to carry."""
    data = FORMAT + b"".join(seen)
    return _encode(data + token.key.mac_seen(token.id, data))


def read(values: Iterable[str], token: Token) -> Seen:
    """Return what the client of *token* has seen, by all values it shows; empty if none is good."""
    shown = list(values)[:MOST_SHOWN]
    return as_seen(version for value in shown for version in _open(value, token)) if shown else ()


def _open(text: str, token: Token) -> Seen:
    if len(text) > 2 * _LONGEST:
        return ()
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return ()
    body, mac = data[:-MAC_BYTES], data[-MAC_BYTES:]
    versions = body[len(FORMAT) :]
    if not body.startswith(FORMAT) or len(data) > _LONGEST or len(versions) % VERSION_BYTES:
        return ()
    if not hmac.compare_digest(token.key.mac_seen(token.id, body), mac) or text != _encode(data):
        return ()
    return tuple(Version(versions[i : i + VERSION_BYTES]) for i in range(0, len(versions), VERSION_BYTES))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
