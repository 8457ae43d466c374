"""The sessions of an aiohttp application, over a real canister and through aiohttp's own test client."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp_session
import pytest
from aiohttp import ClientResponse, DummyCookieJar, WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp_session import get_session, new_session
from tests.integration.local import last_write, store_away

from canister import Canister, ConfigError, OldSystemError, SessionError
from canister.clock import to_datetime
from canister.integrations.aiohttp import CanisterStorage, hold_session, session_of, setup
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.movein import OldSession
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"
END = CookieSettings().end()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def with_cookie(value: str) -> dict[str, str]:
    return {"Cookie": f"{NAME}={value}"}


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


class Browser:
    """A client that sends its one cookie over plain http too, as the test server has no TLS."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self.client = client
        self.token: str | None = None

    async def ask(self, method: str, path: str, token: str | None = None, **arguments: Any) -> ClientResponse:
        token = token or self.token
        headers = {**(with_cookie(token) if token else {}), **arguments.pop("headers", {})}
        response = await self.client.request(
            method, path, headers=headers, allow_redirects=False, **arguments
        )
        for cookie in response.headers.getall("Set-Cookie", []):
            name, _, rest = cookie.partition("=")
            if name in (NAME, "id"):
                self.token = rest.partition(";")[0] or None
        await response.read()
        return response

    async def get(self, path: str, **arguments: Any) -> Any:
        response = await self.ask("GET", path, **arguments)
        assert response.status == 200, await response.text()
        return await response.json()


@asynccontextmanager
async def browsing(canister: Canister, *routes: Any, **settings: Any) -> AsyncIterator[Browser]:
    app = web.Application()
    app.add_routes([*routes, *ROUTES])
    setup(app, canister, secret_keys=KEY, **settings)
    async with serving(app) as browser:
        yield browser


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[Browser]:
    async with TestClient(TestServer(app), cookie_jar=DummyCookieJar()) as client:
        yield Browser(client)


async def untouched(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def asked_for(request: web.Request) -> web.Response:
    await get_session(request)
    return web.Response(text="ok")


async def show(request: web.Request) -> web.Response:
    return web.json_response(dict(await get_session(request)))


async def put(request: web.Request) -> web.Response:
    (await get_session(request)).update(await request.json())
    return web.Response(text="ok")


async def append(request: web.Request) -> web.Response:
    session = await get_session(request)
    session.setdefault("list", []).append(len(session["list"]))
    return web.Response(text="ok")


async def log_in(request: web.Request) -> web.Response:
    (await session_of(request)).login("ann")
    raise web.HTTPSeeOther("/")


async def invalidate(request: web.Request) -> web.Response:
    (await get_session(request)).invalidate()
    return web.Response(text="ok")


async def anew(request: web.Request) -> web.Response:
    session = await new_session(request)
    assert session.new
    session.update(dict(request.query))
    return web.Response(text="ok")


ROUTES = [
    web.get("/untouched", untouched),
    web.get("/asked-for", asked_for),
    web.get("/", show),
    web.post("/put", put),
    web.post("/append", append),
    web.post("/log-in", log_in),
    web.post("/invalidate", invalidate),
    web.post("/anew", anew),
]


async def test_an_untouched_request_writes_nothing_and_sends_no_cookie(
    canister: Canister, clock: ManualClock
) -> None:
    async with browsing(canister) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        before = last_write(canister)
        clock.advance(timedelta(minutes=10))
        for path in ("/untouched", "/asked-for"):
            response = await browser.ask("GET", path)
            assert response.status == 200
            assert not {"Set-Cookie", "Vary", "Cache-Control"} & response.headers.keys()
        assert last_write(canister) == before


async def test_vary_stays_one_line(canister: Canister) -> None:
    async def vary(request: web.Request) -> web.Response:
        (await get_session(request))["a"] = 1
        return web.Response(headers=[("Vary", "Accept"), ("vary", "Origin")])

    async with browsing(canister, web.get("/vary", vary)) as browser:
        response = await browser.ask("GET", "/vary")
        assert response.headers.getall("Vary") == ["Accept, Origin, Cookie"]


@pytest.mark.parametrize("shown", ["new", "created", "identity"])
async def test_a_page_that_shows_what_the_session_is_varies(canister: Canister, shown: str) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=str(getattr(await get_session(request), shown)))

    async with browsing(canister, web.get("/page", page)) as browser:
        response = await browser.ask("GET", "/page")
        assert response.headers.getall("Vary") == ["Cookie"]


async def test_a_first_value_sends_the_cookie_and_the_next_request_finds_it(canister: Canister) -> None:
    async with browsing(canister) as browser:
        response = await browser.ask("POST", "/put", json={"a": [1]})
        (cookie,) = response.headers.getall("Set-Cookie")
        assert cookie.startswith(f"{NAME}=")
        assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
        assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
        assert response.headers["Vary"] == "Cookie"
        response = await browser.ask("GET", "/")
        assert await response.json() == {"a": [1]}
        assert "Set-Cookie" not in response.headers


async def test_nested_edits_are_saved(canister: Canister) -> None:
    async with browsing(canister) as browser:
        for _ in range(3):
            await browser.ask("POST", "/append")
        assert await browser.get("/") == {"list": [0, 1, 2]}


async def test_reading_alone_is_an_access(canister: Canister, clock: ManualClock) -> None:
    async with browsing(canister) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        for _ in range(4):
            clock.advance(timedelta(minutes=15))
            assert await browser.get("/") == {"a": 1}
        clock.advance(timedelta(minutes=22))
        response = await browser.ask("GET", "/")
        assert (await response.json(), response.headers["Set-Cookie"]) == ({}, END)


async def test_concurrent_requests_keep_each_others_keys(canister: Canister) -> None:
    async def slow(request: web.Request) -> web.Response:
        (await get_session(request))["slow"] = 1
        await browser.ask("POST", "/put", json={"fast": 1})
        return web.Response(text="ok")

    async with browsing(canister, web.post("/slow", slow)) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        await browser.ask("POST", "/slow")
        assert await browser.get("/") == {"a": 1, "slow": 1, "fast": 1}


async def test_logging_in_changes_the_id_with_a_redirect_too(canister: Canister) -> None:
    async with browsing(canister) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        before = browser.token
        assert (await browser.ask("POST", "/log-in")).status == 303
        assert browser.token != before
        assert await browser.get("/") == {"a": 1}
        assert await browser.get("/", token=before) == {}


async def test_invalidating_ends_session_and_cookie(canister: Canister) -> None:
    async with browsing(canister) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        token = browser.token
        response = await browser.ask("POST", "/invalidate")
        assert response.headers["Set-Cookie"] == END
        assert await browser.get("/", token=token) == {}
        assert list(canister.all_sessions()) == []


async def test_a_save_after_the_log_out_brings_nothing_back(canister: Canister) -> None:
    async def slow(request: web.Request) -> web.Response:
        session = await get_session(request)
        session["slow"] = 1
        await browser.ask("POST", "/invalidate")
        return web.Response(text="ok")

    app = web.Application()
    app.add_routes([web.post("/slow", slow), *ROUTES])
    setup(app, canister, secret_keys=KEY)
    async with serving(app) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        response = await browser.ask("POST", "/slow")
        assert (response.status, "Set-Cookie" in response.headers) == (409, False)
        assert (await response.text()).startswith("Conflict: another request destroyed the session")
    assert list(canister.all_sessions()) == []


async def test_a_new_session_destroys_the_one_of_the_cookie(canister: Canister) -> None:
    async with browsing(canister) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        old, (handle,) = browser.token, canister.all_sessions()
        response = await browser.ask("POST", "/anew?b=2")
        assert len(response.headers.getall("Set-Cookie")) == 1
        assert browser.token != old
        assert await browser.get("/") == {"b": "2"}
        assert await browser.get("/", token=old) == {}
        assert canister.record_status(handle).status == "destroyed"


async def test_a_new_session_that_stays_empty_takes_the_cookie_away(canister: Canister) -> None:
    async with browsing(canister) as browser:
        assert "Set-Cookie" not in (await browser.ask("POST", "/anew")).headers
        await browser.ask("POST", "/put", json={"a": 1})
        assert (await browser.ask("POST", "/anew")).headers["Set-Cookie"] == END
        assert list(canister.all_sessions()) == []
        response = await browser.ask("POST", "/anew", token="forged")
        assert response.headers["Set-Cookie"] == END


async def test_the_names_of_aiohttp_session(canister: Canister, clock: ManualClock) -> None:
    async def look(request: web.Request) -> web.Response:
        session = await get_session(request)
        facts = [session.new, session.empty, session.identity, session.max_age, len(session)]
        with pytest.raises(RuntimeError, match="draws the ids"):
            session.set_new_identity("chosen")
        return web.json_response([*facts, abs(session.created - clock.now() // 10**6) < 2])

    async def short(request: web.Request) -> web.Response:
        session = await get_session(request)
        session.max_age = 60
        session["a"] = 1
        session.changed()
        return web.json_response(session.max_age)

    async with browsing(canister, web.get("/look", look), web.get("/short", short)) as browser:
        facts = await browser.get("/look")
        assert facts[:5] == [True, True, None, None, 0]
        assert await browser.get("/short") == 60
        (handle,) = canister.all_sessions()
        assert await browser.get("/look") == [False, False, handle, None, 1, True]
        clock.advance(timedelta(seconds=64))
        assert await browser.get("/") == {}


async def test_a_handler_that_fails_commits_nothing(canister: Canister) -> None:
    async def fail(request: web.Request) -> web.Response:
        (await get_session(request))["a"] = 1
        raise ZeroDivisionError

    async with browsing(canister, web.get("/fail", fail)) as browser:
        response = await browser.ask("GET", "/fail")
        assert response.status == 500
        assert "Set-Cookie" not in response.headers
    assert list(canister.all_sessions()) == []


async def test_sub_applications_have_the_session(canister: Canister) -> None:
    sub = web.Application()
    sub.add_routes([web.get("/show", show)])
    app = web.Application()
    app.add_routes(ROUTES)
    app.add_subapp("/sub", sub)
    setup(app, canister, secret_keys=KEY)
    async with serving(app) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        assert await browser.get("/sub/show") == {"a": 1}


async def test_what_was_not_set_up_says_so(canister: Canister) -> None:
    async def bare(request: web.Request) -> web.Response:
        with pytest.raises(ConfigError, match="setup"):
            await session_of(request)
        with pytest.raises(ConfigError, match="setup"):
            hold_session(request)
        return web.Response(text="ok")

    app = web.Application()
    app.add_routes([web.get("/", bare)])
    async with serving(app) as browser:
        assert (await browser.ask("GET", "/")).status == 200


async def test_another_storages_session_is_refused(canister: Canister) -> None:
    storage = CanisterStorage(canister, secret_keys=KEY)
    stock = aiohttp_session.Session(None, data=None, new=True)
    with pytest.raises(TypeError, match="not one of this storage"):
        await storage.save_session(None, None, stock)  # type: ignore[arg-type]


class Old:
    """An old system with one session, until it is away."""

    cookie_name = "old"

    def __init__(self, clock: ManualClock) -> None:
        self.now = to_datetime(clock.now())
        self.away = False

    def find(self, value: str) -> OldSession | None:
        if self.away:
            raise OldSystemError("it is away")
        return OldSession(value, {"cart": ["tea"]}, self.now + timedelta(days=1), self.now)


async def test_an_old_systems_session_goes_on(canister: Canister, clock: ManualClock) -> None:
    old = Old(clock)
    async with browsing(canister, move_in=[old]) as browser:
        assert await browser.get("/", headers={"Cookie": "old=abc"}) == {"cart": ["tea"]}
        assert await browser.get("/") == {"cart": ["tea"]}
        old.away, browser.token = True, None
        for path, status in (("/", 503), ("/untouched", 200), ("/asked-for", 200)):
            assert (await browser.ask("GET", path, headers={"Cookie": "old=abc"})).status == status


# Not knowing is not absence.


async def test_a_node_that_cannot_tell_serves_reads_refuses_writes_and_leaves_the_cookie(
    cut_off: Canister, clock: ManualClock
) -> None:
    token, before = token_of_elsewhere(clock), last_write(cut_off)
    async with browsing(cut_off) as browser:
        response = await browser.ask("GET", "/", token=token)
        assert response.status == 200
        assert "Set-Cookie" not in response.headers
        response = await browser.ask("POST", "/put", token=token, json={"a": 1})
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
        assert "Set-Cookie" not in response.headers
    async with browsing(cut_off, when_behind="refuse") as browser:
        assert (await browser.ask("GET", "/", token=token)).status == 503
        assert (await browser.ask("GET", "/untouched", token=token)).status == 200
    assert last_write(cut_off) == before


async def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    async with browsing(canister) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        with store_away(canister):
            assert (await browser.ask("GET", "/untouched")).status == 200
            response = await browser.ask("GET", "/")
            assert (response.status, response.headers["Retry-After"]) == (503, "2")
            assert "Set-Cookie" not in response.headers
        assert await browser.get("/") == {"a": 1}


async def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: Canister) -> None:
    async with browsing(cut_off, acks=2) as browser:
        response = await browser.ask("POST", "/put", json={"a": 1})
        assert response.status == 503
        assert browser.token is not None, "or nobody could reach what stands"
        assert await browser.get("/") == {"a": 1}


async def test_the_cookie_of_what_a_handler_has_stored_goes_with_a_refusal(cut_off: Canister) -> None:
    async def log_in_now(request: web.Request) -> web.Response:
        session = await session_of(request)
        session.login("ann")
        session["a"] = 1
        await session.acommit()
        return web.Response(text="never reached")

    async with browsing(cut_off, web.post("/now", log_in_now), acks=2) as browser:
        assert (await browser.ask("POST", "/now")).status == 503
        assert browser.token is not None, "or nobody could reach what stands"
        assert await browser.get("/") == {"a": 1}


# Streams and WebSockets.


async def stream(request: web.Request) -> web.StreamResponse:
    session = await get_session(request)
    session["early"] = 1
    response = web.StreamResponse()
    if "long" in request.query:
        response.content_length = 1
    if "packed" in request.query:
        response.enable_compression()
    await response.prepare(request)
    await response.write(b"a")
    if "late" in request.query:
        session["late"] = 1
    if "commit" in request.query:
        await (await session_of(request)).acommit()
    await response.write_eof()
    return response


async def test_a_stream_commits_before_its_headers(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    async with browsing(canister, web.get("/stream", stream), strict=False) as browser:
        response = await browser.ask("GET", "/stream")
        assert response.headers["Set-Cookie"].startswith(NAME)
        assert await browser.get("/") == {"early": 1}
        assert "changed" not in caplog.text
        await browser.ask("GET", "/stream?late")
        assert "what http /stream changed" in caplog.text
        assert await browser.get("/") == {"early": 1}
        await browser.ask("GET", "/stream?late&commit")
        assert await browser.get("/") == {"early": 1, "late": 1}


async def test_a_session_first_used_after_the_headers_takes_no_new_id(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        session = await session_of(request)
        if "id" in request.query:
            session.login("ann")
            with pytest.raises(SessionError, match="headers have left"):
                await session.acommit()
        else:
            session["b"] = 2
            await session.acommit()
        await response.write_eof()
        return response

    async with browsing(canister, web.get("/late", late), strict=False) as browser:
        await browser.ask("POST", "/put", json={"a": 1})
        await browser.ask("GET", "/late?id")
        assert "what http /late changed" in caplog.text
        assert await browser.get("/") == {"a": 1}
        await browser.ask("GET", "/late")
        assert await browser.get("/") == {"a": 1, "b": 2}


async def test_a_stream_or_websocket_that_may_not_be_written_is_503(
    cut_off: Canister, clock: ManualClock
) -> None:
    token = token_of_elsewhere(clock)
    routes = [web.get("/stream", stream), web.get("/talk", talk)]
    async with browsing(cut_off, *routes) as browser:
        for path in ("/stream", "/stream?long", "/stream?packed", "/stream?long", "/untouched"):
            response = await browser.ask("GET", path, token=token)
            assert response.status == (200 if path == "/untouched" else 503)
            assert "cookie was left" in await response.text() or path == "/untouched"
        with pytest.raises(WSServerHandshakeError) as refused:
            await browser.client.ws_connect("/talk", headers=with_cookie(token))
        assert refused.value.status == 503


async def test_a_file_is_served_with_the_sessions_cookie(canister: Canister, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")

    async def send(request: web.Request) -> web.FileResponse:
        (await get_session(request))["seen"] = 1
        return web.FileResponse(tmp_path / "file")

    async with browsing(canister, web.get("/file", send)) as browser:
        response = await browser.ask("GET", "/file")
        assert await response.text() == "text"
        assert response.headers["Set-Cookie"].startswith(NAME)
        assert await browser.get("/") == {"seen": 1}


async def talk(request: web.Request) -> web.WebSocketResponse:
    session = await get_session(request)
    session["sockets"] = session.get("sockets", 0) + 1
    websocket = web.WebSocketResponse()
    await websocket.prepare(request)
    await websocket.send_json(dict(session))
    async for _ in websocket:
        pass
    return websocket


async def test_a_websocket_commits_at_its_handshake_and_ends_with_the_session(canister: Canister) -> None:
    async with (
        browsing(canister, web.get("/talk", talk)) as browser,
        browser.client.ws_connect("/talk") as websocket,
    ):
        assert await websocket.receive_json() == {"sockets": 1}
        cookie = websocket._response.headers["Set-Cookie"]
        browser.token = cookie.partition("=")[2].partition(";")[0]
        assert await browser.get("/") == {"sockets": 1}
        await browser.ask("POST", "/invalidate")
        message = await websocket.receive(timeout=5)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        assert message.extra == "the session is over"


async def test_a_held_stream_ends_with_the_session(canister: Canister) -> None:
    ended: list[str] = []

    async def endless(request: web.Request) -> web.StreamResponse:
        hold_session(request)
        (await get_session(request))["a"] = 1
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")
        return response

    async with browsing(canister, web.get("/endless", endless)) as browser:
        response = await browser.client.get("/endless")
        assert await response.content.readexactly(5) == b"begun"
        (handle,) = canister.all_sessions()
        canister.destroy(handle)
        assert await asyncio.wait_for(response.content.read(), 5) == b""
    assert ended == ["ended"]


async def test_the_example_runs(canister: Canister) -> None:
    module = importlib.import_module("examples.aiohttp_cart")
    async with serving(module.make_app(canister)) as browser:
        for _ in range(2):
            assert (await browser.ask("POST", "/cart/tea", headers=plain(browser))).status == 303
        await browser.ask("POST", "/log-in/ann", headers=plain(browser))
        assert await browser.get("/", headers=plain(browser)) == {"user": "ann", "cart": {"tea": 2}}
        async with browser.client.ws_connect("/talk", headers=plain(browser)) as websocket:
            await websocket.send_str("hello")
            assert await websocket.receive_str() == "ann: hello"
        await browser.ask("POST", "/log-out", headers=plain(browser))
        assert await browser.get("/") == {"user": None, "cart": {}}


def plain(browser: Browser) -> dict[str, str]:
    return {"Cookie": f"id={browser.token}"} if browser.token else {}
