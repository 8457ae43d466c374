"""The ASGI adapter under Starlette and FastAPI, over a real canister."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from tests.integration.asgi_kit import (
    END,
    KEY,
    NAME,
    ROUTES,
    TestClient,
    another_request,
    client_of,
    with_cookie,
)
from tests.integration.local import last_write

from canister import Canister, ConfigError, SessionDestroyedError
from canister.integrations.asgi import SessionMiddleware, manager_of, session_of
from canister.sessions import CookieSettings, seen
from canister.testing.clock import ManualClock
from examples import asgi_starlette

pytestmark = pytest.mark.integration


def test_an_untouched_request_writes_nothing_and_sends_no_cookie(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(canister)
    assert dict(client.get("/untouched").headers).keys() == {"content-length", "content-type"}
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    clock.advance(timedelta(minutes=10))
    response = client.get("/untouched")
    assert dict(response.headers).keys() == {"content-length", "content-type"}
    assert last_write(canister) == before


def test_a_first_value_sends_the_cookie_and_the_next_request_finds_it(canister: Canister) -> None:
    client = client_of(canister)
    response = client.post("/put", json={"a": [1]})
    (cookie,) = response.headers.get_list("set-cookie")
    assert cookie.startswith(f"{NAME}=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert response.headers["cache-control"] == 'private, no-cache="Set-Cookie"'
    assert response.headers["vary"] == "Cookie"
    response = client.get("/")
    assert response.json() == {"a": [1]}
    assert response.headers["vary"] == "Cookie"
    assert "set-cookie" not in response.headers
    assert "cache-control" not in response.headers


def test_a_later_change_sends_no_cookie(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    assert "set-cookie" not in client.post("/put", json={"b": 2}).headers
    assert client.get("/").json() == {"a": 1, "b": 2}


def test_a_nested_edit_is_saved(canister: Canister) -> None:
    client = client_of(canister)
    for _ in range(3):
        client.post("/append")
    assert client.get("/").json() == {"list": [0, 1, 2]}


def test_peeking_is_no_access_and_reading_is(canister: Canister, clock: ManualClock) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    clock.advance(timedelta(minutes=10))
    response = client.get("/peek")
    assert (response.json(), response.headers["vary"]) == (1, "Cookie")
    assert last_write(canister) == before
    client.get("/")
    assert last_write(canister) == clock.now(), "one write"


def test_concurrent_requests_keep_each_others_keys(canister: Canister) -> None:
    """The second request begins and ends while the first one runs."""

    async def slow(request: Request) -> Response:
        request.session["slow"] = 1
        another_request(request, "/put", json={"fast": 1})
        return PlainTextResponse("ok")

    client = client_of(canister, Route("/slow", slow))
    client.post("/put", json={"a": 1})
    client.get("/slow", headers=with_cookie(client.cookies[NAME]))
    assert client.get("/").json() == {"a": 1, "slow": 1, "fast": 1}


def test_a_forged_cookie_gets_a_fresh_session(canister: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    token = client.cookies[NAME]
    client.cookies.clear()
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    monkeypatch.setattr(canister.node.store, "load", None)  # whoever looks at the disk fails
    assert client.get("/", headers=with_cookie(forged)).json() == {}
    assert client.get("/untouched", headers=with_cookie(forged)).headers["set-cookie"] == END
    response = client.post("/put", json={"b": 1}, headers=with_cookie(forged))
    assert response.headers["set-cookie"].split(";")[0] not in (f"{NAME}={token}", f"{NAME}={forged}")


def test_a_session_fixed_before_the_log_in_never_sees_what_comes_after(canister: Canister) -> None:
    attacker, victim = client_of(canister), client_of(canister)
    attacker.post("/put", json={"a": 1})
    planted = attacker.cookies[NAME]
    assert victim.get("/", headers=with_cookie(planted)).json() == {"a": 1}
    victim.post("/log-in", headers=with_cookie(planted))
    assert victim.cookies[NAME] != planted
    assert victim.get("/").json() == {"a": 1, "user": "ann"}
    assert attacker.get("/", headers=with_cookie(planted)).json() == {}


def test_logging_out_ends_session_and_cookie(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/log-in")
    token = client.cookies[NAME]
    assert client.post("/log-out").headers["set-cookie"] == END
    assert NAME not in client.cookies
    assert client.get("/", headers=with_cookie(token)).json() == {}


def test_a_save_that_comes_after_the_log_out_fails_and_brings_nothing_back(canister: Canister) -> None:
    async def slow(request: Request) -> Response:
        request.session["slow"] = 1
        another_request(request, "/log-out")
        return PlainTextResponse("ok")

    client = client_of(canister, Route("/slow", slow))
    client.post("/log-in")
    token = with_cookie(client.cookies[NAME])
    response = client.get("/slow", headers=token)
    assert response.status_code == 409
    assert response.text.startswith("Conflict: another request destroyed the session")
    assert "set-cookie" not in response.headers, "it would take the new one away"
    assert list(canister.all_sessions()) == []


def test_the_application_answers_a_save_that_comes_too_late_where_it_commits(canister: Canister) -> None:
    async def slow(request: Request) -> Response:
        request.session["slow"] = 1
        another_request(request, "/log-out")
        await request.session.acommit()
        return PlainTextResponse("ok")

    async def answer(request: Request, error: Exception) -> Response:
        return PlainTextResponse("log in again", 418)

    client = client_of(canister, Route("/slow", slow))
    client.app.add_exception_handler(SessionDestroyedError, answer)
    client.post("/log-in")
    response = client.get("/slow", headers=with_cookie(client.cookies[NAME]))
    assert (response.status_code, response.text) == (418, "log in again")


def test_an_error_page_made_inside_does_not_go_out_and_nothing_is_committed_twice(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["b"] = 2
        canister.destroy(scope["session"].handle)
        for status in (200, 500):
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"too late"})

    bare = TestClient(
        SessionMiddleware(app, canister=canister, secret_keys=KEY), base_url="https://testserver"
    )
    response = bare.get("/", headers=with_cookie(client.cookies[NAME]))
    assert (response.status_code, response.text[:9]) == (409, "Conflict:")
    assert "set-cookie" not in response.headers
    assert list(canister.all_sessions()) == []


@pytest.mark.parametrize("around", [False, True])
def test_around_the_application_the_cookie_goes_with_the_page_of_an_unhandled_error_too(
    canister: Canister, *, around: bool
) -> None:
    async def fail(request: Request) -> Response:
        request.session.login("ann")
        await request.session.acommit()
        raise ZeroDivisionError

    routes = [Route("/fail", fail), *ROUTES]
    sessions = partial(SessionMiddleware, canister=canister, secret_keys=KEY)
    app: Any = Starlette(routes=routes, middleware=[] if around else [Middleware(sessions)])
    app = sessions(app) if around else app
    client = TestClient(app, base_url="https://testserver", raise_server_exceptions=False)
    assert client.get("/fail").status_code == 500
    assert (NAME in client.cookies) is around, "docs/howto/sessions.md"


def test_an_expired_session_gets_a_fresh_one(canister: Canister, clock: ManualClock) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    token = client.cookies[NAME]
    clock.advance(timedelta(minutes=21, seconds=1))
    assert client.get("/").headers["set-cookie"] == END
    client.post("/put", json={"b": 1}, headers=with_cookie(token))
    assert client.cookies[NAME] != token
    assert client.get("/").json() == {"b": 1}


def test_the_applications_own_headers_stand(canister: Canister) -> None:
    async def own(request: Request) -> Response:
        request.session["a"] = 1
        return Response(headers={"Cache-Control": "no-store", "Vary": "Accept, Cookie", "Set-Cookie": "x=1"})

    response = client_of(canister, Route("/own", own)).get("/own")
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers.get_list("vary") == ["Accept, Cookie"]
    assert [c.split("=")[0] for c in response.headers.get_list("set-cookie")] == ["x", NAME]


def test_vary_stays_one_line(canister: Canister) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].setdefault("a", 1)
        headers = [(b"x", b"1"), (b"vary", b"Accept"), (b"Vary", b"Origin")]
        once = (header for header in headers)
        await send({"type": "http.response.start", "status": 200, "headers": once})
        await send({"type": "http.response.body"})

    client = TestClient(
        SessionMiddleware(app, canister=canister, secret_keys=KEY), base_url="https://testserver"
    )
    for sends_cookie in (True, False):
        headers = client.get("/").headers
        assert headers.get_list("vary") == ["Accept, Origin, Cookie"]
        assert headers["x"] == "1"
        assert ("set-cookie" in headers) is sends_cookie


def test_another_mapping_in_the_sessions_place_is_stored(canister: Canister) -> None:
    async def replace(request: Request) -> Response:
        request.scope["session"] = {"b": 2}
        return PlainTextResponse("ok")

    client = client_of(canister, Route("/replace", replace))
    client.post("/put", json={"a": 1})
    client.get("/replace")
    assert client.get("/").json() == {"b": 2}


class Passing(BaseHTTPMiddleware):
    """Looks at the session after the application has answered."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-seen"] = str(sorted(request.session))
        return response


@pytest.mark.parametrize("between", [[], [Middleware(Passing)]])
def test_a_mounted_application_may_have_sessions_of_its_own(
    canister: Canister, tmp_path: Path, between: list[Middleware]
) -> None:
    def with_sessions(canister: Canister, name: str, *more: Any) -> Starlette:
        cookie = CookieSettings(name=name, seen=f"{name}-seen")
        sessions = Middleware(SessionMiddleware, canister=canister, secret_keys=KEY, cookie=cookie)
        return Starlette(routes=[*ROUTES, *more], middleware=[sessions, *between])

    async def replace(request: Request) -> Response:
        request.scope["session"] = {"b": 2}
        return PlainTextResponse("ok")

    with Canister(tmp_path / "admin") as other:
        admin = Mount("/admin", with_sessions(other, "__Host-admin", Route("/replace", replace)))
        client = TestClient(with_sessions(canister, NAME, admin), base_url="https://testserver")
        client.post("/put", json={"cart": 1})
        client.post("/admin/put", json={"secret": 1})
        assert client.get("/").json() == {"cart": 1}
        assert client.get("/admin").json() == {"secret": 1}
        client.get("/admin/replace")
        assert client.get("/").json() == {"cart": 1}
        assert client.get("/admin").json() == {"b": 2}
        client.post("/admin/log-out")
        assert client.get("/").json() == {"cart": 1}


def test_the_session_is_the_outer_ones_again_after_a_mounted_application(
    canister: Canister, tmp_path: Path
) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)
        seen.append((dict(scope["session"]), manager_of(Request(scope)) is outer.manager))

    with Canister(tmp_path / "admin") as other:
        inner = SessionMiddleware(Starlette(routes=ROUTES), canister=other, secret_keys=KEY)
        outer = SessionMiddleware(app, canister=canister, secret_keys=KEY)
        TestClient(outer, base_url="https://testserver").post("/put", json={"secret": 1})
    assert seen == [({}, True)]


def test_a_change_after_the_headers_left_is_reported(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"a"
            request.session["late"] = 1

        request.session["early"] = 1
        return StreamingResponse(body())

    async def background(request: Request) -> Response:
        return Response(background=BackgroundTask(request.session.__setitem__, "late", 1))

    client = client_of(canister, Route("/stream", stream), Route("/background", background), strict=False)
    client.post("/put", json={"a": 1})
    assert caplog.text == ""
    client.get("/stream")
    assert "what http /stream changed" in caplog.text
    client.get("/background")
    assert "what http /background changed" in caplog.text
    assert client.get("/").json() == {"a": 1, "early": 1}


def test_no_log_ever_holds_a_token(canister: Canister, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    tokens = [client.cookies[NAME]]
    client.post("/log-in")
    tokens.append(client.cookies[NAME])
    client.post("/log-out")
    client.get("/", headers=with_cookie(tokens[0]))
    assert "was created" in caplog.text
    assert "is gone" in caplog.text
    for token in tokens:
        assert token not in caplog.text


def test_the_accessor_needs_the_middleware(canister: Canister) -> None:
    bare = Request({"type": "http", "headers": []})
    with pytest.raises(ConfigError, match="SessionMiddleware"):
        session_of(bare)
    bare.scope["session"] = {}
    with pytest.raises(ConfigError, match="dict"):
        session_of(bare)


def test_a_node_alone_sends_no_second_cookie_and_reads_none(
    canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "read", lambda values, token: pytest.fail("read") if values else ())
    client = client_of(canister)
    for path in ("/put", "/log-in", "/log-out"):
        client.cookies.set("__Host-seen", "x")
        response = client.post(path, json={"a": 1})
        assert not any("seen" in cookie for cookie in response.headers.get_list("set-cookie"))


@pytest.mark.parametrize("acks", [0, True, "some"])
def test_a_wrong_number_of_acknowledgements_is_refused(canister: Canister, acks: Any) -> None:
    with pytest.raises(ConfigError, match="acks"):
        SessionMiddleware(Starlette(), canister=canister, secret_keys=KEY, acks=acks)


# Other kinds of applications and of scopes.


def test_a_websocket_has_the_session_and_commits_at_accept(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(websocket: WebSocket) -> None:
        websocket.session["sockets"] = websocket.session.get("sockets", 0) + 1
        await websocket.accept()
        await websocket.send_json(dict(websocket.session))
        if await websocket.receive_text() == "change":
            websocket.session["late"] = 1
        await websocket.close()

    client = client_of(canister, WebSocketRoute("/talk", talk), strict=False)
    with client.websocket_connect("wss://testserver/talk") as websocket:
        headers = dict(websocket.extra_headers or [])
        assert headers[b"set-cookie"].startswith(NAME.encode())
        assert websocket.receive_json() == {"sockets": 1}
        websocket.send_text("bye")
    token = headers[b"set-cookie"].split(b";")[0].decode()
    assert caplog.text == ""
    with client.websocket_connect("wss://testserver/talk", headers={"cookie": token}) as websocket:
        assert b"set-cookie" not in dict(websocket.extra_headers or [])
        assert websocket.receive_json() == {"sockets": 2}
        websocket.send_text("change")
        with pytest.raises(WebSocketDisconnect):
            websocket.receive_text()
    assert "what websocket /talk changed" in caplog.text


def test_sync_handlers_that_run_in_threads(canister: Canister) -> None:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, canister=canister, secret_keys=KEY)

    @app.post("/add")
    def add(request: Request) -> dict[str, Any]:
        request.session.setdefault("items", []).append("x")
        return dict(request.session)

    client = TestClient(app, base_url="https://testserver")
    client.post("/add")
    assert client.post("/add").json() == {"items": ["x", "x"]}


def test_lifespan_passes_through(canister: Canister) -> None:
    begun: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.append(scope["type"])
        assert "session" not in scope
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with TestClient(SessionMiddleware(app, canister=canister, secret_keys=KEY)):
        assert begun == ["lifespan"]


def test_what_does_not_run_on_asyncio_is_told_so(canister: Canister) -> None:
    async def untold(*_: Any) -> Any:
        raise AssertionError

    middleware = SessionMiddleware(untold, canister=canister, secret_keys=KEY)
    connection = middleware({"type": "http", "path": "/", "headers": []}, untold, untold)
    with pytest.raises(ConfigError, match="needs asyncio"):
        connection.send(None)  # type: ignore[attr-defined]


def test_cookies_in_several_headers_and_several_of_one_name(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    token = client.cookies[NAME]
    client.cookies.clear()
    headers = [("cookie", f"x=1; {NAME}=junk"), ("cookie", f"{NAME}={token}")]
    response = client.get("/", headers=headers)
    assert response.json() == {"a": 1}
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("written", [False, True])
def test_headers_that_can_be_read_only_once_all_arrive(canister: Canister, written: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].update({"a": 1} if written else {})
        headers = (pair for pair in [(b"content-type", b"text/html"), (b"x-own", b"here")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    middleware = SessionMiddleware(app, canister=canister, secret_keys=KEY)
    response = TestClient(middleware, base_url="https://testserver").get("/")
    assert response.headers["content-type"] == "text/html"
    assert response.headers["x-own"] == "here"
    assert response.headers["vary"] == "Cookie"
    assert ("set-cookie" in response.headers) is written


def test_the_example_runs(canister: Canister) -> None:
    client = TestClient(asgi_starlette.make_app(canister), base_url="http://127.0.0.1:8000")
    client.get("/")
    client.post("/log-in?user=ann")
    assert client.get("/?page=b").json() == {"visits": 2, "pages": ["/", "b"], "user": "ann"}
    client.post("/log-out")
    assert client.get("/").json() == {"visits": 1, "pages": ["/"]}
