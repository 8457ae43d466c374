"""Sessions for WSGI applications: Bottle, Falcon and whatever else has an ``environ``."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Unpack
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from canister.canister import Canister
from canister.errors import ConfigError
from canister.integrations.bodies import close_body
from canister.sessions import ManagerOptions, Session, SessionManager
from canister.sessions.outcome import REFUSALS, refuse

_SESSION = "canister.session"


def session_of(environ: WSGIEnvironment) -> Session:
    """Return the session of a request: ``environ["canister.session"]``, with its type.

    Args:
        environ: the request's environment, such as ``bottle.request.environ`` or Falcon's ``req.env``.

    Raises:
        ConfigError: `SessionMiddleware` is not in front of the application.
    """
    session = environ.get(_SESSION)
    if not isinstance(session, Session):
        raise ConfigError(
            "the environ has no session: put canister.integrations.wsgi.SessionMiddleware in front of "
            "the application"
        )
    session.mark_accessed()
    return session


class SessionMiddleware:
    """Puts the session into ``environ["canister.session"]`` and commits it at the first body chunk.

    The application's ``start_response`` is held back until then, so that whatever runs before the first
    chunk may still log in or out. What cannot be told, or is not acknowledged, is answered with 503 if
    the response has not begun, the use of a locked session with 403.

    Args:
        app: the application.
        canister: where the sessions are stored.
        options: the settings of the `SessionManager`.
    """

    def __init__(
        self, app: WSGIApplication, *, canister: Canister, **options: Unpack[ManagerOptions]
    ) -> None:
        self.app = app
        self.manager = SessionManager(canister, **options)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        manager = self.manager
        cookies = [environ.get("HTTP_COOKIE", "")]
        session = manager.open(cookies, environ.get("HTTP_HOST") or environ["SERVER_NAME"])
        environ[_SESSION] = session
        response = _Response(manager, environ, session, start_response)
        try:
            response.take(self.app(environ, response.start))
        except tuple(REFUSALS) as error:
            if response.begun:
                raise
            response.refuse(error)
        return response


class _Response:
    """The response of one request: the commit comes before its headers."""

    def __init__(
        self, manager: SessionManager, environ: WSGIEnvironment, session: Session, start: StartResponse
    ) -> None:
        self.begun = False
        self._refused = False
        self._over = False
        self._manager = manager
        self._method: str = environ["REQUEST_METHOD"]
        self._where = f"{self._method} {environ.get('PATH_INFO', '')}"
        self._session = session
        self._start = start
        self._held: tuple[str, list[tuple[str, str]]] | None = None
        self._body: Iterable[bytes] = ()
        self._chunks: Iterator[bytes] = iter(())

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        """Hold the headers back until the body begins: the application's ``start_response``."""
        if self._held is not None and exc_info is None:
            raise AssertionError("start_response was called before; pass exc_info to replace its headers")
        if not self._refused:
            self._held = status, headers
            if self.begun:  # the server takes the error page's headers, or raises if the others have left
                self._send_headers(exc_info)
        return self.write

    def write(self, data: bytes, /) -> None:
        """Send a chunk of the body: what ``start_response`` returns."""
        if not self.begun:
            self._begin()
        if not self._refused:
            self._write(data)

    def take(self, body: Iterable[bytes]) -> None:
        """Go on with what the application returned."""
        self._body = body
        if not self._refused:
            self._chunks = iter(body)

    def refuse(self, error: Exception) -> None:
        """Answer with an error in place of what the application sends."""
        self.begun = self._refused = True
        self._manager.discard(self._session)
        page = refuse(error, self._where)
        body = page.text.encode()
        headers = [*page.headers.items(), ("Content-Length", str(len(body)))]
        self._held = f"{page.status} {page.reason}", headers
        self._send_headers(None)
        self._chunks = iter(() if self._method == "HEAD" else (body,))

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if not self.begun:
                self._begin_with_chunk()
            return next(self._chunks)
        except StopIteration:
            self._over = not self._refused
            raise

    def close(self) -> None:
        """Close what the application returned, and look for changes that nobody committed."""
        close_body(self._body)
        if self._over:
            self._manager.finish(self._session, self._where)

    def _begin_with_chunk(self) -> None:
        """Have the application make its first chunk, and begin with it."""
        try:
            first = tuple(islice(self._chunks, 1))  # none, where the body is empty
        except tuple(REFUSALS) as error:
            if self.begun:
                raise
            self.refuse(error)
            return
        if not self.begun:  # its generator may have called write
            self._begin()
        if not self._refused:
            self._chunks = chain(first, self._chunks)

    def _begin(self) -> None:
        """Commit, and let the headers leave."""
        if self._held is None:
            raise AssertionError("the application sent a body before it called start_response")
        self.begun = True  # before the commit: when it fails, the error page goes out as it is
        try:
            self._manager.commit(self._session)
        except tuple(REFUSALS) as error:
            self.refuse(error)
        else:
            self._send_headers(None)

    def _send_headers(self, exc_info: Any) -> None:
        """Call the server's ``start_response``; what the commit has to tell the client goes with it."""
        assert self._held is not None  # both callers have just seen to it
        status, headers = self._held
        # After a refusal too: what was written stands, and without its cookie a log-in logs out.
        outcome = self._session.state.outcome
        headers = headers if outcome is None else outcome.all_headers(headers)
        arguments = () if exc_info is None else (exc_info,)
        self._write = self._start(status, headers, *arguments)
