"""Tokens that a session's forms carry, to tell them from forms of other sites.

The session holds one secret; each form gets it masked, so that compressing it together with what an
attacker chooses gives nothing away (Gluck, Harris and Prado, "BREACH", 2013).
"""

import hmac
import secrets

from canister.record import META, Record, Slot
from canister.sessions.token import Token

CSRF = Slot(META + b"csrf")
"""Where the session keeps the secret."""
SECRET_BYTES = 32


def new_secret(token: Token | None) -> bytes:
    """Return the first secret of the session that *token* opens, of a new session if it is None.

    Derived, not drawn, where requests that are answered at once would each store another one.
    """
    return secrets.token_bytes(SECRET_BYTES) if token is None else token.key.csrf_secret(token.id)


def secret_in(record: Record | None) -> bytes | None:
    """Return a stored session's secret."""
    cell = record.cells.get(CSRF) if record is not None else None
    return None if cell is None else cell.value


def mask(secret: bytes) -> str:
    """Return a form's token; another text each time."""
    pad = secrets.token_bytes(SECRET_BYTES)
    return (pad + _xor(pad, secret)).hex()


def matches(text: object, secret: bytes | None) -> bool:
    """Tell whether *text* is a token made of *secret*; compares in constant time."""
    if not isinstance(text, str):
        return False  # what a form without the field gives
    try:
        data = bytes.fromhex(text)
    except ValueError:
        return False
    if secret is None or len(data) != 2 * SECRET_BYTES:
        return False
    return hmac.compare_digest(_xor(data[:SECRET_BYTES], data[SECRET_BYTES:]), secret)


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
