"""Sessions for ASGI applications: Starlette, FastAPI and whatever else reads ``scope["session"]``."""

import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal, Protocol

from canister.canister import Canister
from canister.errors import AcknowledgementError, CannotTellError, ConfigError
from canister.node import Needed
from canister.sessions import CookieSettings, Outcome, Session, SessionManager

logger = logging.getLogger("canister.sessions")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS_LEAVE = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class Connection(Protocol):
    """What a framework's request or WebSocket has in common."""

    @property
    def scope(self) -> Scope:
        """The ASGI scope."""
        ...


def session_of(connection: Connection) -> Session:
    """Return the session of a request or WebSocket: ``request.session``, with its type.

    Args:
        connection: a `starlette.requests.Request`, a `starlette.websockets.WebSocket` or the like.

    Raises:
        ConfigError: `SessionMiddleware` is not in front of the application.
    """
    session = connection.scope.get("session")
    if not isinstance(session, Session):
        raise ConfigError(
            f"the scope's session is {type(session).__name__}: add canister.integrations.asgi."
            "SessionMiddleware, and put nothing in the session's place"
        )
    session.mark_accessed()
    return session


class SessionMiddleware:
    """Puts the session into ``scope["session"]`` and commits it when the response headers leave.

    What cannot be told, or is not acknowledged, is answered with 503 if the response has not begun.

    Args:
        app: the application.
        canister: where the sessions are stored.
        secret_keys: as for `SessionManager`.
        cookie: as for `SessionManager`.
        when_behind: as for `SessionManager`.
        acks: as for `SessionManager`.
    """

    def __init__(
        self,
        app: App,
        *,
        canister: Canister,
        secret_keys: str | Sequence[str] | None = None,
        cookie: CookieSettings | None = None,
        when_behind: Literal["serve", "refuse"] | None = None,
        acks: Needed = 1,
    ) -> None:
        self.app = app
        self.manager = SessionManager(
            canister, secret_keys=secret_keys, cookie=cookie, when_behind=when_behind, acks=acks
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
        manager = self.manager
        session = await manager.aload(
            manager.cookie.values_in(cookies), manager.seen_cookie.values_in(cookies)
        )
        scope["session"] = session
        response = _Response(manager, scope, session, send)
        try:
            await self.app(scope, receive, response.send)
        except (CannotTellError, AcknowledgementError) as error:
            if response.begun:
                raise
            await response.refuse(error)
        if not response.refused:
            session.adopt(scope.get("session"))
            manager.finish(session, f"{scope['type']} {scope['path']}")


class _Response:
    """The response of one connection: the commit comes before its headers."""

    def __init__(self, manager: SessionManager, scope: Scope, session: Session, send: Send) -> None:
        self.begun = False
        self.refused = False
        self._manager = manager
        self._scope = scope
        self._session = session
        self._send = send

    async def send(self, message: Message) -> None:
        """Send what the application sends."""
        if message["type"] in _HEADERS_LEAVE and not self.begun:
            self.begun = True  # before the commit: when it fails, the error page goes out as it is
            self._session.adopt(self._scope.get("session"))
            try:
                _add_headers(message, await self._manager.acommit(self._session))
            except AcknowledgementError as error:
                # What was written stands: the client is told its cookies, or a log-in would log it out.
                await self.refuse(error, self._session.state.outcome)
            except CannotTellError as error:
                await self.refuse(error)
        if not self.refused:
            await self._send(message)

    async def refuse(self, error: Exception, outcome: Outcome | None = None) -> None:
        """Answer with 503 in place of what the application sends."""
        self.refused = True
        logger.warning("%s %s was refused: %s", self._scope["type"], self._scope["path"], error)
        if self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
            return
        plain = (b"content-type", b"text/plain; charset=utf-8")
        headers = [plain, (b"retry-after", b"2"), (b"cache-control", b"no-store")]
        start: Message = {"type": "http.response.start", "status": 503, "headers": headers}
        if outcome is not None:
            _add_headers(start, outcome)
        await self._send(start)
        await self._send({"type": "http.response.body", "body": f"Service unavailable: {error}\n".encode()})


def _add_headers(message: Message, outcome: Outcome) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    added = outcome.headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in added]
    message["headers"] = headers
