"""Sessions for ASGI applications: Starlette, FastAPI and whatever else reads ``scope["session"]``."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol, Unpack

from canister.canister import Canister
from canister.errors import ConfigError
from canister.integrations.streams import Hold
from canister.sessions import ManagerOptions, Outcome, Session, SessionManager
from canister.sessions.outcome import REFUSALS, refuse
from canister.texts import shown

logger = logging.getLogger("canister.sessions")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Final = Callable[[Scope, Session], Mapping[str, Any] | None]
"""Returns as a mapping what the application left in the session's place."""

_HOLD = "canister.hold"
HEADERS_LEAVE = ("http.response.start", "websocket.accept", "websocket.http.response.start")
"""The messages that carry response headers."""
_BODY = ("http.response.body", "websocket.http.response.body")
_REFUSALS = tuple(REFUSALS)


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
    return _hold_of(connection).manager


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


async def serve(
    manager: SessionManager,
    app: App,
    scope: Scope,
    receive: Receive,
    send: Send,
    final: Final | None = None,
) -> None:
    """Handle one connection of an application; what `SessionMiddleware` does.

    Args:
        manager: loads and commits.
        app: the application.
        scope: as ASGI has it, like *receive* and *send*.
        receive: likewise.
        send: likewise.
        final: where the application may leave what is no mapping in the session's place.

    Raises:
        ConfigError: the server runs the application on something other than asyncio.
    """
    if scope["type"] not in ("http", "websocket"):
        await app(scope, receive, send)
        return
    host = _host(scope) if manager.cookie.plain_http else ""
    outer_hold, outer_session = scope.get(_HOLD), scope.get("session")
    hold = Hold(manager)
    session = scope["session"] = await manager.aopen(_cookies(scope), host)
    scope[_HOLD] = hold
    response = _Response(hold, scope, session, send, final)
    try:
        await app(scope, receive if scope["type"] == "http" else _released_by(hold, receive), response.send)
    except _REFUSALS as error:
        if response.begun:
            raise
        await response.refuse(error)
    except asyncio.CancelledError:
        if not hold.over or not hold.settle():
            raise
        await response.close()
    finally:
        hold.release()
        left = scope.get("session")
        if outer_hold is not None:  # a mounted application shares the scope with the one around it
            scope[_HOLD], scope["session"] = outer_hold, outer_session
    if not (response.refused or hold.over):
        session.adopt(left)
        manager.finish(session, scope["type"], scope["path"])


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
    _hold_of(connection).ask(keep_alive=keep_alive)


class _Response:
    """The response of one connection: the commit comes before its headers."""

    begun = False
    refused = False

    def __init__(self, hold: Hold, scope: Scope, session: Session, send: Send, final: Final | None) -> None:
        self._hold = hold
        self._scope = scope
        self._session = session
        self._send = send
        self._final = final
        self._start: Message = {}

    async def send(self, message: Message) -> None:
        """Send what the application sends."""
        kind = message["type"]
        if not self.begun and kind in HEADERS_LEAVE:
            await self._begin(message)
        elif not self.refused:
            await self._send(message)
            if kind == "websocket.close" or (kind in _BODY and not message.get("more_body")):
                self._hold.release()  # what runs in the background is no stream

    async def _begin(self, message: Message) -> None:
        """Commit, and let the headers leave."""
        self.begun = True  # before the commit: when it fails, the error page goes out as it is
        self._start = message
        headers = message.get("headers") or ()
        if not isinstance(headers, (list, tuple)):
            message["headers"] = list(headers)  # ASGI lets it be a generator, and it is read more than once
        session = self._session
        try:
            if self._scope.get(_HOLD) is self._hold:  # or what is there is a mounted application's
                self._adopt()
            outcome = await self._hold.manager.acommit(session)
        except _REFUSALS as error:
            await self.refuse(error)
            return
        _add_headers(message, outcome)
        await self._send(message)
        self._hold.committed(session, always=message["type"] == "websocket.accept")

    def _adopt(self) -> None:
        """Take over what the application left in the session's place."""
        if self._final is not None:
            self._scope["session"] = self._final(self._scope, self._session)
        if self._scope.get("session") is not self._session:
            self._session.adopt(self._scope.get("session"))

    async def refuse(self, error: Exception) -> None:
        """Answer with an error in place of what the application sends."""
        self.refused = True
        page = refuse(error, f"{self._scope['type']} {self._scope['path']}")
        kind = "http.response"
        if self._scope["type"] == "websocket":
            kind = "websocket.http.response"
            if kind not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
                return
        headers = [(name.lower().encode(), value.encode()) for name, value in page.headers.items()]
        start: Message = {"type": f"{kind}.start", "status": page.status, "headers": headers}
        # What was written stands: the client is told its cookies, or a log-in would log it out.
        _add_headers(start, self._hold.manager.discard(self._session))
        await self._send(start)
        await self._send({"type": f"{kind}.body", "body": page.text.encode()})

    async def close(self) -> None:
        """End the stream of a session that is over; the client is to ask anew."""
        logger.info("%s %s ends with its session", self._scope["type"], shown(self._scope["path"]))
        with contextlib.suppress(OSError):  # the client is gone
            if self._scope["type"] == "websocket":
                await self._send({"type": "websocket.close", "code": 1008, "reason": "the session is over"})
            elif not _has(self._start, b"content-length"):  # or the server cuts it: the client must see that
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _hold_of(connection: Connection) -> Hold:
    hold = connection.scope.get(_HOLD)
    if not isinstance(hold, Hold):
        raise ConfigError("add canister.integrations.asgi.SessionMiddleware in front of the application")
    return hold


def _released_by(hold: Hold, receive: Receive) -> Receive:
    """Return *receive*, which gives the hold up when the client has gone."""

    async def receiving() -> Message:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            hold.release()
        return message

    return receiving


def _add_headers(message: Message, outcome: Outcome) -> None:
    if outcome.set_cookie is None and outcome.set_seen is None:
        if not outcome.vary:
            return
        if not _has(message, b"vary"):  # what most responses are, without a detour over text
            message["headers"] = [*(message.get("headers") or ()), (b"vary", b"Cookie")]
            return
    headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    added = outcome.headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    if any(name == "Vary" for name, _ in added):
        headers = [header for header in headers if header[0].lower() != b"vary"]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in added]
    message["headers"] = headers


def _has(message: Message, header: bytes) -> bool:
    for name, _ in message.get("headers") or ():  # noqa: SIM110 - any() costs more with each response
        if name.lower() == header:
            return True
    return False


def _cookies(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]


def _host(scope: Scope) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
