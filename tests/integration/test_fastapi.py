"""The typed dependencies, in HTTP and WebSocket routes of a FastAPI application."""

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Form, WebSocket
from starlette.exceptions import StarletteDeprecationWarning
from tests.integration.asgi_kit import KEY, NAME, token_of_elsewhere, with_cookie

from canister import Canister, ConfigError
from canister.integrations.asgi import SessionMiddleware
from canister.integrations.fastapi import (
    CsrfProtected,
    CsrfToken,
    CurrentManager,
    CurrentSession,
    CurrentUser,
)
from canister.testing.clock import ManualClock

with warnings.catch_warnings():
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient, WebSocketDenialResponse

pytestmark = pytest.mark.integration

HOST = "https://testserver"


def client_of(canister: Canister, **settings: Any) -> TestClient:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, canister=canister, secret_keys=KEY, **settings)

    @app.post("/log-in/{user}")
    async def log_in(user: str, session: CurrentSession) -> None:
        session.login(user)

    @app.get("/me")
    async def me(user: CurrentUser) -> str:
        return str(user)

    @app.get("/sync")
    def sync(user: CurrentUser, session: CurrentSession) -> list[Any]:
        return [user, session.handle is not None]

    @app.post("/end-others")
    def end_others(user: CurrentUser, session: CurrentSession, manager: CurrentManager) -> int:
        return manager.users.end_all(user, keep=session)

    @app.get("/form")
    async def form(token: CsrfToken) -> str:
        return token

    @app.post("/pay", dependencies=[CsrfProtected])
    async def pay(session: CurrentSession) -> None:
        session["paid"] = True

    @app.post("/pay-form", dependencies=[CsrfProtected])
    async def pay_form(amount: Annotated[int, Form()]) -> int:
        return amount

    @app.websocket("/talk")
    async def talk(websocket: WebSocket, user: CurrentUser, session: CurrentSession) -> None:
        session["talked"] = True
        await websocket.accept()
        await websocket.send_text(f"hello {user}")
        await websocket.close()

    @app.websocket("/pay", dependencies=[CsrfProtected])
    async def pay_by_socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(1000)

    return TestClient(app, base_url=HOST)


def test_the_user_is_given_to_async_and_sync_routes(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/log-in/ann")
    assert client.get("/me").json() == "ann"
    assert client.get("/sync").json() == ["ann", True]


def test_without_a_user_it_is_401_and_nothing_is_stored(canister: Canister) -> None:
    client = client_of(canister)
    for path in ("/me", "/sync"):
        response = client.get(path)
        assert (response.status_code, response.json()) == (401, {"detail": "Log in first."})
        assert response.headers["vary"] == "Cookie"
        assert "set-cookie" not in response.headers


def test_asking_for_the_user_counts_as_an_access(canister: Canister, clock: ManualClock) -> None:
    client = client_of(canister)
    client.post("/log-in/ann")
    for _ in range(5):
        clock.advance(timedelta(minutes=15))
        assert client.get("/me").json() == "ann"


def test_a_user_can_end_their_other_sessions(canister: Canister) -> None:
    laptop, phone = client_of(canister), client_of(canister)
    for client in (laptop, phone):
        client.post("/log-in/ann")
    assert laptop.post("/end-others").json() == 1
    assert phone.get("/me").status_code == 401
    assert laptop.get("/me").json() == "ann"


def test_without_the_middleware_it_says_what_to_add() -> None:
    app = FastAPI()

    @app.get("/")
    def ask(manager: CurrentManager) -> None:
        """Ask for the manager."""

    with pytest.raises(ConfigError, match="SessionMiddleware"):
        TestClient(app).get("/")


def test_a_websocket_has_user_and_session(canister: Canister) -> None:
    client = client_of(canister)
    client.post("/log-in/ann")
    cookie = with_cookie(client.cookies[NAME])
    with client.websocket_connect("wss://testserver/talk", headers=cookie) as websocket:
        assert websocket.receive_text() == "hello ann"
    (handle,) = canister.all_sessions()
    assert canister.get(handle, "talked") is True


def test_a_websocket_without_a_user_is_refused_with_401(canister: Canister) -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client_of(canister).websocket_connect("wss://testserver/talk"),
    ):
        pass
    assert denied.value.status_code == 401


def test_nobody_is_sent_to_the_log_in_by_a_node_that_cannot_tell(
    cut_off: Canister, clock: ManualClock
) -> None:
    for settings in ({}, {"when_behind": "refuse"}):
        client = client_of(cut_off, **settings)
        cookie = with_cookie(token_of_elsewhere(clock))
        for method, path in (("GET", "/me"), ("GET", "/sync"), ("POST", "/pay")):
            response = client.request(method, path, headers=cookie)
            assert response.status_code == 503, path
            assert "set-cookie" not in response.headers
        with (
            pytest.raises(WebSocketDenialResponse) as denied,
            client.websocket_connect("wss://testserver/talk", headers=cookie),
        ):
            pass
        assert denied.value.status_code == 503


def test_a_locked_session_is_403(tmp_path: Path, clock: ManualClock) -> None:
    with Canister(tmp_path / "locking", clock=clock, lock_timeout="5m") as canister:
        client = client_of(canister)
        client.post("/log-in/ann")
        clock.advance(timedelta(minutes=10))
        assert client.get("/me").status_code == 403
        client.post("/log-in/ann")
        assert client.get("/me").json() == "ann"


def test_a_change_needs_the_sessions_token(canister: Canister) -> None:
    client, other = client_of(canister), client_of(canister)
    token = client.get("/form").json()
    foreign = other.get("/form").json()
    assert client.post("/pay").status_code == 403
    assert client.post("/pay", headers={"X-CSRF-Token": foreign}).status_code == 403
    assert client.post("/pay", json={"csrf_token": token}).status_code == 403, "JSON is no form"
    assert client.post("/pay", headers={"X-CSRF-Token": token}).status_code == 200
    assert client.post("/pay", data={"csrf_token": token}).status_code == 200
    response = client.post("/pay-form", data={"csrf_token": token, "amount": "3"})
    assert (response.status_code, response.json()) == (200, 3)
    response = client.post("/pay-form", data={"amount": "3"}, files={"csrf_token": b"x"})
    assert response.status_code == 403
    client.post("/log-in/ann")
    assert client.post("/pay", headers={"X-CSRF-Token": token}).status_code == 403, "of before the log-in"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://testserver", True),
        ("https://TESTSERVER", True),
        ("https://evil.example", False),
        ("https://testserver.evil.example", False),
        ("https://testserver:8443", False),
        ("null", False),
        ("https://[", False),
        ("", False),
    ],
)
def test_a_websocket_comes_from_a_page_of_this_host(
    canister: Canister, origin: str | None, allowed: bool
) -> None:
    headers = {} if origin is None else {"origin": origin}
    client = client_of(canister)

    def connect() -> None:
        with client.websocket_connect("wss://testserver/pay", headers=headers):
            pass

    if allowed:
        connect()
        return
    with pytest.raises(WebSocketDenialResponse) as denied:
        connect()
    assert denied.value.status_code == 403
