"""The middleware: loads the session before the view, commits it when the response leaves."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoMiddleware
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse

from canister.errors import CanisterError, SessionDestroyedError, SessionEndedError
from canister.integrations.django.configuration import ENGINE, own_cookie, session_manager
from canister.integrations.django.signals import REFUSAL
from canister.integrations.django.store import SessionStore
from canister.integrations.unwanted import is_changed
from canister.sessions import Outcome, Session
from canister.sessions.outcome import REFUSALS, refuse

_REFUSALS = tuple(REFUSALS)


class SessionMiddleware(DjangoMiddleware):
    """Goes in the place of Django's: sends the safe cookie, and the stamp of what the client has seen.

    What cannot be told, or is not acknowledged, is answered with 503, the use of a locked session and a
    log-in too many with 403. A response of 500 or more stores nothing, as with Django's.

    Args:
        get_response: the rest of the project.

    Raises:
        ImproperlyConfigured: a setting cannot work.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        own_cookie()
        if not issubclass(self.SessionStore, SessionStore):
            raise ImproperlyConfigured(f"{type(self).__name__} needs SESSION_ENGINE = {ENGINE!r}")

    def __call__(self, request: HttpRequest) -> HttpResponse | Awaitable[HttpResponse]:
        """Handle one request."""
        if self.async_mode:
            return self.__acall__(request)
        manager = session_manager()
        self._begin(request, manager.open(*_asked(request)))
        response = _answer(request, self.get_response(request))
        session, outcome = _session(request), None
        if session is not None:
            try:
                outcome = manager.commit(session) if _stands(response) else manager.discard(session)
            except CanisterError as error:
                response, outcome = _failed(request, session, error)
        return _end(request, response, session, outcome)

    async def __acall__(self, request: HttpRequest) -> HttpResponse:
        """Handle one request in an event loop."""
        manager = session_manager()
        self._begin(request, await manager.aopen(*_asked(request)))
        response = _answer(request, await self.get_response(request))
        session, outcome = _session(request), None
        if session is not None:
            try:
                outcome = await manager.acommit(session) if _stands(response) else manager.discard(session)
            except CanisterError as error:
                response, outcome = _failed(request, session, error)
        return _end(request, response, session, outcome)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer what a view does not answer for itself."""
        return _refuse(request, exception) if isinstance(exception, _REFUSALS) else None

    def _begin(self, request: HttpRequest, session: Session) -> None:
        values = session_manager().cookie.values_in(_asked(request)[0])
        request.session = self.SessionStore(values[0] if values else None)
        request.session.adopt(session)


class _Refusal(HttpResponse):
    """Says why the session could not be used."""


def _asked(request: HttpRequest) -> tuple[list[str], str]:
    """Return the Cookie headers and the host of a request."""
    return [request.META.get("HTTP_COOKIE", "")], request.META.get("HTTP_HOST") or request.META["SERVER_NAME"]


def _session(request: HttpRequest) -> Session | None:
    """Return the session to commit; None where the project has put something else in its place."""
    store = getattr(request, "session", None)
    if not isinstance(store, SessionStore) or store.loaded is None:
        return None
    _heed(store, store.loaded)
    return store.loaded


def _heed(store: SessionStore, session: Session) -> None:
    """Do what the project says of the session: that every request uses it, or that this one did not."""
    if settings.SESSION_SAVE_EVERY_REQUEST:
        session.mark_active()
        return
    if store.is_unwanted(session):
        session.forget_changes()
        session.mark_passive()
    if session.state.varies and not store.accessed and not is_changed(session):
        session.mark_passive()
        session.state.varies = False


def _answer(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Return the project's response, or what goes in the place of Django's page for a refusal."""
    error = getattr(request, REFUSAL, None)
    return response if error is None or response.status_code != 500 else _refuse(request, error)


def _stands(response: HttpResponse) -> bool:
    return response.status_code < 500 and not isinstance(response, _Refusal)


def _failed(
    request: HttpRequest, session: Session, error: CanisterError
) -> tuple[HttpResponse, Outcome | None]:
    if isinstance(error, (SessionDestroyedError, SessionEndedError)):
        raise SessionInterrupted(str(error)) from error
    if not isinstance(error, _REFUSALS):
        raise error
    # What was written stands: the client is told its cookies, or a log-in would log it out.
    return _refuse(request, error), session.state.outcome


def _refuse(request: HttpRequest, error: Exception) -> HttpResponse:
    page = refuse(error, f"{request.method} {request.path}")
    return _Refusal(page.text, status=page.status, headers=page.headers)


def _end(
    request: HttpRequest, response: HttpResponse, session: Session | None, outcome: Outcome | None
) -> HttpResponse:
    for name, value in outcome.headers(response.items()) if outcome is not None else ():
        if name == "Set-Cookie":
            _add_cookie(response, value)
        else:
            response[name] = value
    if session is not None:
        request.session.note_key(session)
        response.close = partial(_close, response.close, session, f"{request.method} {request.path}")
    return response


def _close(close: Callable[[], None], session: Session, where: str) -> None:
    """Close a response, whose body may have been a stream; then look for changes that came too late."""
    try:
        close()
    finally:
        session_manager().finish(session, where)


def _add_cookie(response: HttpResponse, text: str) -> None:
    pair, *attributes = text.split("; ")
    name, _, value = pair.partition("=")
    response.cookies.pop(name, None)
    response.cookies[name] = value
    for attribute in attributes:
        key, _, content = attribute.partition("=")
        response.cookies[name][key.lower()] = content or True
