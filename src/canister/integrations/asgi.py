"""Sessions for ASGI applications: Starlette, FastAPI and whatever else reads ``scope["session"]``."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, Unpack

from canister.canister import Canister
from canister.errors import AcknowledgementError, ConfigError, StoreUnavailableError
from canister.integrations.streams import Hold
from canister.sessions import ManagerOptions, Outcome, Session, SessionManager
from canister.sessions.outcome import REFUSALS, refuse

logger = logging.getLogger("canister.sessions")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_RESPONSE = "canister.response"
HEADERS_LEAVE = ("http.response.start", "websocket.accept", "websocket.http.response.start")
"""The messages that carry response headers."""


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


def manager_of(connection: Connection) -> SessionManager:
    """Return the session manager in front of the application: its `users` lists and ends a user's sessions.

    Args:
        connection: the request or WebSocket.

    Raises:
        ConfigError: `SessionMiddleware` is not in front of the application.
    """
    return _response_of(connection).manager


class SessionMiddleware:
    """Puts the session into ``scope["session"]`` and commits it when the response headers leave.

    What cannot be told, or is not acknowledged, is answered with 503 if the response has not begun, the
    use of a locked session with 403.

    Args:
        app: the application.
        canister: where the sessions are stored.
        options: the settings of the `SessionManager`.
    """

    def __init__(self, app: App, *, canister: Canister, **options: Unpack[ManagerOptions]) -> None:
        self.app = app
        self.manager = SessionManager(canister, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        await serve(self.manager, self.app, scope, receive, send)


async def serve(manager: SessionManager, app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Handle one connection of an application; what `SessionMiddleware` does."""
    if scope["type"] not in ("http", "websocket"):
        await app(scope, receive, send)
        return
    cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    try:
        session = await manager.aopen(cookies, _host(scope))
    except StoreUnavailableError as error:
        await _Response(manager, scope, Session(), send).refuse(error)
        return
    scope["session"] = session
    response = scope[_RESPONSE] = _Response(manager, scope, session, send)
    hold = response.hold
    try:
        await app(scope, _released_by(hold, receive), response.send)
    except tuple(REFUSALS) as error:
        if response.begun:
            raise
        await response.refuse(error)
    except asyncio.CancelledError:
        if not hold.over or not hold.settle():
            raise
        await response.close()
    finally:
        hold.release()
    if not (response.refused or hold.over):
        session.adopt(scope.get("session"))
        manager.finish(session, f"{scope['type']} {scope['path']}")


def hold_session(connection: Connection, *, keep_alive: bool = False) -> None:
    """Close this stream within a second of the session's end, on whatever node that is caused.

    For server-sent events and long downloads; a WebSocket that was accepted with a stored session is
    held without it. A session that is not stored has no end, and holds nothing.

    Args:
        connection: the request or WebSocket.
        keep_alive: whether the stream counts as an access for as long as it lasts.

    Raises:
        ConfigError: `SessionMiddleware` is not in front of the application.
    """
    _response_of(connection).hold.ask(keep_alive=keep_alive)


class _Response:
    """The response of one connection: the commit comes before its headers."""

    def __init__(self, manager: SessionManager, scope: Scope, session: Session, send: Send) -> None:
        self.begun = False
        self.refused = False
        self.hold = Hold(manager)
        self.manager = manager
        self._scope = scope
        self._session = session
        self._send = send
        self._has_length = False

    async def send(self, message: Message) -> None:
        """Send what the application sends."""
        begins = message["type"] in HEADERS_LEAVE and not self.begun
        if begins:
            await self._begin(message)
        if self.refused:
            return
        await self._send(message)
        if begins:
            self.hold.committed(self._session, always=message["type"] == "websocket.accept")
        elif _is_last(message):
            self.hold.release()  # what runs in the background is no stream

    async def _begin(self, message: Message) -> None:
        """Commit, now that the headers leave."""
        self.begun = True  # before the commit: when it fails, the error page goes out as it is
        self._session.adopt(self._scope.get("session"))
        self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers") or ())
        try:
            _add_headers(message, await self.manager.acommit(self._session))
        except AcknowledgementError as error:
            # What was written stands: the client is told its cookies, or a log-in would log it out.
            await self.refuse(error, self._session.state.outcome)
        except tuple(REFUSALS) as error:
            await self.refuse(error)

    async def refuse(self, error: Exception, outcome: Outcome | None = None) -> None:
        """Answer with an error in place of what the application sends."""
        self.refused = True
        page = refuse(error, f"{self._scope['type']} {self._scope['path']}")
        if self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
            return
        headers = [(name.lower().encode(), value.encode()) for name, value in page.headers.items()]
        start: Message = {"type": "http.response.start", "status": page.status, "headers": headers}
        if outcome is not None:
            _add_headers(start, outcome)
        await self._send(start)
        await self._send({"type": "http.response.body", "body": page.text.encode()})

    async def close(self) -> None:
        """End the stream of a session that is over; the client is to ask anew."""
        logger.info("%s %s ends with its session", self._scope["type"], self._scope["path"])
        with contextlib.suppress(OSError):  # the client is gone
            if self._scope["type"] == "websocket":
                await self._send({"type": "websocket.close", "code": 1008, "reason": "the session is over"})
            elif not self._has_length:  # or the server cuts the connection: the client must see it is short
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _response_of(connection: Connection) -> _Response:
    response = connection.scope.get(_RESPONSE)
    if not isinstance(response, _Response):
        raise ConfigError("add canister.integrations.asgi.SessionMiddleware in front of the application")
    return response


def _is_last(message: Message) -> bool:
    if message["type"] in ("http.response.body", "websocket.http.response.body"):
        return not message.get("more_body", False)
    return bool(message["type"] == "websocket.close")


def _released_by(hold: Hold, receive: Receive) -> Receive:
    """Return *receive*, which gives the hold up when the client has gone."""

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            hold.release()
        return message

    return receiving


def _add_headers(message: Message, outcome: Outcome) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    if not outcome.cookies:
        if not outcome.vary:
            return
        # What most responses are, without a detour over text.
        if not any(name.lower() == b"vary" for name, _ in headers):
            message["headers"] = [*headers, (b"vary", b"Cookie")]
            return
    added = outcome.headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in added]
    message["headers"] = headers


def _host(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
