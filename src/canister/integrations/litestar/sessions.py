"""Sessions of a Litestar application, in its HTTP and WebSocket scopes."""

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn, Unpack, cast

from litestar.connection import ASGIConnection
from litestar.datastructures import MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware.base import DefineMiddleware
from litestar.middleware.session.base import BaseBackendConfig, BaseSessionBackend, SessionMiddleware
from litestar.types import ASGIApp, Empty, Message, Receive, Scope, Scopes, Send
from litestar.utils.scope.state import ScopeState

from canister.canister import Canister
from canister.errors import CannotTellError
from canister.integrations import asgi
from canister.sessions import ManagerOptions, Session, SessionManager
from canister.sessions.outcome import REFUSALS

Connection = ASGIConnection[Any, Any, Any, Any]


def session_of(connection: Connection) -> Session:
    """Return the session of a request or WebSocket: ``request.session``, with its type.

    Raises:
        ConfigError: `CanisterSessionConfig.middleware` is not in front of the handler.
    """
    return asgi.session_of(cast("asgi.Connection", connection))


class CanisterSessionBackend(BaseSessionBackend["CanisterSessionConfig"]):
    """Loads and commits sessions; what Litestar's test clients set and get session data by."""

    def get_session_id(self, connection: Connection) -> str | None:
        """Return the handle of the connection's session, no secret; None before it is stored."""
        session: Any = cast("asgi.Scope", connection.scope).get("session")
        return session.handle if isinstance(session, Session) else None

    async def load_from_connection(self, connection: Connection) -> dict[str, Any]:
        """Return the session that the connection's cookies name, or a new one."""
        manager, cookies = self.config.manager, connection.cookies
        names = (manager.cookie.name, manager.seen_cookie.name)
        return await manager.aload(*([cookies[name]] if name in cookies else [] for name in names))

    async def store_in_message(self, scope_session: Any, message: Message, connection: Connection) -> None:
        """Put *scope_session* in the place of what the connection's session holds, and commit it."""
        session = cast("Session", await self.load_from_connection(connection))
        scope = cast("dict[str, Any]", connection.scope)
        scope["session"] = scope_session
        session.adopt(_final(scope, session))
        outcome = await self.config.manager.acommit(session)
        headers = MutableScopeHeaders.from_message(message)
        outcome.put_into(
            headers, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.headers]
        )

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of an application."""
        outside, inside = cast("asgi.Scope", scope), _Scope(cast("asgi.Scope", scope))

        async def translated(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
            session: Session = scope["session"]
            inside.asked = False
            state = ScopeState.from_scope(cast("Scope", scope))
            state.session_id = session.handle
            state.exception_handlers = _with_refusals(state.exception_handlers)
            await app(cast("Scope", scope), cast("Receive", receive), cast("Send", send))

        def final(scope: asgi.Scope, session: Session) -> Mapping[str, Any] | None:
            outside.update(inside)
            if inside.asked and not session.state.varies:
                session.mark_accessed()  # whoever used no method of it has returned the session itself
                session.mark_active()
            return _final(scope, session)

        receiving, sending = cast("asgi.Receive", receive), cast("asgi.Send", send)
        try:
            await asgi.serve(self.config.manager, translated, inside, receiving, sending, final)
        finally:
            outside.update(inside)


class _Scope(dict[str, Any]):
    """The scope that the application gets: it notes whether the session was asked for.

    The C code by which Litestar encodes what a handler returns looks past the methods of a session that
    note an access.

    Args:
        scope: what is around the session middleware has.

    Attributes:
        asked: whether it was.
    """

    __slots__ = ("asked",)

    def __init__(self, scope: asgi.Scope) -> None:
        super().__init__(scope)
        self.asked = False

    def __getitem__(self, key: str) -> Any:
        if key == "session":
            self.asked = True
        return super().__getitem__(key)


class CanisterSessionMiddleware(SessionMiddleware[CanisterSessionBackend]):
    """Puts the session into the scope and commits it when the response headers leave."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        await self.backend.serve(self.app, scope, receive, send)


class CanisterSessionConfig(BaseBackendConfig[CanisterSessionBackend]):
    """Sessions for ``Litestar(middleware=[config.middleware])``, `SessionAuth` and the test clients.

    Args:
        canister: where the sessions are stored.
        exclude: patterns of paths that have no session.
        exclude_opt_key: name of the option by which a handler has no session.
        scopes: HTTP, WebSocket, or both.
        options: the settings of the `SessionManager`.

    Attributes:
        manager: the session manager, one for all handlers.
    """

    _backend_class: ClassVar[type[CanisterSessionBackend]] = CanisterSessionBackend  # type: ignore[misc]

    def __init__(
        self,
        canister: Canister,
        *,
        exclude: str | list[str] | None = None,
        exclude_opt_key: str = "skip_session",
        scopes: "Scopes | None" = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self.manager = SessionManager(canister, **options)
        self.exclude = exclude
        self.exclude_opt_key = exclude_opt_key
        self.scopes = {ScopeType.HTTP, ScopeType.WEBSOCKET} if scopes is None else scopes
        cookie = self.manager.cookie
        self.key, self.path, self.domain = cookie.name, cookie.path, cookie.domain
        self.secure, self.httponly, self.samesite = cookie.secure, cookie.httponly, cookie.samesite
        self.max_age = int((cookie.max_age or canister.config.absolute_lifetime).total_seconds())

    @property
    def middleware(self) -> DefineMiddleware:
        """What goes into the list of middleware of an application, a router or a handler."""
        return DefineMiddleware(CanisterSessionMiddleware, backend=CanisterSessionBackend(self))


def _final(scope: asgi.Scope, session: Session) -> Mapping[str, Any] | None:
    """Return what the application left in the session's place, as a mapping.

    Raises:
        CannotTellError: the session was given up for want of a user, and this node cannot tell.
        CanisterError: the session was ended, and it cannot be told which one it is.
    """
    left: Any = scope["session"]
    if left is Empty:
        _emptied(session, by_application=ScopeState.from_scope(cast("Scope", scope)).session_id is Empty)
        return session
    if left is None or isinstance(left, Mapping):
        return cast("Mapping[str, Any] | None", left)
    data = BaseSessionBackend.serialize_data(left, cast("Scope", scope))
    return BaseSessionBackend.deserialize_data(data)


def _emptied(session: Session, *, by_application: bool) -> None:
    if by_application:  # ``clear_session()``: a log-out
        session.destroy()
    elif session.cannot_tell:  # `SessionAuth` found no user: here that does not mean that there is none
        raise CannotTellError("this node cannot tell whether the client has a session; try again")
    elif session or session.user is not None:
        session.clear()


def _with_refusals(handlers: Any) -> dict[Any, Any]:
    """Return the handlers of a request, with those that let pass what `asgi.serve` answers."""
    own: dict[Any, Any] = dict(handlers) if handlers is not Empty else {}
    left = [kind for kind in REFUSALS if not any(base in own for base in kind.__mro__)]
    return {**own, **dict.fromkeys(left, _raise)}


def _raise(_request: object, error: Exception) -> NoReturn:
    raise error
