"""What a commit means for the response: headers, alike for every framework."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

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
from canister.texts import shown

logger = logging.getLogger("canister.sessions")


class RefusalPage(NamedTuple):
    """What a request is answered that an error ended; `REFUSAL_HEADERS` go with it.

    Attributes:
        status: the status.
        reason: its reason phrase.
        why: what happened, as anybody may read it: addresses and other systems' words are for the log.
    """

    status: int
    reason: str
    why: str

    @property
    def text(self) -> str:
        """Plain text."""
        return f"{self.reason}: {self.why}\n"

    @property
    def headers(self) -> dict[str, str]:
        """The headers, for frameworks that are given all of them."""
        return {"Content-Type": "text/plain; charset=utf-8", **REFUSAL_HEADERS}


def _unavailable(why: str) -> RefusalPage:
    return RefusalPage(503, "Service unavailable", f"{why}; try again")


REFUSALS: Mapping[type[CanisterError], RefusalPage] = {
    CannotTellError: _unavailable("it cannot be told which session this is; its cookie was left as it is"),
    OldSystemError: _unavailable("the sessions of before cannot be looked up"),
    AcknowledgementError: _unavailable(
        "fewer members than wanted hold what was written; it stands on this node and spreads"
    ),
    StoreBusyError: _unavailable("too many write at once"),
    StoreUnavailableError: _unavailable("the sessions cannot be reached; what was written may not be stored"),
    SessionDestroyedError: RefusalPage(409, "Conflict", "another request destroyed the session"),
    SessionEndedError: RefusalPage(409, "Conflict", "the session ended while the request ran"),
    SessionLockedError: RefusalPage(403, "Forbidden", "the session was idle too long, and is locked"),
    TooManySessionsError: RefusalPage(403, "Forbidden", "the user has as many sessions as are allowed"),
}
"""What a request is answered that no application answers for itself, by error."""

REFUSAL_HEADERS = {"Retry-After": "2", "Cache-Control": "no-store"}
"""What goes with such an answer, whatever page the application shows."""

_PRIVATE = 'private, no-cache="Set-Cookie"'
_UNSHARED = ("private", "no-store", "no-cache")
"""What in Cache-Control keeps shared caches from handing a response on as it is."""


def refuse(error: Exception, where: str) -> RefusalPage:
    """Log that a request was refused; return what it is answered.

    Args:
        error: one of `REFUSALS`.
        where: the request.
    """
    logger.warning("%s was refused: %s", shown(where), error)
    return next(REFUSALS[kind] for kind in REFUSALS if isinstance(error, kind))


class Headers(Protocol):
    """What the headers of frameworks have in common."""

    def add(self, name: str, value: str, /) -> object:
        """Add a line."""
        ...

    def __setitem__(self, name: str, value: str, /) -> object:
        """Put a line in the place of all of that name."""
        ...


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
        """Return the headers to add to those *present*, so that no cache mixes up two clients.

        Vary, if it is among them, says what those present say as well, and takes their place.
        """
        present = list(present)
        added: list[tuple[str, str]] = []
        vary = _vary(present) if self.vary or self.cookies else None
        if vary is not None:
            added.append(("Vary", vary))
        if self.cookies:
            added += (("Set-Cookie", cookie) for cookie in self.cookies)
            caching = [value.lower() for name, value in present if name.lower() == "cache-control"]
            if not caching:
                added.append(("Cache-Control", _PRIVATE))
            elif not any(word in value.lower() for value in caching for word in _UNSHARED):
                logger.warning(
                    "a response that sets the session cookie has 'Cache-Control: %s': shared caches may "
                    "hand the session to others; add private",
                    shown(", ".join(caching)),
                )
        return added

    def all_headers(self, present: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those *present*, and what `headers` adds to them."""
        added = self.headers(present)
        varies = any(name == "Vary" for name, _ in added)
        return [*(header for header in present if not (varies and header[0].lower() == "vary")), *added]

    def put_into(self, headers: Headers, present: Iterable[tuple[str, str]]) -> None:
        """Put what `headers` adds to those *present* into a framework's *headers*."""
        for name, value in self.headers(present):
            if name == "Set-Cookie":
                headers.add(name, value)
            else:
                headers[name] = value


def _vary(present: Sequence[tuple[str, str]]) -> str | None:
    """Return what Vary is to say, None where it says enough."""
    given = [value for name, value in present if name.lower() == "vary" and value.strip()]
    fields = {field.strip() for value in given for field in value.lower().split(",")}
    return None if fields & {"cookie", "*"} else ", ".join([*given, "Cookie"])
