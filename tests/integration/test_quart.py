"""Sessions in Quart, with its test client, over a real canister."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from quart import Quart, Response, flash, get_flashed_messages, jsonify, request, session, websocket
from quart.helpers import stream_with_context
from quart.testing import WebsocketResponseError
from quart.testing.connections import WebsocketDisconnectError
from tests.integration.local import last_write, store_away

from canister import Canister, CanisterError, CannotTellError, SessionError
from canister.integrations.quart import CanisterSessions
from canister.record import NodeId, make_version
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"


class Client:
    """Quart's test client, over https and without a running loop between its requests."""

    def __init__(self, app: Quart) -> None:
        self.client = app.test_client()

    def open(self, method: str, path: str, **arguments: Any) -> Any:
        async def ask() -> Any:
            response = await self.client.open(path, method=method, scheme="https", **arguments)
            response.body = await response.get_data(as_text=True)
            return response

        return asyncio.run(ask())

    def get(self, path: str, **arguments: Any) -> Any:
        return self.open("GET", path, **arguments)

    def post(self, path: str, **arguments: Any) -> Any:
        return self.open("POST", path, **arguments)

    def data(self) -> Any:
        return asyncio.run(self.get("/").get_json())

    @property
    def token(self) -> str | None:
        assert self.client.cookie_jar is not None
        return next((cookie.value for cookie in self.client.cookie_jar if cookie.name == NAME), None)


def make_app(canister: Canister, options: Any = None, **config: Any) -> Quart:
    app = Quart(__name__)
    app.config.update({"SECRET_KEY": KEY, "TESTING": True} | config)
    CanisterSessions(app, canister=canister, **(options or {}))

    @app.get("/plain")
    async def plain() -> str:
        return "plain"

    @app.get("/")
    async def show() -> Any:
        return jsonify(dict(session))

    @app.post("/put")
    async def put() -> str:
        session.update(await request.get_json())
        return "ok"

    @app.post("/regenerate")
    async def regenerate() -> str:
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]
        return "ok"

    return app


def cookies_of(response: Any) -> list[str]:
    return response.headers.getlist("Set-Cookie")


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def with_token(token: str | None) -> dict[str, Any]:
    return {"headers": {"Cookie": f"{NAME}={token}"}}


# A session's life.


def test_an_untouched_request_writes_nothing_and_sends_no_cookie(
    canister: Canister, clock: ManualClock
) -> None:
    client = Client(make_app(canister))
    assert cookies_of(client.get("/plain")) == []
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    clock.advance(timedelta(minutes=10))
    response = client.get("/plain")
    assert cookies_of(response) == []
    assert "Vary" not in response.headers
    assert last_write(canister) == before


def test_vary_stays_one_line(canister: Canister) -> None:
    app = make_app(canister)

    @app.get("/vary")
    async def vary() -> Any:
        session["a"] = 1
        return "ok", {"Vary": "Accept"}

    assert Client(app).get("/vary").headers.getlist("Vary") == ["Accept, Cookie"]


def test_a_first_value_sends_the_safe_cookie_and_the_next_request_finds_it(canister: Canister) -> None:
    client = Client(make_app(canister))
    response = client.post("/put", json={"a": [1]})
    (cookie,) = cookies_of(response)
    assert cookie.startswith(f"{NAME}=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    assert response.headers["Vary"] == "Cookie"
    response = client.get("/")
    assert response.headers["Vary"] == "Cookie"
    assert cookies_of(response) == []
    assert client.data() == {"a": [1]}


def test_regenerate_goes_on_under_a_new_id(canister: Canister) -> None:
    app = make_app(canister)
    client = Client(app)
    client.post("/put", json={"a": 1})
    old = client.token
    client.post("/regenerate")
    assert client.token != old
    assert client.data() == {"a": 1}
    assert Client(app).get("/", **with_token(old)).body.strip() == "{}"


def test_a_log_in_and_a_log_out_with_the_sessions_own_methods(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/login")
    async def log_in() -> str:
        session.login("ann")  # type: ignore[attr-defined]
        return "ok"

    @app.post("/logout")
    async def log_out() -> str:
        session.logout()  # type: ignore[attr-defined]
        return "ok"

    client = Client(app)
    users = app.extensions["canister"].users
    client.post("/login")
    assert len(users.sessions("ann")) == 1
    client.post("/logout")
    assert users.sessions("ann") == []
    assert client.token is None


def test_a_permanent_session_has_its_own_idle_time_and_its_cookie_an_age(
    canister: Canister, clock: ManualClock
) -> None:
    app = make_app(canister, PERMANENT_SESSION_LIFETIME=timedelta(days=5))

    @app.post("/permanent")
    async def permanent() -> str:
        session.permanent = True
        return "ok"

    client = Client(app)
    client.post("/put", json={"a": 1})
    assert cookies_of(client.post("/permanent"))[0].endswith("; Max-Age=432000")
    clock.advance(timedelta(days=4))
    assert cookies_of(client.get("/plain"))[0].endswith("; Max-Age=432000"), "refreshed by each request"
    clock.advance(timedelta(days=4))
    assert client.data() == {"_permanent": True, "a": 1}


def test_flashed_messages(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/flash")
    async def say() -> str:
        await flash("hello", "info")
        return "ok"

    @app.get("/flashes")
    async def said() -> Any:
        return jsonify(get_flashed_messages(with_categories=True))

    client = Client(app)
    client.post("/flash")
    assert asyncio.run(client.get("/flashes").get_json()) == [["info", "hello"]]
    assert client.data() == {}


def test_cookie_headers_in_several_pieces(canister: Canister) -> None:
    app = make_app(canister)
    client = Client(app)
    client.post("/put", json={"a": 1})
    headers = [("cookie", "x=1"), ("cookie", f"{NAME}={client.token}")]
    assert Client(app).get("/", headers=headers).body.strip() == '{"a":1}'


def test_plain_http_serves_private_hosts_only(canister: Canister) -> None:
    client = Client(make_app(canister, CANISTER_INSECURE_COOKIES=True))
    assert client.get("/plain").status_code == 200
    assert client.get("/plain", headers={"Host": "example.org"}).status_code == 500


def test_the_test_clients_session_transaction(canister: Canister) -> None:
    client = Client(make_app(canister))

    async def change() -> None:
        async with client.client.session_transaction(scheme="https") as transaction:
            transaction["a"] = 1

    asyncio.run(change())
    assert client.data() == {"a": 1}


def test_the_test_client_looks_at_the_session_after_the_response(canister: Canister) -> None:
    client = Client(make_app(canister)).client

    async def look() -> tuple[Any, ...]:
        async with client:
            await client.post("/put", json={"_flashes": [("info", "saved")]}, scheme="https")
            own: Any = session._get_current_object()  # type: ignore[attr-defined]
            return own.accessed, own.modified, get_flashed_messages()

    assert asyncio.run(look()) == (True, True, ["saved"])


def test_the_manager_of_the_current_application(canister: Canister) -> None:
    sessions = CanisterSessions(canister=canister)
    app = Quart(__name__)
    app.config["SECRET_KEY"] = KEY
    sessions.init_app(app)
    assert app.session_interface.get_cookie_name(app) == NAME

    async def look() -> object:
        async with app.app_context():
            return sessions.manager

    assert asyncio.run(look()) is app.extensions["canister"]


# What goes wrong.


def test_what_cannot_be_stored_is_a_500_and_is_committed_once(
    canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(canister, PROPAGATE_EXCEPTIONS=False)

    @app.get("/bad")
    async def bad() -> str:
        session["a"] = object()
        return "ok"

    commits: list[object] = []
    commit = app.extensions["canister"].acommit
    monkeypatch.setattr(app.extensions["canister"], "acommit", lambda s: (commits.append(s), commit(s))[1])
    response = Client(app).get("/bad")
    assert response.status_code == 500
    assert len(commits) == 1
    assert cookies_of(response) == []
    assert last_write(canister) == 0


def test_the_page_of_an_error_has_the_cookie_of_what_was_stored_before(canister: Canister) -> None:
    app = make_app(canister, PROPAGATE_EXCEPTIONS=False)

    @app.post("/bad")
    async def bad() -> str:
        cast("Any", session).login("ann")
        await cast("Any", session).acommit()
        session["a"] = object()
        return "ok"

    client = Client(app)
    response = client.post("/bad")
    assert response.status_code == 500
    assert len(cookies_of(response)) == 1


def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    client = Client(make_app(canister))
    client.post("/put", json={"a": 1})
    with store_away(canister):
        assert client.get("/plain").status_code == 200
        for method, path in [("GET", "/"), ("POST", "/regenerate")]:
            response = client.open(method, path)
            assert response.status_code == 503, path
            assert response.headers["Retry-After"] == "2"
            assert cookies_of(response) == []
    assert client.data() == {"a": 1}


def test_what_cannot_be_told_is_a_503_that_leaves_the_cookie_alone(
    cut_off: Canister, clock: ManualClock
) -> None:
    cookie = with_token(token_of_elsewhere(clock))
    app = make_app(cut_off)
    response = Client(app).open("POST", "/put", json={"a": 1}, **cookie)
    assert response.status_code == 503
    assert "cookie was left as it is" in response.body
    assert response.headers["Retry-After"] == "2"
    assert cookies_of(response) == []
    refusing = make_app(cut_off, CANISTER_WHEN_BEHIND="refuse")
    assert Client(refusing).get("/", **cookie).status_code == 503
    assert Client(refusing).get("/plain", **cookie).status_code == 200


@pytest.mark.parametrize("kind", [CannotTellError, CanisterError])
def test_the_application_may_answer_refusals_itself(
    cut_off: Canister, clock: ManualClock, kind: type[CanisterError]
) -> None:
    app = make_app(cut_off)

    @app.errorhandler(kind)
    async def own(error: CanisterError) -> tuple[str, int]:
        return "own answer", 418

    response = Client(app).open("POST", "/put", json={"a": 1}, **with_token(token_of_elsewhere(clock)))
    assert (response.status_code, response.body) == (418, "own answer")


def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: Canister) -> None:
    client = Client(make_app(cut_off, {"acks": 2}))
    response = client.post("/put", json={"a": 1})
    assert response.status_code == 503
    assert "it stands on this node" in response.body
    assert client.token is not None
    assert client.data() == {"a": 1}


# Streams and WebSockets.


@pytest.mark.parametrize("commit", [True, False])
def test_a_stream_commits_what_it_changes_or_it_is_told(canister: Canister, commit: bool) -> None:
    app = make_app(canister)

    @app.get("/stream")
    async def stream() -> Response:
        @stream_with_context
        async def body() -> AsyncIterator[str]:
            yield str(session.get("a"))
            session["late"] = True
            if commit:
                await session.acommit()  # type: ignore[attr-defined]
            yield "!"

        return Response(body())

    client = Client(app)
    client.post("/put", json={"a": 1})
    if commit:
        assert client.get("/stream").body == "1!"
        assert client.data() == {"a": 1, "late": True}
    else:
        with pytest.raises(SessionError, match="GET /stream"):
            client.get("/stream")
        assert client.data() == {"a": 1}


def through_websocket(
    app: Quart,
    handler: Callable[[], Awaitable[None]],
    talk: Callable[[Any], Awaitable[None]],
    token: Any = None,
) -> list[dict[str, Any]]:
    """Run *handler* behind a WebSocket, and *talk* at its other end; return what the server sent."""
    app.add_websocket("/ws", view_func=handler)
    sent: list[dict[str, Any]] = []
    asgi_app = app.asgi_app

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        async def keep(message: Any) -> None:
            sent.append(message)
            await send(message)

        await asgi_app(scope, receive, keep)

    app.asgi_app = recording  # type: ignore[method-assign]

    async def run() -> None:
        headers = {} if token is None else with_token(token)["headers"]
        async with app.test_client().websocket("/ws", headers=headers, scheme="wss") as connection:
            await talk(connection)

    asyncio.run(run())
    return sent


def test_a_websocket_commits_when_it_is_accepted(canister: Canister) -> None:
    app = make_app(canister)

    async def handler() -> None:
        session["a"] = 1
        await websocket.send("hello")

    async def talk(connection: Any) -> None:
        assert await connection.receive() == "hello"

    (accept, *_) = through_websocket(app, handler, talk)
    assert accept["type"] == "websocket.accept"
    (cookie,) = [value.decode() for name, value in accept["headers"] if name == b"set-cookie"]
    token = cookie.partition(";")[0].partition("=")[2]
    assert Client(app).get("/", **with_token(token)).body.strip() == '{"a":1}'


def test_what_a_websocket_changes_later_is_stored_at_its_end(canister: Canister) -> None:
    app = make_app(canister)
    client = Client(app)
    client.post("/put", json={"a": 1})

    async def handler() -> None:
        await websocket.accept()
        session["b"] = 2

    async def talk(connection: Any) -> None:
        with pytest.raises(WebsocketDisconnectError, match="1000"):
            await asyncio.wait_for(connection.receive(), 10)

    through_websocket(app, handler, talk, client.token)
    assert client.data() == {"a": 1, "b": 2}


def test_a_websocket_ends_with_its_session(canister: Canister) -> None:
    app = make_app(canister)
    client = Client(app)
    client.post("/put", json={"a": 1})

    async def handler() -> None:
        await websocket.send(str(session.handle))  # type: ignore[attr-defined]
        await websocket.receive()

    async def talk(connection: Any) -> None:
        canister.destroy(await connection.receive())
        with pytest.raises(WebsocketDisconnectError, match="1008"):
            await asyncio.wait_for(connection.receive(), 10)

    through_websocket(app, handler, talk, client.token)


def test_a_websocket_that_cannot_be_told_is_refused(cut_off: Canister, clock: ManualClock) -> None:
    app = make_app(cut_off)

    async def handler() -> None:
        session["a"] = 1
        await websocket.accept()

    async def talk(connection: Any) -> None:
        with pytest.raises(WebsocketResponseError) as caught:
            await connection.receive()
        assert caught.value.response.status_code == 503

    through_websocket(app, handler, talk, token_of_elsewhere(clock))


def test_a_log_in_of_a_websocket_that_is_not_acknowledged_keeps_its_cookie(cut_off: Canister) -> None:
    app = make_app(cut_off, {"acks": 2})
    client = Client(app)
    client.post("/put", json={"a": 1})

    async def handler() -> None:
        session.login("ann")  # type: ignore[attr-defined]
        await websocket.accept()

    async def talk(connection: Any) -> None:
        with pytest.raises(WebsocketResponseError) as caught:
            await connection.receive()
        assert caught.value.response.status_code == 503
        assert len(cookies_of(caught.value.response)) > 0

    through_websocket(app, handler, talk, client.token)
