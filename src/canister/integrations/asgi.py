"""Sessions for ASGI applications: Starlette, FastAPI and whatever else reads ``scope["session"]``."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Literal

from canister.canister import Canister
from canister.errors import CannotTellError
from canister.sessions import CookieSettings, Outcome, SessionManager

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS_LEAVE = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class SessionMiddleware:
    """Puts the session into ``scope["session"]`` and commits it when the response headers leave.

    Args:
        app: the application.
        canister: where the sessions are stored.
        secret_keys: as for `SessionManager`.
        cookie: as for `SessionManager`.
        when_behind: as for `SessionManager`.
    """

    def __init__(
        self,
        app: App,
        *,
        canister: Canister,
        secret_keys: str | Sequence[str] | None = None,
        cookie: CookieSettings | None = None,
        when_behind: Literal["serve", "refuse"] | None = None,
    ) -> None:
        self.app = app
        self.manager = SessionManager(
            canister, secret_keys=secret_keys, cookie=cookie, when_behind=when_behind
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        cookies = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
        try:
            session = await self.manager.aload(self.manager.cookie.values_in(cookies))
        except CannotTellError as error:
            await _refuse(scope, send, error)
            return
        scope["session"] = session
        begun = refused = False

        async def commit_and_send(message: Message) -> None:
            nonlocal begun, refused
            if message["type"] in _HEADERS_LEAVE and not begun:
                begun = True  # before the commit: when it fails, the error page goes out as it is
                session.adopt(scope.get("session"))
                try:
                    _add_headers(message, await self.manager.acommit(session))
                except CannotTellError as error:
                    refused = True
                    await _refuse(scope, send, error)
            if not refused:
                await send(message)

        await self.app(scope, receive, commit_and_send)
        if not refused:
            session.adopt(scope.get("session"))
            self.manager.finish(session, f"{scope['type']} {scope['path']}")


def _add_headers(message: Message, outcome: Outcome) -> None:
    headers: list[tuple[bytes, bytes]] = list(message.get("headers") or ())
    added = outcome.headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in added]
    message["headers"] = headers


async def _refuse(scope: Scope, send: Send, error: CannotTellError) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
        return
    plain = (b"content-type", b"text/plain; charset=utf-8")
    headers = [plain, (b"retry-after", b"2"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": f"Service unavailable: {error}\n".encode()})
