"""Sessions for Quart: ``CanisterSessions(app, canister=canister)``, and ``quart.session`` is stored here."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Unpack, cast

from quart import Quart, Response, Websocket, current_app, has_request_context, request, websocket
from quart.sessions import SessionInterface, SessionMixin
from quart.wrappers.base import BaseRequestWebsocket
from werkzeug.datastructures import Headers
from werkzeug.wrappers import Response as WerkzeugResponse

from canister.canister import Canister
from canister.errors import CanisterError
from canister.integrations.flask_parts import (
    EXTENSION,
    FlaskSession,
    handler_of,
    manager_for,
    refusal_of,
)
from canister.sessions import Lease, ManagerOptions, Outcome, SessionManager
from canister.sessions.outcome import REFUSAL_HEADERS, REFUSALS

_SESSION = "canister.session"
_LEASE = "canister.lease"
_CLOSING = "canister.closing"


class CanisterSessions:
    """Stores the sessions of Quart applications.

    Args:
        app: the application; None to call `init_app` later.
        canister: where the sessions are stored; None: ``CANISTER_PATH`` in the application's
            configuration says where, and ``CANISTER_...`` whatever else `Canister` takes.
        options: the settings of the `SessionManager`; they too may stand in the configuration.
    """

    def __init__(
        self,
        app: Quart | None = None,
        *,
        canister: Canister | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self._canister = canister
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Quart) -> None:
        """Store the sessions of one application.

        Raises:
            ConfigError: a setting is wrong.
        """
        manager = manager_for(app.config, self._canister, self._options)
        app.extensions[EXTENSION] = manager
        interface = CanisterSessionInterface(manager)
        app.session_interface = cast("Any", interface)  # Quart's annotation is that of its default
        app.teardown_request(interface.finish)
        app.teardown_websocket(interface.finish)
        for kind in REFUSALS:
            app.error_handler_spec[None][None].setdefault(kind, _refuse)

    @property
    def manager(self) -> SessionManager:
        """The session manager of the current application."""
        return cast("SessionManager", current_app.extensions[EXTENSION])


class CanisterSessionInterface(SessionInterface):
    """What Quart calls to open and save a session.

    Args:
        manager: loads and commits.
    """

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager

    def get_cookie_name(self, app: Quart) -> str:
        """Return the name of the session cookie."""
        return self.manager.cookie.name

    async def open_session(self, app: Quart, request: BaseRequestWebsocket) -> SessionMixin:
        """Return the session that the cookies of a request or WebSocket name, or a new one."""
        manager = self.manager
        headers = request.headers
        session = cast(
            "FlaskSession", await manager.aopen(headers.getlist("Cookie"), headers.get("Host", ""))
        )
        session.lifetime = min(app.permanent_session_lifetime, manager.canister.config.absolute_lifetime)
        scope = cast("dict[str, object]", request.scope)
        scope[_SESSION] = session
        if isinstance(request, Websocket):
            self._commit_at_accept(app, request, session)
        return cast("SessionMixin", session)

    async def save_session(
        self, app: Quart, session: SessionMixin, response: Response | WerkzeugResponse | None
    ) -> None:
        """Commit the session; what the client has to be told goes into the response's headers.

        There is no response at the end of a WebSocket: what it changed is stored.
        """
        own = cast("FlaskSession | None", session)
        if own is None:  # it could not be opened
            return
        if response is None:
            own.state.outcome = own.state.outcome or Outcome(None, vary=False)  # no header can follow
            await self.manager.astore(own)
            return
        if not own.saved:  # once: another time it is the page of what failed here
            own.saved = True
            own.settle(app.config)
            try:
                await self.manager.acommit(own)
            except tuple(REFUSALS) as error:
                await _replace(response, await app.make_response(await app.handle_user_exception(error)))
        outcome = own.state.outcome  # after a failure too: what was stored before stands
        if outcome is not None:
            outcome.put_into(response.headers, response.headers)

    def regenerate(self, session: SessionMixin) -> None:
        """Go on under a new id, as `Session.regenerate` does; the name Flask-Session gave it."""
        cast("FlaskSession", session).regenerate()

    def finish(self, _error: BaseException | None) -> None:
        """Say so if the session was changed after it had been saved; Quart calls it at a request's end."""
        current: BaseRequestWebsocket = request if has_request_context() else websocket
        scope = cast("dict[str, object]", current.scope)
        lease = scope.pop(_LEASE, None)
        if isinstance(lease, Lease):
            lease.close()
        session = scope.get(_SESSION)
        if isinstance(session, FlaskSession) and session.saved:
            self.manager.finish(session, f"{current.method} {current.path}")

    def _commit_at_accept(self, app: Quart, websocket: Websocket, session: FlaskSession) -> None:
        """Commit when the WebSocket is accepted, for its headers leave then, and hold the session."""
        accept = cast("Callable[[Headers, str | None], Awaitable[None]]", websocket.accept)
        scope = cast("dict[str, object]", websocket.scope)
        loop = asyncio.get_running_loop()

        async def committing(
            headers: Mapping[str, str] | None = None, subprotocol: str | None = None
        ) -> None:
            leaving = Headers(headers)
            if not session.saved:
                session.saved = True
                session.settle(app.config)
                (await self.manager.acommit(session)).put_into(leaving, leaving)
                scope[_LEASE] = self.manager.hold(session, ended)
            await accept(leaving, subprotocol)

        def close() -> None:
            scope[_CLOSING] = loop.create_task(websocket.close(1008, "the session is over"))

        def ended() -> None:  # in another thread
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the connection with it
                loop.call_soon_threadsafe(close)

        cast("Any", websocket).accept = committing


async def _refuse(error: CanisterError) -> Any:
    """Answer what the application has no handler for, with its page for the status if it has one."""
    own = handler_of(error, current_app.error_handler_spec[None][None])
    if own is not None:
        return await current_app.ensure_async(own)(error)
    current: BaseRequestWebsocket = request if has_request_context() else websocket
    refusal = refusal_of(error, current.path)
    response = await current_app.make_response(await current_app.handle_http_exception(refusal))
    refused = cast("dict[str, object]", current.scope).get(_SESSION)
    if isinstance(refused, FlaskSession):
        refused.give_up()
    response.headers.update(REFUSAL_HEADERS)
    return response


async def _replace(response: Response | WerkzeugResponse, other: Response | WerkzeugResponse) -> None:
    """Put another response in the place of one that the framework is about to send."""
    response.set_data(
        other.get_data() if isinstance(other, WerkzeugResponse) else await other.get_data(as_text=False)
    )
    response.status, response.headers = other.status, other.headers
