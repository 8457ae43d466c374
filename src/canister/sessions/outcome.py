"""What a commit means for the response: headers, alike for every framework."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from canister.errors import (
    AcknowledgementError,
    CanisterError,
    CannotTellError,
    OldSystemError,
    SessionDestroyedError,
    SessionEndedError,
    SessionLockedError,
    StoreBusyError,
    StoreUnavailableError,
    TooManySessionsError,
)

logger = logging.getLogger("canister.sessions")

REFUSALS: Mapping[type[CanisterError], tuple[int, str]] = {
    CannotTellError: (503, "Service unavailable"),
    OldSystemError: (503, "Service unavailable"),
    AcknowledgementError: (503, "Service unavailable"),
    StoreBusyError: (503, "Service unavailable"),
    StoreUnavailableError: (503, "Service unavailable"),
    SessionDestroyedError: (409, "Conflict"),
    SessionEndedError: (409, "Conflict"),
    SessionLockedError: (403, "Forbidden"),
    TooManySessionsError: (403, "Forbidden"),
}
"""What a request is answered that no application answers for itself: status and reason, by error."""

REFUSAL_HEADERS = {"Retry-After": "2", "Cache-Control": "no-store"}
"""What goes with such an answer, whatever page the application shows."""

_PRIVATE = 'private, no-cache="Set-Cookie"'


class RefusalPage(NamedTuple):
    """What a request is answered that an error of `REFUSALS` ended; `REFUSAL_HEADERS` go with it.

    Attributes:
        status: the status.
        reason: its reason phrase.
        text: plain text.
    """

    status: int
    reason: str
    text: str

    @property
    def headers(self) -> dict[str, str]:
        """The headers, for frameworks that are given all of them."""
        return {"Content-Type": "text/plain; charset=utf-8", **REFUSAL_HEADERS}


def shown(where: str) -> str:
    """Return what names a request as the log may hold it: a path can carry line ends and terminal codes."""
    return where if where.isprintable() else where.encode("unicode_escape").decode("ascii")


def refuse(error: Exception, where: str) -> RefusalPage:
    """Log that a request was refused; return what it is answered.

    Args:
        error: one of `REFUSALS`.
        where: the request.
    """
    logger.warning("%s was refused: %s", shown(where), error)
    status, reason = next(REFUSALS[kind] for kind in REFUSALS if isinstance(error, kind))
    return RefusalPage(status, reason, f"{reason}: {error}\n")


class Outcome(NamedTuple):
    """What a commit has to tell the client.

    Attributes:
        set_cookie: the value of a Set-Cookie header, None to leave the client's cookie alone.
        vary: whether the response depends on the session.
        set_seen: the same for the second cookie, which tells any node what the client has seen.
    """

    set_cookie: str | None
    vary: bool
    set_seen: str | None = None

    @property
    def cookies(self) -> list[str]:
        """The values of the Set-Cookie headers to send."""
        return [cookie for cookie in (self.set_cookie, self.set_seen) if cookie is not None]

    def headers(self, present: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the headers to add to those *present*, so that no cache mixes up two clients."""
        present = list(present)
        added: list[tuple[str, str]] = []
        if (self.vary or self.cookies) and not _varies(present):
            added.append(("Vary", "Cookie"))
        if self.cookies:
            added += (("Set-Cookie", cookie) for cookie in self.cookies)
            caching = [value.lower() for name, value in present if name.lower() == "cache-control"]
            if not caching:
                added.append(("Cache-Control", _PRIVATE))
            elif any("public" in value for value in caching):
                logger.warning(
                    "a response that sets the session cookie has 'Cache-Control: public': shared caches may "
                    "hand the session to others; use private"
                )
        return added


def _varies(present: Sequence[tuple[str, str]]) -> bool:
    for name, value in present:
        if name.lower() == "vary":
            fields = [field.strip() for field in value.lower().split(",")]
            if "cookie" in fields or "*" in fields:
                return True
    return False
