"""Sessions for Flask: ``CanisterSessions(app, canister=canister)``, and ``flask.session`` is stored here."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Unpack, cast

from flask import Flask, Request, Response, current_app, request
from flask.sessions import SessionInterface, SessionMixin

from canister.canister import Canister
from canister.errors import CanisterError
from canister.integrations import flask_login
from canister.integrations.flask_parts import (
    EXTENSION,
    FlaskSession,
    handler_of,
    manager_for,
    refusal_of,
)
from canister.sessions import ManagerOptions, SessionManager
from canister.sessions.outcome import REFUSAL_HEADERS, REFUSALS

_SESSION = "canister.session"
_PRESERVES = "werkzeug.debug.preserve_context"
"""What keeps a request's context beyond the response: the test client, in ``with client:``."""
_REFUSALS = tuple(REFUSALS)


class CanisterSessions:
    """Stores the sessions of Flask applications.

    Args:
        app: the application; None to call `init_app` later.
        canister: where the sessions are stored; None: ``CANISTER_PATH`` in the application's
            configuration says where, and ``CANISTER_...`` whatever else `Canister` takes.
        options: the settings of the `SessionManager`; they too may stand in the configuration.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        canister: Canister | None = None,
        **options: Unpack[ManagerOptions],
    ) -> None:
        self._canister = canister
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Store the sessions of one application.

        Raises:
            ConfigError: a setting is wrong.
        """
        manager = manager_for(app.config, self._canister, self._options)
        app.extensions[EXTENSION] = manager
        app.session_interface = CanisterSessionInterface(manager)
        app.teardown_request(app.session_interface.finish)
        for kind in REFUSALS:
            app.error_handler_spec[None][None].setdefault(kind, _refuse)
        flask_login.connect(app)

    @property
    def manager(self) -> SessionManager:
        """The session manager of the current application."""
        return cast("SessionManager", current_app.extensions[EXTENSION])


class CanisterSessionInterface(SessionInterface):
    """What Flask calls to open and save a session.

    Args:
        manager: loads and commits.
    """

    def __init__(self, manager: SessionManager) -> None:
        self.manager = manager

    def get_cookie_name(self, app: Flask) -> str:
        """Return the name of the session cookie."""
        return self.manager.cookie.name

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Return the session that the request's cookies name, or a new one."""
        manager, environ = self.manager, request.environ
        opened = manager.open([environ.get("HTTP_COOKIE", "")], environ.get("HTTP_HOST", ""))
        session = environ[_SESSION] = cast("FlaskSession", opened)
        session.lifetime = min(app.permanent_session_lifetime, manager.canister.config.absolute_lifetime)
        return cast("SessionMixin", session)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Commit the session; what the client has to be told goes into the response's headers."""
        own = cast("FlaskSession | None", session)
        if own is None:  # it could not be opened
            return
        if not own.saved:  # once: another time it is the page of what failed here
            own.saved = True
            own.settle(app.config)
            try:
                self.manager.commit(own)
            except _REFUSALS as error:
                _replace(response, app.make_response(app.handle_user_exception(error)))
            response.call_on_close(partial(self._finish, own, request.environ))
        outcome = own.state.outcome  # after a failure too: what was stored before stands
        if outcome is not None:
            outcome.put_into(response.headers, response.headers)

    def regenerate(self, session: SessionMixin) -> None:
        """Go on under a new id, as `Session.regenerate` does; the name Flask-Session gave it."""
        cast("FlaskSession", session).regenerate()

    def finish(self, _error: BaseException | None) -> None:
        """Say so if the session was changed after it had been saved; Flask calls it at a request's end.

        What runs later, as a stream without the request's context does, is looked at once the response
        is closed: the test client does not close every response, so neither goes without the other.
        """
        environ = request.environ
        session: FlaskSession | None = environ.get(_SESSION)
        if session is not None and session.saved:
            if environ.get(_PRESERVES):
                del environ[_SESSION]  # the context ends once more, with the block that uses the test client
            self._finish(session, environ)

    def _finish(self, session: FlaskSession, environ: Mapping[str, Any]) -> None:
        try:
            self.manager.finish(session, environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        finally:
            session.look_again()


def _refuse(error: CanisterError) -> Any:
    """Answer what the application has no handler for, with its page for the status if it has one."""
    own = handler_of(error, current_app.error_handler_spec[None][None])
    if own is not None:
        return current_app.ensure_sync(own)(error)
    refusal = refusal_of(error, f"{request.method} {request.path}")
    response = current_app.make_response(current_app.handle_http_exception(refusal))
    refused: FlaskSession | None = request.environ.get(_SESSION)
    if refused is not None:
        refused.give_up()
    response.headers.update(REFUSAL_HEADERS)
    return response


def _replace(response: Response, other: Response) -> None:
    """Put another response in the place of one that the framework is about to send."""
    close: Any = getattr(response.response, "close", None)
    if close is not None:
        response.call_on_close(close)
    response.response, response.direct_passthrough = other.response, other.direct_passthrough
    response.status, response.headers = other.status, other.headers
