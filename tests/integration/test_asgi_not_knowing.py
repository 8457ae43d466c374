"""What the ASGI adapter does where the node cannot tell, cannot store, or is not acknowledged."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.integration.asgi_kit import (
    END,
    KEY,
    NAME,
    WebSocketDenialResponse,
    client_of,
    token_of_elsewhere,
    with_cookie,
)
from tests.integration.local import last_write, store_away

from canister import Canister, CannotTellError
from canister.integrations.asgi import SessionMiddleware, session_of
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration


def test_a_node_that_cannot_tell_serves_reads_refuses_writes_and_leaves_the_cookie(
    cut_off: Canister, clock: ManualClock
) -> None:
    client = client_of(cut_off)
    cookie = with_cookie(token_of_elsewhere(clock))
    before = last_write(cut_off)
    for path in ("/", "/untouched"):
        response = client.get(path, headers=cookie)
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
    response = client.post("/put", json={"a": 1}, headers=cookie)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"
    assert "set-cookie" not in response.headers
    assert "cookie was left as it is" in response.text
    assert last_write(cut_off) == before


def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    async def who(request: Request) -> Response:
        return JSONResponse(session_of(request).user)

    client = client_of(canister, Route("/who", who))
    client.post("/put", json={"a": 1})
    with store_away(canister):
        assert client.get("/untouched").status_code == 200
        for method, path in [("GET", "/"), ("GET", "/who"), ("POST", "/log-in"), ("POST", "/log-out")]:
            response = client.request(method, path)
            assert response.status_code == 503, path
            assert response.headers["retry-after"] == "2"
            assert "set-cookie" not in response.headers
    assert client.get("/").json() == {"a": 1}


def test_a_node_that_cannot_tell_may_refuse_reads_as_well(cut_off: Canister, clock: ManualClock) -> None:
    client = client_of(cut_off, when_behind="refuse")
    cookie = with_cookie(token_of_elsewhere(clock))
    for method, path in [("GET", "/"), ("GET", "/peek"), ("POST", "/put"), ("POST", "/append")]:
        response = client.request(method, path, headers=cookie, json={"a": 1})
        assert response.status_code == 503, path
        assert response.headers["retry-after"] == "2"
        assert "set-cookie" not in response.headers
    assert client.get("/").status_code == 200, "without a cookie there is nothing to tell"


def test_where_it_refuses_routes_that_use_no_session_go_on(cut_off: Canister, clock: ManualClock) -> None:
    client = client_of(cut_off, when_behind="refuse")
    response = client.get("/untouched", headers=with_cookie(token_of_elsewhere(clock)))
    assert (response.status_code, response.text) == (200, "ok")
    assert dict(response.headers).keys() == {"content-length", "content-type"}


def test_where_it_refuses_log_in_and_log_out_still_work(cut_off: Canister, clock: ManualClock) -> None:
    client = client_of(cut_off, when_behind="refuse")
    token = token_of_elsewhere(clock)
    assert client.post("/log-out", headers=with_cookie(token)).headers["set-cookie"] == END
    client.post("/log-in", headers=with_cookie(token_of_elsewhere(clock)))
    assert client.get("/").json() == {"user": "ann"}


def test_an_application_can_tell_no_session_from_cannot_tell(cut_off: Canister, clock: ManualClock) -> None:
    async def ask(request: Request) -> Response:
        session = session_of(request)
        return JSONResponse([session.cannot_tell, session.is_behind])

    for settings in ({}, {"when_behind": "refuse"}):
        client = client_of(cut_off, Route("/ask", ask), **settings)
        assert client.get("/ask").json() == [False, False]
        assert client.get("/ask", headers=with_cookie(token_of_elsewhere(clock))).json() == [True, False]


def test_what_is_put_in_a_refused_sessions_place_is_refused(cut_off: Canister, clock: ManualClock) -> None:
    async def replace(request: Request) -> Response:
        request.scope["session"] = {"b": 2}
        return PlainTextResponse("ok")

    client = client_of(cut_off, Route("/replace", replace), when_behind="refuse")
    assert client.get("/replace", headers=with_cookie(token_of_elsewhere(clock))).status_code == 503
    assert last_write(cut_off) == 0


def test_a_refusal_after_the_headers_left_is_the_servers_error(cut_off: Canister, clock: ManualClock) -> None:
    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[str]:
            yield "a"
            yield request.session["b"]

        return StreamingResponse(body())

    client = client_of(cut_off, Route("/stream", stream), when_behind="refuse")
    with pytest.raises(CannotTellError):
        client.get("/stream", headers=with_cookie(token_of_elsewhere(clock)))


def test_a_websocket_is_refused_where_the_node_cannot_tell(cut_off: Canister, clock: ManualClock) -> None:
    async def talk(websocket: WebSocket) -> None:
        websocket.session["a"] = 1
        await websocket.accept()
        await websocket.send_text("never seen")

    cookie = with_cookie(token_of_elsewhere(clock))
    for settings in ({}, {"when_behind": "refuse"}):
        client = client_of(cut_off, WebSocketRoute("/talk", talk), **settings)
        with (
            pytest.raises(WebSocketDenialResponse) as caught,
            client.websocket_connect("wss://testserver/talk", headers=cookie),
        ):
            pass
        assert caught.value.status_code == 503
        assert caught.value.headers["retry-after"]
        assert "set-cookie" not in caught.value.headers


def test_a_server_that_cannot_refuse_a_websocket_with_a_page_closes_it(
    cut_off: Canister, clock: ManualClock
) -> None:
    async def talk(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["a"] = 1
        await send({"type": "websocket.accept"})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    sent: list[Any] = []
    cookie = f"{NAME}={token_of_elsewhere(clock)}".encode()
    scope = {"type": "websocket", "path": "/talk", "scheme": "wss", "headers": [(b"cookie", cookie)]}
    middleware = SessionMiddleware(talk, canister=cut_off, secret_keys=KEY)
    asyncio.run(middleware(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": "try again later"}]


def test_a_log_in_of_a_websocket_that_is_not_acknowledged_keeps_its_cookie(cut_off: Canister) -> None:
    async def talk(websocket: WebSocket) -> None:
        websocket.session.login("ann")
        await websocket.accept()

    client = client_of(cut_off, WebSocketRoute("/talk", talk), acks=2)
    client.post("/put", json={"a": 1})
    with (
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("wss://testserver/talk"),
    ):
        pass
    assert caught.value.status_code == 503
    assert f"{NAME}=" in caught.value.headers["set-cookie"]


def test_a_cut_off_node_still_makes_and_serves_its_own_sessions(cut_off: Canister) -> None:
    client = client_of(cut_off)
    client.post("/put", json={"a": 1})
    assert client.get("/").json() == {"a": 1}


def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: Canister) -> None:
    client = client_of(cut_off, acks=2)
    response = client.post("/put", json={"a": 1})
    assert response.status_code == 503
    assert "it stands on this node" in response.text
    assert NAME in client.cookies, "or nobody could reach what stands"
    assert client.get("/").json() == {"a": 1}
    response = client.post("/put", json={"b": 2})
    assert response.status_code == 503
    response = client.post("/log-in")
    assert response.status_code == 503
    assert client.get("/").json() == {"a": 1, "b": 2, "user": "ann"}
    assert client.post("/log-out").status_code == 503
    assert NAME not in client.cookies


def test_the_cookie_of_what_the_application_itself_has_stored_goes_with_a_refusal(
    cut_off: Canister, clock: ManualClock
) -> None:
    async def log_in_now(request: Request) -> Response:
        request.session.login("ann")
        await request.session.acommit()
        return PlainTextResponse("never reached")

    async def log_in_and_ask(request: Request) -> Response:
        request.session.login("ann")
        request.session["a"] = 1
        await request.session.acommit()
        request.session["lost"] = 1
        raise CannotTellError("somebody else's session")

    routes = [Route("/now", log_in_now), Route("/ask", log_in_and_ask)]
    client = client_of(cut_off, *routes, acks=2)
    response = client.get("/now")
    assert response.status_code == 503
    assert "it stands on this node" in response.text
    assert NAME in client.cookies, "or nobody could reach what stands"
    client = client_of(cut_off, *routes)
    assert client.get("/ask").status_code == 503
    assert client.get("/").json() == {"a": 1}


def test_recording_an_access_waits_for_no_acknowledgement(cut_off: Canister, clock: ManualClock) -> None:
    client = client_of(cut_off)
    client.post("/put", json={"a": 1})
    clock.advance(timedelta(minutes=2))
    before = last_write(cut_off)
    careful = client_of(cut_off, acks=2)
    assert careful.get("/", headers=with_cookie(client.cookies[NAME])).json() == {"a": 1}
    assert last_write(cut_off) == clock.now() > before
