"""What a commit means for the response: headers, alike for every framework."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

logger = logging.getLogger("canister.sessions")

_PRIVATE = 'private, no-cache="Set-Cookie"'


class Outcome(NamedTuple):
    """What a commit has to tell the client.

    Attributes:
        set_cookie: the value of a Set-Cookie header, None to leave the client's cookie alone.
        vary: whether the response depends on the session.
    """

    set_cookie: str | None
    vary: bool

    def headers(self, present: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to add to those *present*, so that no cache mixes up two clients."""
        present = [(name.lower(), value.lower()) for name, value in present]
        added: list[tuple[str, str]] = []
        if (self.vary or self.set_cookie is not None) and not _varies(present):
            added.append(("Vary", "Cookie"))
        if self.set_cookie is not None:
            added.append(("Set-Cookie", self.set_cookie))
            caching = [value for name, value in present if name == "cache-control"]
            if not caching:
                added.append(("Cache-Control", _PRIVATE))
            elif any("public" in value for value in caching):
                logger.warning(
                    "a response that sets the session cookie has 'Cache-Control: public': shared caches may "
                    "hand the session to others; use private"
                )
        return added


def _varies(present: list[tuple[str, str]]) -> bool:
    fields = [field.strip() for name, value in present if name == "vary" for field in value.split(",")]
    return "cookie" in fields or "*" in fields
