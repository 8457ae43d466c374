"""Typed dependencies for FastAPI, over `canister.integrations.asgi.SessionMiddleware`.

They work for HTTP and WebSocket routes alike::

    @app.get("/me")
    async def me(user: CurrentUser) -> str: ...
"""

from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import FormData
from starlette.requests import HTTPConnection

from canister.integrations.asgi import manager_of, session_of
from canister.sessions import Session, SessionManager

CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf_token"

_SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


async def current_session(connection: HTTPConnection) -> Session:
    """Return the session of a request or WebSocket.

    Raises:
        ConfigError: `SessionMiddleware` is not in front of the application.
    """
    return session_of(connection)


CurrentSession = Annotated[Session, Depends(current_session)]
"""The session of a request or WebSocket."""


async def require_user(session: CurrentSession) -> Any:
    """Return the id of the user who is logged in; it counts as an access.

    Raises:
        HTTPException: 401, surely nobody is; a WebSocket's handshake is refused with it.
        CannotTellError: this node cannot tell whether somebody is; the middleware answers 503.
        SessionLockedError: the session is locked; the middleware answers 403.
    """
    user = session.known_user()
    if user is None:
        raise HTTPException(401, "Log in first.")
    return user


CurrentUser = Annotated[Any, Depends(require_user)]
"""The id of the user who is logged in; 401 without one."""


async def session_manager(connection: HTTPConnection) -> SessionManager:
    """Return the session manager, whose `users` lists and ends a user's sessions.

    Raises:
        ConfigError: `SessionMiddleware` is not in front of the application.
    """
    return manager_of(connection)


CurrentManager = Annotated[SessionManager, Depends(session_manager)]
"""The session manager: ``manager.users.sessions(user)`` are a user's devices."""


async def csrf_token(session: CurrentSession) -> str:
    """Return a token for a form of this session, or for a script to send as header ``X-CSRF-Token``."""
    return session.csrf_token()


CsrfToken = Annotated[str, Depends(csrf_token)]
"""What the forms of the answer carry in a field ``csrf_token``."""


async def require_csrf(connection: HTTPConnection, session: CurrentSession) -> None:
    """Refuse what another site has a browser send.

    A request that changes something carries a token of the session, in header ``X-CSRF-Token`` or the form
    field ``csrf_token``. A WebSocket's handshake, to which scripts cannot add headers, comes from a page
    of this host.

    Raises:
        HTTPException: 403.
        CannotTellError: this node cannot tell what the session's token is; the middleware answers 503.
    """
    if not isinstance(connection, Request):
        if not _is_own_page(connection):
            raise HTTPException(403, "The page that asks for this is of another site.")
    elif connection.method not in _SAFE and not session.is_csrf_token(await _token_in(connection)):
        raise HTTPException(403, "The form's token is missing or not of this session; load the page anew.")


CsrfProtected = Depends(require_csrf)
"""For ``dependencies=[CsrfProtected]`` of an application, a router or a route."""


async def _token_in(request: Request) -> str:
    header = request.headers.get(CSRF_HEADER)
    if header is not None:
        return header
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _FORMS:
        return ""
    form: FormData = await request.form()
    value = form.get(CSRF_FIELD)
    return value if isinstance(value, str) else ""


def _is_own_page(connection: HTTPConnection) -> bool:
    """Tell whether the Origin is this host; programs that are no browsers send none."""
    origin = connection.headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower()
    except ValueError:
        return False
