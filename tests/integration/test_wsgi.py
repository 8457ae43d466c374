"""The WSGI adapter under plain WSGI, Bottle and Falcon, over a real canister."""

import contextlib
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from wsgiref.types import WSGIApplication, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

import bottle
import falcon
import falcon.testing
import pytest
from tests.integration.local import last_write, store_away

from canister import Canister, CannotTellError, ConfigError, SessionError
from canister.integrations.wsgi import SessionMiddleware, session_of
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

with warnings.catch_warnings():
    # WebOb 1.8 imports the standard library's cgi, or, where that is gone, a package in its place.
    warnings.simplefilter("ignore", DeprecationWarning)
    from webtest import TestApp as Client  # pytest would collect it by its own name

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"
END = CookieSettings().end()
HTTPS = {"wsgi.url_scheme": "https", "HTTP_HOST": "testserver", "SERVER_PORT": "443"}
PLAIN = [("Content-Type", "text/plain")]


def client_of(canister: Canister, app: WSGIApplication | None = None, **settings: Any) -> Client:
    """A client behind wsgiref's validator, which fails wherever PEP 3333 is broken."""
    wrapped = SessionMiddleware(app or plain, canister=canister, secret_keys=KEY, **settings)
    return Client(wrapped, extra_environ=HTTPS)


def plain(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
    """Put the query's keys, do what the path says, and answer with the session's keys."""
    body, path = b"ok", environ["PATH_INFO"]
    if path != "/untouched":
        session = session_of(environ)
        if path == "/log-in":
            session.login("ann")
        elif path == "/log-out":
            session.logout()
        elif path == "/append":
            session.setdefault("list", []).append(1)
        pairs = [pair.split("=") for pair in environ["QUERY_STRING"].split("&") if pair]
        session.update(pairs)
        body = json.dumps({"user": session.user, "data": dict(session)}).encode()
    start_response("200 OK", PLAIN)
    return [body]


def data_of(client: Client, cookie: str | None = None) -> Any:
    return json.loads(client.get("/", headers={} if cookie is None else with_cookie(cookie)).text)["data"]


def with_cookie(value: str) -> dict[str, str]:
    return {"Cookie": f"{NAME}={value}"}


def token_of(client: Client) -> str:
    token: str = client.cookies[NAME]
    return token


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def served(app: WSGIApplication) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return what a server sends that keeps the headers back until there is a body, as PEP 3333 has it."""
    sent, heads = [], []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info and any(sent):
            raise exc_info[1]
        heads.append((status, headers))
        return sent.append

    environ = dict(HTTPS)
    setup_testing_defaults(environ)
    with contextlib.suppress(RuntimeError), contextlib.closing(app(environ, start_response)) as body:
        sent.extend(body)
    return *heads[-1], b"".join(sent)


def test_an_untouched_request_writes_nothing_and_sends_no_header(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(canister)
    assert client.get("/untouched").headerlist == PLAIN
    client.post("/?a=1")
    before = last_write(canister)
    clock.advance(timedelta(minutes=10))
    assert client.get("/untouched").headerlist == PLAIN
    assert last_write(canister) == before


def test_a_first_value_sends_the_cookie_and_the_next_request_finds_it(canister: Canister) -> None:
    client = client_of(canister)
    response = client.post("/?a=1")
    (cookie,) = response.headers.getall("Set-Cookie")
    assert cookie.startswith(f"{NAME}=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    response = client.get("/")
    assert json.loads(response.text) == {"user": None, "data": {"a": "1"}}
    assert response.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in response.headers


def test_vary_stays_one_line(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        session_of(environ).update(a=1)
        start_response("200 OK", [*PLAIN, ("Vary", "Accept"), ("vary", "Origin")])
        return [b"ok"]

    assert client_of(canister, app).get("/").headers.getall("Vary") == ["Accept, Origin, Cookie"]


def test_a_nested_edit_is_saved(canister: Canister) -> None:
    client = client_of(canister)
    for _ in range(3):
        client.post("/append")
    assert data_of(client) == {"list": [1, 1, 1]}


def test_a_session_fixed_before_the_log_in_never_sees_what_comes_after(canister: Canister) -> None:
    attacker, victim = client_of(canister), client_of(canister)
    attacker.post("/?a=1")
    planted = token_of(attacker)
    victim.post("/log-in?secret=1", headers=with_cookie(planted))
    assert token_of(victim) != planted
    assert data_of(victim) == {"a": "1", "secret": "1"}
    assert data_of(attacker, planted) == {}


def test_logging_out_ends_session_and_cookie(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/log-in?a=1")
    token = token_of(client)
    assert client.post("/log-out").headers["Set-Cookie"] == END
    assert NAME not in client.cookies
    assert data_of(client, token) == {}


def test_no_log_ever_holds_a_token(canister: Canister, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = client_of(canister)
    client.post("/?a=1")
    token = token_of(client)
    client.post("/log-in")
    data_of(client, token)
    assert "was created" in caplog.text
    assert token not in caplog.text


# When the commit happens.


def test_a_generator_may_log_in_before_its_first_chunk(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        session_of(environ)["early"] = 1
        yield b"a"
        assert len(list(canister.all_sessions())) == 1, "stored before the first chunk is sent"
        yield b"b"

    client = client_of(canister, app)
    assert client.get("/").text == "ab"
    assert data_of(client_of(canister), token_of(client)) == {"early": 1}


def test_the_first_write_commits(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", PLAIN)
        session_of(environ)["early"] = 1
        write(b"a")
        assert len(list(canister.all_sessions())) == 1
        write(b"b")
        return [b"c"]

    client = client_of(canister, app)
    assert client.get("/").text == "abc"
    assert data_of(client_of(canister), token_of(client)) == {"early": 1}


def test_an_empty_body_commits_too(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        start_response("204 No Content", [])
        return []

    client = client_of(canister, app)
    client.get("/", status=204)
    assert data_of(client_of(canister), token_of(client)) == {"a": 1}


def test_headers_that_an_error_page_replaces_leave_nothing_behind(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        start_response("200 OK", [*PLAIN, ("X-Draft", "1")])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("418 Teapot", PLAIN, sys.exc_info())
        return [b"sorry"]

    response = client_of(canister, app).get("/", status=418)
    assert "X-Draft" not in response.headers
    assert response.headers["Set-Cookie"].startswith(NAME)


def test_calling_start_response_twice_is_a_mistake(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        start_response("200 OK", PLAIN)
        return []

    with pytest.raises(AssertionError, match="exc_info"):
        client_of(canister, app).get("/")


def test_a_body_without_headers_is_a_mistake_and_commits_nothing(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        return [b"a"]

    with pytest.raises(AssertionError, match="before it called start_response"):
        client_of(canister, app).get("/")
    assert last_write(canister) == 0


def test_an_error_page_after_the_commit_still_carries_its_cookie(canister: Canister) -> None:
    """An empty chunk lets no header leave, so PEP 3333 allows the application to think again."""

    def app(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        session_of(environ).login("ann")
        start_response("200 OK", PLAIN)
        yield b""
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"sorry"

    status, headers, body = served(SessionMiddleware(app, canister=canister, secret_keys=KEY))
    assert (status, body) == ("500 Oops", b"sorry")
    cookies = [value for name, value in headers if name == "Set-Cookie"]
    assert cookies[0].startswith(f"{NAME}="), "it is stored: without the cookie nobody could reach it"


def test_after_the_headers_left_the_servers_error_comes_through(canister: Canister) -> None:
    def app(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        try:
            raise RuntimeError("too late")
        except RuntimeError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"never sent"

    status, _, body = served(SessionMiddleware(app, canister=canister, secret_keys=KEY))
    assert (status, body) == ("200 OK", b"begun")


def test_an_exception_commits_nothing(canister: Canister) -> None:
    def call(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        session_of(environ)["a"] = 1
        raise RuntimeError("in the call")

    def first_chunk(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        session_of(environ)["a"] = 1
        raise RuntimeError("in the first chunk")
        yield b""

    for app, message in ((call, "in the call"), (first_chunk, "in the first chunk")):
        with pytest.raises(RuntimeError, match=message):
            client_of(canister, app).get("/")
    assert last_write(canister) == 0


class Body:
    """A body that counts how often it is closed."""

    def __init__(self, change: Callable[[], object] = lambda: None) -> None:
        self.closed = 0
        self._change = change

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    def close(self) -> None:
        self.closed += 1
        self._change()


def test_the_applications_body_is_closed_once(canister: Canister) -> None:
    bodies: list[Body] = []

    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        bodies.append(Body())
        return bodies[-1]

    assert client_of(canister, app).get("/").text == "ab"
    unread = SessionMiddleware(app, canister=canister, secret_keys=KEY)(HTTPS | REQUEST, started := [])
    unread.close()  # a client that went away before the first chunk
    assert started == []
    assert [body.closed for body in bodies] == [1, 1]


REQUEST = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", "SERVER_NAME": "testserver"}


def test_a_change_after_the_first_chunk_is_reported(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    def stream(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        session = session_of(environ)
        session["early"] = 1
        start_response("200 OK", PLAIN)
        yield b"a"
        session["late"] = 1

    def at_close(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return Body(lambda: session_of(environ).update(late=1))

    def committed(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        session = session_of(environ)
        session["early"] = 1
        start_response("200 OK", PLAIN)
        yield b"a"
        session["late"] = 2
        session.commit()

    for app in (stream, at_close):
        caplog.clear()
        client_of(canister, app, strict=False).get("/path")
        assert "what GET /path changed" in caplog.text
        with pytest.raises(SessionError, match="what GET /path changed"):
            client_of(canister, app, strict=True).get("/path")
    client = client_of(canister, committed, strict=True)
    client.get("/")
    assert data_of(client_of(canister), token_of(client)) == {"early": 1, "late": 2}


def test_a_save_that_comes_after_the_log_out_fails_and_brings_nothing_back(canister: Canister) -> None:
    def slow(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        session = session_of(environ)
        session["slow"] = 1
        client_of(canister).post("/log-out", headers={"Cookie": environ["HTTP_COOKIE"]})
        write = start_response("200 OK", PLAIN)
        write(b"never sent")
        return [b"nor this"]

    client = client_of(canister)
    client.post("/log-in")
    response = client_of(canister, slow).get("/", headers=with_cookie(token_of(client)), status=409)
    assert response.text.startswith("Conflict: another request destroyed the session")
    assert "Set-Cookie" not in response.headers
    assert list(canister.all_sessions()) == []


# Not knowing is not absence.


def test_a_node_that_cannot_tell_serves_reads_refuses_writes_and_leaves_the_cookie(
    cut_off: Canister, clock: ManualClock
) -> None:
    client = client_of(cut_off)
    cookie = with_cookie(token_of_elsewhere(clock))
    before = last_write(cut_off)
    for path in ("/", "/untouched"):
        assert "Set-Cookie" not in client.get(path, headers=cookie).headers
    response = client.post("/?a=1", headers=cookie, status=503)
    assert response.headers["Retry-After"] == "2"
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers
    assert "cookie was left as it is" in response.text
    assert client.head("/?a=1", headers=cookie, status=503).body == b""
    assert last_write(cut_off) == before


def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    client = client_of(canister)
    client.post("/log-in?a=1")
    with store_away(canister):
        assert client.get("/untouched").status_code == 200
        for path in ("/", "/log-in", "/log-out"):
            response = client.post(path, status=503)
            assert response.headers["Retry-After"] == "2"
            assert "Set-Cookie" not in response.headers
    assert data_of(client) == {"a": "1"}


def test_a_refusal_is_503_wherever_it_is_met_before_the_headers(
    cut_off: Canister, clock: ManualClock
) -> None:
    def generator(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield str(session_of(environ)["a"]).encode()

    def writer(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        write = start_response("200 OK", PLAIN)
        session_of(environ)["a"] = 1
        write(b"never sent")
        write(b"nor this")
        return [b"nor this"]

    cookie = with_cookie(token_of_elsewhere(clock))
    for app, settings in (
        (plain, {"when_behind": "refuse"}),
        (generator, {"when_behind": "refuse"}),
        (writer, {}),
    ):
        response = client_of(cut_off, app, **settings).get("/", headers=cookie, status=503)
        assert response.text.startswith("Service unavailable: ")
        assert "nor this" not in response.text


def test_a_refusal_after_the_headers_left_is_the_servers_error(cut_off: Canister, clock: ManualClock) -> None:
    def stream(environ: WSGIEnvironment, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"a"
        yield session_of(environ)["b"]

    def late(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)(b"a")
        return [session_of(environ)["b"]]

    for app in (stream, late):
        with pytest.raises(CannotTellError):
            client_of(cut_off, app, when_behind="refuse").get(
                "/", headers=with_cookie(token_of_elsewhere(clock))
            )


def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: Canister) -> None:
    client = client_of(cut_off, acks=2)
    response = client.post("/log-in?a=1", status=503)
    assert "it stands on this node" in response.text
    assert NAME in client.cookies, "or nobody could reach what stands"
    assert data_of(client) == {"a": "1"}


@pytest.mark.parametrize("streamed", [False, True])
def test_the_cookie_of_what_the_application_itself_has_stored_goes_with_a_refusal(
    cut_off: Canister, *, streamed: bool
) -> None:
    def log_in_now(environ: WSGIEnvironment) -> bytes:
        session_of(environ).login("ann")
        session_of(environ).commit()
        return b"never reached"

    def app(environ: WSGIEnvironment, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/now":
            return plain(environ, start_response)
        start_response("200 OK", PLAIN)
        return (log_in_now(environ) for _ in range(1)) if streamed else [log_in_now(environ)]

    client = client_of(cut_off, app, acks=2)
    assert "it stands on this node" in client.get("/now", status=503).text
    assert json.loads(client.get("/").text)["user"] == "ann"


def test_a_locked_session_is_403(tmp_path: Path, clock: ManualClock) -> None:
    with Canister(tmp_path / "data", clock=clock, lock_timeout="5m") as canister:
        client = client_of(canister)
        client.post("/log-in")
        clock.advance(timedelta(minutes=6))
        assert client.get("/", status=403).text.startswith("Forbidden: ")
        client.post("/log-in", status=200)


# What the environment must be.


def test_plain_http_serves_private_hosts_only(canister: Canister) -> None:
    wrapped = SessionMiddleware(
        plain, canister=canister, secret_keys=KEY, cookie=CookieSettings(plain_http=True)
    )
    Client(wrapped, extra_environ={"HTTP_HOST": "127.0.0.1:8000"}).post("/?a=1")
    with pytest.raises(ConfigError, match="private"):
        Client(wrapped, extra_environ={"HTTP_HOST": "shop.example"}).get("/untouched")


def test_the_accessor_needs_the_middleware() -> None:
    with pytest.raises(ConfigError, match="SessionMiddleware"):
        session_of({})


# Frameworks.


def test_bottle(canister: Canister) -> None:
    app = bottle.Bottle()

    @app.post("/log-in")
    def log_in() -> str:
        session_of(bottle.request.environ).login("ann")
        return "ok"

    @app.post("/log-out")
    def log_out() -> None:
        session_of(bottle.request.environ).logout()
        bottle.redirect("/")

    @app.get("/")
    def show() -> dict[str, Any]:
        return {"user": session_of(bottle.request.environ).user}

    @app.get("/stream")
    def stream() -> Iterator[str]:
        session_of(bottle.request.environ)["streamed"] = 1
        yield "a"
        yield "b"

    client = client_of(canister, app)
    client.post("/log-in")
    assert client.get("/").json == {"user": "ann"}
    assert client.get("/stream").text == "ab"
    assert data_of(client_of(canister), token := token_of(client)) == {"streamed": 1}
    response = client.post("/log-out", status=302)
    assert response.headers["Set-Cookie"] == END
    assert client.get("/", headers=with_cookie(token)).json == {"user": None}


class Account:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.media = {"user": session_of(req.env).user}

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        session_of(req.env).login("ann")

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        session_of(req.env).logout()
        resp.status = falcon.HTTP_204


def test_falcon(canister: Canister) -> None:
    app = falcon.App()
    app.add_route("/", Account())
    wrapped = SessionMiddleware(app, canister=canister, secret_keys=KEY)
    client = falcon.testing.TestClient(wrapped)
    token = client.simulate_post("/", protocol="https").cookies[NAME].value
    assert client.simulate_get("/", headers=with_cookie(token)).json == {"user": "ann"}
    assert client.simulate_delete("/", headers=with_cookie(token)).headers["set-cookie"] == END
    assert client.simulate_get("/", headers=with_cookie(token)).json == {"user": None}
