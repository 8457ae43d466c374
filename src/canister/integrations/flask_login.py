"""Flask-Login's signals: a log-in, confirmed or not, gives the session a new id, a log-out ends it.

Flask-Login's remember cookie is its own affair and stays as it is; a session that it begins is a log-in.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from flask import Flask, request, session

from canister.integrations.flask_parts import FlaskSession, records_client
from canister.sessions.identity import AGENT_LENGTH

_OWN = ("_user_id", "_fresh", "_id", "_remember", "_remember_seconds")
_LEFT = ("_remember", "_flashes")
"""What a log-out leaves: the order to delete the remember cookie, and messages not shown yet."""
_XSRF, _CLEAR, _XSRF_COOKIE = "fs_cc", "clear", "SECURITY_CSRF_COOKIE_NAME"
"""Flask-Security's order to delete its cookie, given before the log-out; without a cookie nobody takes it."""


def connect(app: Flask) -> None:
    """Have log-ins and log-outs of an application change its sessions, if Flask-Login is installed.

    Args:
        app: the application.
    """
    if find_spec("flask_login") is None:
        return
    signals: Any = import_module("flask_login.signals")
    signals.user_logged_in.connect(_logged_in, sender=app)
    signals.user_loaded_from_cookie.connect(_remembered, sender=app)
    signals.user_login_confirmed.connect(_logged_in, sender=app)
    signals.user_logged_out.connect(_logged_out, sender=app)
    signals.session_protected.connect(_protected, sender=app)


def _logged_in(app: Flask, **_: Any) -> None:
    _log_in(app)


def _remembered(app: Flask, **_: Any) -> None:
    _log_in(app, "remember")  # the user has proved nothing just now


def _log_in(app: Flask, *methods: str) -> None:
    current = _current()
    if current is not None and "_user_id" in current:  # else nobody's log-in was confirmed
        kept = _kept(current, _OWN)  # where another user was logged in, nothing else is
        address = agent = None
        if records_client(app.config):
            address = request.remote_addr
            agent = request.user_agent.string[:AGENT_LENGTH] or None
        current.login(kept["_user_id"], methods=methods, address=address, agent=agent)
        current.update(kept)


def _logged_out(app: Flask, **_: Any) -> None:
    current = _current()
    if current is not None:
        kept = _kept(current, _LEFT)
        if app.config.get(_XSRF_COOKIE) and current.get(_XSRF) == _CLEAR:
            kept[_XSRF] = _CLEAR
        current.logout()
        current.update(kept)


def _protected(app: Flask, **_: Any) -> None:
    """End a session that "strong" protection has taken the user from; "basic" only marks it."""
    current = _current()
    if current is not None and current.user is not None and "_user_id" not in current:
        _logged_out(app)


def _current() -> FlaskSession | None:
    current: Any = session._get_current_object()  # type: ignore[attr-defined]
    return current if isinstance(current, FlaskSession) else None


def _kept(current: FlaskSession, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: current[name] for name in names if name in current}
