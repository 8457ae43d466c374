"""The sessions of a Litestar application, over a real canister and through Litestar's own test client."""

import importlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar, MediaType, Request, Response, WebSocket, get, post, websocket
from litestar.connection import ASGIConnection
from litestar.exceptions import WebSocketDisconnect
from litestar.response import Stream
from litestar.security.session_auth import SessionAuth
from litestar.testing import TestClient
from tests.integration.local import last_write, store_away

from canister import Canister, CannotTellError, ConfigError
from canister.integrations.litestar import CanisterSessionConfig, session_of
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("logging_put_back")]

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"
END = CookieSettings().end()
BASE = "https://testserver.local"

AnyRequest = Request[Any, Any, Any]
AnyWebSocket = WebSocket[Any, Any, Any]
AnyConnection = ASGIConnection[Any, Any, Any, Any]


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def with_cookie(value: str) -> dict[str, str]:
    return {"cookie": f"{NAME}={value}"}


def client_of(canister: Canister, *handlers: Any, **settings: Any) -> TestClient[Litestar]:
    config = CanisterSessionConfig(canister, secret_keys=KEY, **settings)
    app = Litestar([*handlers, *HANDLERS], middleware=[config.middleware], logging_config=None)
    return TestClient(app, base_url=BASE, session_config=config)


@get("/untouched")
async def untouched() -> str:
    return "ok"


@get("/skipped", skip_session=True)
async def skipped(request: AnyRequest) -> bool:
    return "session" in request.scope and request.scope["session"] is not None


@get("/")
async def show(request: AnyRequest) -> dict[str, Any]:
    return dict(request.session)


@get("/sync", sync_to_thread=True)
def show_in_thread(request: AnyRequest) -> dict[str, Any]:
    return dict(request.session)


@get("/id")
async def show_id(request: AnyRequest) -> list[str | None]:
    return [request.get_session_id(), session_of(request).handle]


@get("/peek")
async def peek(request: AnyRequest) -> Any:
    return session_of(request).peek("a")


@post("/put")
async def put(request: AnyRequest) -> str:
    request.session.update(await request.json())
    return "ok"


@post("/append")
async def append(request: AnyRequest) -> str:
    request.session.setdefault("list", []).append(len(request.session["list"]))
    return "ok"


@post("/log-in")
async def log_in(request: AnyRequest) -> str:
    session_of(request).login("ann")
    return "ok"


@post("/log-out")
async def log_out(request: AnyRequest) -> str:
    request.clear_session()
    return "ok"


HANDLERS = [untouched, skipped, show, peek, show_in_thread, show_id, put, append, log_in, log_out]


def test_an_untouched_request_writes_nothing_and_sends_no_cookie(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(canister)
    assert client.get("/untouched").headers.keys() == {"content-length", "content-type"}
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    clock.advance(timedelta(minutes=10))
    for path in ("/untouched", "/skipped"):
        assert client.get(path).headers.keys() == {"content-length", "content-type"}
    assert client.get("/skipped").json() is False
    assert last_write(canister) == before


def test_vary_stays_one_line(canister: Canister) -> None:
    @get("/vary")
    async def vary(request: AnyRequest) -> Response[str]:
        request.session["a"] = 1
        return Response("ok", headers={"Vary": "Accept"})

    assert client_of(canister, vary).get("/vary").headers.get_list("vary") == ["Accept, Cookie"]


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
    assert "set-cookie" not in response.headers
    assert client.get("/sync").json() == {"a": [1]}


def test_nested_edits_are_saved(canister: Canister) -> None:
    client = client_of(canister)
    for _ in range(3):
        client.post("/append")
    assert client.get("/").json() == {"list": [0, 1, 2]}


@get("/whole")
async def whole(request: AnyRequest) -> dict[str, Any]:
    return request.session


@get("/nested", media_type=MediaType.MESSAGEPACK)
async def nested(request: AnyRequest) -> dict[str, Any]:
    return {"nested": [request.session]}


@pytest.mark.parametrize("path", ["/whole", "/nested"])
def test_what_is_encoded_past_the_sessions_methods_is_read_all_the_same(
    canister: Canister, clock: ManualClock, path: str
) -> None:
    client = client_of(canister, whole, nested)
    client.post("/put", json={"a": 1})
    for _ in range(4):
        response = client.get(path)
        assert b"a" in response.content
        assert response.headers["vary"] == "Cookie"
        clock.advance(timedelta(minutes=8))
    assert client.get("/whole").json() == {"a": 1}, "it was used all the time"
    before = last_write(canister)
    clock.advance(timedelta(minutes=8))
    assert client.get("/peek").json() == 1
    assert last_write(canister) == before, "that is no access"


def test_what_the_application_puts_into_the_scope_is_seen_around_the_sessions(canister: Canister) -> None:
    seen: list[Any] = []

    @get("/user")
    async def log_in(request: AnyRequest) -> str:
        request.scope["user"] = "ann"
        return "ok"

    def around(app: Any) -> Any:
        async def middleware(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                seen.append(scope.get("user"))
                await send(message)

            await app(scope, receive, sending)
            seen.append(dict(scope["session"]))

        return middleware

    config = CanisterSessionConfig(canister, secret_keys=KEY)
    app = Litestar([log_in, put], middleware=[around, config.middleware], logging_config=None)
    client = TestClient(app, base_url=BASE, session_config=config)
    client.post("/put", json={"a": 1})
    assert client.get("/user").text == "ok"
    assert seen[-3:] == ["ann", "ann", {"a": 1}]


def test_the_session_id_is_the_handle_and_no_secret(canister: Canister) -> None:
    client = client_of(canister)
    assert client.get("/id").json() == [None, None]
    client.post("/put", json={"a": 1})
    (handle,) = canister.all_sessions()
    assert client.get("/id").json() == [handle, handle]


def test_a_chosen_id_is_not_adopted(canister: Canister) -> None:
    client = client_of(canister)
    response = client.post("/put", json={"a": 1}, headers=with_cookie("chosen-by-an-attacker"))
    assert "chosen" not in response.headers["set-cookie"]


def test_logging_in_changes_the_id_and_logging_out_ends_the_session(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    before = client.cookies[NAME]
    client.post("/log-in")
    after = client.cookies[NAME]
    assert after != before
    assert client.get("/", headers=with_cookie(before)).json() == {}
    client.cookies.set(NAME, after, domain="testserver.local", path="/")
    response = client.post("/log-out")
    assert response.headers["set-cookie"] == END
    assert client.get("/", headers=with_cookie(after)).json() == {}
    assert list(canister.all_sessions()) == []


def test_what_is_set_in_the_sessions_place_is_stored(canister: Canister) -> None:
    @dataclass
    class Profile:
        name: str
        tags: list[str]

    @post("/profile")
    async def set_profile(request: AnyRequest) -> None:
        request.set_session(Profile("ann", ["a"]))

    @post("/dict")
    async def set_dict(request: AnyRequest) -> None:
        request.set_session({"b": 2})

    client = client_of(canister, set_profile, set_dict)
    client.post("/put", json={"a": 1})
    client.post("/profile")
    assert client.get("/").json() == {"name": "ann", "tags": ["a"]}
    client.post("/dict")
    assert client.get("/").json() == {"b": 2}


def test_test_clients_set_and_get_session_data(canister: Canister) -> None:
    client = client_of(canister)
    with client:
        client.set_session_data({"a": 1})
        assert client.get("/").json() == {"a": 1}
        client.post("/put", json={"b": 2})
        assert client.get_session_data() == {"a": 1, "b": 2}
        client.set_session_data({"c": 3})
        assert client.get("/").json() == {"c": 3}


def test_all_handlers_share_one_manager(canister: Canister) -> None:
    config = CanisterSessionConfig(canister, secret_keys=KEY)
    made = {id(config.middleware.kwargs["backend"].config.manager) for _ in range(3)}
    assert made == {id(config.manager)}


def test_paths_can_be_excluded(canister: Canister) -> None:
    client = client_of(canister, exclude="^/$")
    assert client.get("/").status_code == 500
    assert client.get("/sync").json() == {}


def test_the_accessor_needs_the_middleware() -> None:
    @get("/")
    async def index(request: AnyRequest) -> None:
        with pytest.raises(ConfigError, match="SessionMiddleware"):
            session_of(request)

    assert TestClient(Litestar([index])).get("/").status_code == 200


# Litestar's own session authentication.


def auth_client(canister: Canister, **settings: Any) -> tuple[TestClient[Litestar], CanisterSessionConfig]:
    @post("/enter", exclude_from_auth=True)
    async def enter(request: AnyRequest) -> None:
        session_of(request).login("ann")
        request.session["user_id"] = "ann"

    @get("/me")
    async def me(request: AnyRequest) -> str:
        return str(request.user)

    @get("/public", exclude_from_auth=True)
    async def public(request: AnyRequest) -> dict[str, Any]:
        return dict(request.session)

    @post("/cart", exclude_from_auth=True)
    async def cart(request: AnyRequest) -> None:
        request.session["cart"] = "tea"

    async def find(session: dict[str, Any], connection: AnyConnection) -> Any:
        return session.get("user_id")

    config = CanisterSessionConfig(canister, secret_keys=KEY, **settings)
    auth = SessionAuth[Any, Any](
        retrieve_user_handler=find, session_backend_config=config, exclude=["/schema"]
    )
    app = Litestar([enter, me, public, cart, log_out], on_app_init=[auth.on_app_init])
    return TestClient(app, base_url=BASE), config


def test_session_auth_finds_the_user(canister: Canister) -> None:
    client, _ = auth_client(canister)
    assert client.get("/me").status_code == 401
    assert NAME not in client.cookies
    client.post("/enter")
    assert client.get("/me").text == "ann"
    client.post("/log-out")
    assert client.get("/me").status_code == 401


def test_session_auth_empties_a_session_without_a_user(canister: Canister) -> None:
    """As Litestar's own backends do."""
    client, _ = auth_client(canister)
    client.post("/cart")
    assert client.get("/public").json() == {"cart": "tea"}
    assert client.get("/me").status_code == 401
    assert client.get("/public").json() == {}
    before = last_write(canister)
    assert client.get("/me").status_code == 401
    assert last_write(canister) == before, "what is empty is not emptied again"


def test_session_auth_logs_nobody_out_where_the_node_cannot_tell(
    cut_off: Canister, clock: ManualClock
) -> None:
    client, _ = auth_client(cut_off)
    before = last_write(cut_off)
    for settings in ({}, {"when_behind": "refuse"}):
        client, _ = auth_client(cut_off, **settings)
        response = client.get("/me", headers=with_cookie(token_of_elsewhere(clock)))
        assert response.status_code == 503
        assert "set-cookie" not in response.headers
    assert last_write(cut_off) == before


# Not knowing is not absence.


def test_a_node_that_cannot_tell_serves_reads_refuses_writes_and_leaves_the_cookie(
    cut_off: Canister, clock: ManualClock
) -> None:
    client = client_of(cut_off)
    cookie = with_cookie(token_of_elsewhere(clock))
    before = last_write(cut_off)
    response = client.get("/", headers=cookie)
    assert (response.status_code, response.json()) == (200, {})
    assert "set-cookie" not in response.headers
    response = client.post("/put", json={"a": 1}, headers=cookie)
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert "set-cookie" not in response.headers
    assert last_write(cut_off) == before


def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    client = client_of(canister)
    client.post("/put", json={"a": 1})
    with store_away(canister):
        assert client.get("/untouched").status_code == 200
        for method, path in [("GET", "/"), ("POST", "/log-in"), ("POST", "/log-out")]:
            response = client.request(method, path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "2"), path
            assert "set-cookie" not in response.headers
    assert client.get("/").json() == {"a": 1}


def test_what_a_handler_may_not_read_is_503_unless_the_application_handles_it(
    cut_off: Canister, clock: ManualClock
) -> None:
    cookie = with_cookie(token_of_elsewhere(clock))
    client = client_of(cut_off, when_behind="refuse")
    response = client.get("/", headers=cookie)
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")

    def own(request: AnyRequest, error: Exception) -> Response[str]:
        return Response("one moment", status_code=418)

    config = CanisterSessionConfig(cut_off, secret_keys=KEY, when_behind="refuse")
    app = Litestar([show], middleware=[config.middleware], exception_handlers={CannotTellError: own})
    assert TestClient(app, base_url=BASE).get("/", headers=cookie).text == "one moment"


# WebSockets and streams.


@websocket("/talk")
async def talk(socket: AnyWebSocket) -> None:
    socket.session["sockets"] = socket.session.get("sockets", 0) + 1
    await socket.accept()
    await socket.send_json(dict(socket.session))
    if await socket.receive_text() == "change":
        socket.session["late"] = 1
        await session_of(socket).acommit()
    await socket.close()


def test_a_websocket_has_the_session_and_commits_at_accept(canister: Canister) -> None:
    client = client_of(canister, talk)
    client.post("/put", json={"a": 1})
    with client.websocket_connect("wss://testserver.local/talk") as socket:
        assert socket.receive_json() == {"a": 1, "sockets": 1}
        assert client.get("/").json() == {"a": 1, "sockets": 1}
        socket.send_text("change")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()
    assert client.get("/").json() == {"a": 1, "sockets": 1, "late": 1}


def test_a_change_after_the_headers_left_is_reported(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    @get("/stream")
    async def stream(request: AnyRequest) -> Stream:
        async def body() -> AsyncIterator[str]:
            yield "a"
            request.session["late"] = 1

        request.session["early"] = 1
        return Stream(body())

    client = client_of(canister, stream, strict=False)
    caplog.set_level(logging.ERROR, "canister.sessions")
    client.get("/stream")
    assert "what http /stream changed" in caplog.text
    assert client.get("/").json() == {"early": 1}


def test_the_example_runs(canister: Canister) -> None:
    module = importlib.import_module("examples.litestar_shop")
    client = TestClient(module.make_app(canister), base_url="http://127.0.0.1:8000")
    client.post("/cart/tea")
    assert client.post("/cart/tea").json() == {"tea": 2}
    assert client.get("/me").status_code == 401
    client.post("/log-in/ann")
    assert client.get("/me").json() == {"user": "ann", "cart": {"tea": 2}}
    client.post("/log-out")
    assert client.get("/me").status_code == 401
    assert [client.get("/news").status_code for _ in range(2)] == [200, 200]
