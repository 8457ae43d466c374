"""Sessions that Starlette or FastAPI kept in signed cookies, with Starlette's ``SessionMiddleware``."""

import json
from base64 import b64decode
from datetime import timedelta
from typing import Any, cast

from itsdangerous import BadSignature, TimestampSigner

from canister.edits import LONGEST
from canister.sessions.movein import OldSession


class StarletteCookies:
    """The sessions in the signed cookies of Starlette's ``SessionMiddleware``.

    Args:
        secret_key: as the middleware was given it.
        session_cookie: likewise, the name of the cookie.
        max_age: likewise, for how many seconds a cookie is good; None: for ever, which means 400 days here.
        user_key: the key under which a session has the id of who is logged in; None: under none.
    """

    def __init__(
        self,
        secret_key: object,
        *,
        session_cookie: str = "session",
        max_age: int | None = 14 * 24 * 3600,
        user_key: str | None = None,
    ) -> None:
        self.cookie_name = session_cookie
        self._signer = TimestampSigner(str(secret_key))
        self._max_age = max_age
        self._lifetime = timedelta(microseconds=LONGEST) if max_age is None else timedelta(seconds=max_age)
        self._user_key = user_key

    def find(self, value: str) -> OldSession | None:
        """Return the session that a cookie's value holds; see `OldSystem.find`."""
        try:
            text, signed = self._signer.unsign(value, max_age=self._max_age, return_timestamp=True)
        except BadSignature:
            return None
        data = cast("dict[str, Any]", json.loads(b64decode(text)))
        user = None if self._user_key is None else data.get(self._user_key)
        return OldSession(value, data, signed + self._lifetime, signed, user)
