"""Read your writes: three nodes behind a balancer that knows nothing of sessions.

The lag is made on the receiving side: a node's live commits and heartbeats wait until they are let in, in
their order, while questions and answers pass. So a node that lags knows less than it could, and is linked.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import StarletteDeprecationWarning
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from tests.integration.cluster import eventually
from tests.integration.local import address, split

from canister import Canister
from canister.freshness import missing
from canister.integrations.asgi import SessionMiddleware, session_of
from canister.record import NodeId, make_version
from canister.replication.messages import Heartbeat, Live
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.limits import RATE
from canister.sessions.seen import read, seal
from canister.sessions.token import Token, parse

with warnings.catch_warnings():
    # Starlette 1.10 wants httpx2, which the development environment does not hold yet.
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
RING = KeyRing([KEY])
TOKEN, SEEN = CookieSettings().name, CookieSettings().seen


async def count(request: Request) -> Response:
    session = session_of(request)
    session["n"] = session.get("n", 0) + 1
    return JSONResponse(session["n"])


async def add(request: Request) -> Response:
    session_of(request)[request.query_params["key"]] = 1
    return PlainTextResponse("ok")


async def show(request: Request) -> Response:
    session = session_of(request)
    marks = {"x-behind": f"{session.is_behind}", "x-cannot-tell": f"{session.cannot_tell}"}
    return JSONResponse(dict(session), headers=marks)


async def log_in(request: Request) -> Response:
    request.session.regenerate()
    request.session["user"] = "ann"
    return PlainTextResponse("ok")


async def log_out(request: Request) -> Response:
    request.session.destroy()
    return PlainTextResponse("ok")


async def untouched(request: Request) -> Response:
    return PlainTextResponse("ok")


ROUTES = [Route(f"/{f.__name__}", f) for f in (count, add, show, log_in, log_out, untouched)]


class Lag:
    """What a node's replica has received and not been told yet."""

    def __init__(self, canister: Canister) -> None:
        thread: Any = canister.node._agent
        self._loop = thread._loop
        self._replica = thread._agent._replica
        self._handlers = dict(self._replica._handlers)
        self._waiting: list[Callable[[], None]] = []
        for kind in (Live, Heartbeat):
            self._replica._handlers[kind] = self._holding(self._handlers[kind])

    def _holding(self, handler: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        return lambda link, message: self._waiting.append(lambda: handler(link, message))

    def _call(self, what: Callable[[], None]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (what(), done.set()))
        assert done.wait(10)

    def let_in(self, most: int) -> None:
        """Let the oldest messages in."""

        def some() -> None:
            for deliver in self._waiting[:most]:
                deliver()
            del self._waiting[:most]

        self._call(some)

    def end(self) -> None:
        """Let everything in, from now on at once."""
        self.let_in(10**6)
        self._call(lambda: self._replica._handlers.update(self._handlers))
        self.let_in(10**6)


class Site:
    """Three nodes, each with its application, and one client."""

    def __init__(self, nodes: list[Canister], **settings: Any) -> None:
        self.nodes = nodes
        self.at = 0
        self.look_ups = [0, 0, 0]
        self._apps = [self._app(node, **settings) for node in nodes]
        self.client = TestClient(self._balance, base_url="https://testserver")
        for number, node in enumerate(nodes):
            self._count_look_ups(number, node)

    def _app(self, node: Canister, **settings: Any) -> Starlette:
        sessions = Middleware(SessionMiddleware, canister=node, secret_keys=KEY, **settings)
        return Starlette(routes=ROUTES, middleware=[sessions])

    async def _balance(self, scope: Any, receive: Any, send: Any) -> None:
        await self._apps[self.at](scope, receive, send)

    def _count_look_ups(self, number: int, node: Canister) -> None:
        fetch = node.node._fetch

        def counted(session: bytes) -> Any:
            self.look_ups[number] += 1
            return fetch(session)

        node.node._fetch = counted  # type: ignore[method-assign]

    def get(self, node: int, path: str, **arguments: Any) -> httpx.Response:
        """Send a request to a node."""
        self.at = node
        return self.client.get(path, **arguments)

    @property
    def token(self) -> Token:
        token = parse(self.client.cookies[TOKEN], RING)
        assert isinstance(token, Token)
        return token

    def show_stamp(self, text: str) -> None:
        """Have the client carry another seen cookie."""
        jar = [cookie for cookie in self.client.cookies.jar if cookie.name == SEEN]
        for cookie in jar:
            self.client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)
        self.client.cookies.set(SEEN, text, domain="testserver.local", path="/")

    def is_behind(self, node: int) -> bool:
        """Tell whether a node has not heard of all that the client has seen."""
        seen = read([self.client.cookies[SEEN]], self.token)
        assert seen, "the client carries a good seen cookie"
        return bool(missing(seen, self.nodes[node].node.store.heard_of))


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Canister]]:
    addresses = [address() for _ in range(3)]
    settings = {"digest_interval": "1h", "remote_timeout": "1s", "seeds": addresses[:1]}
    opened = [Canister(tmp_path / f"n{i}", listen=listen, **settings) for i, listen in enumerate(addresses)]
    try:
        linked_anyhow(opened)
        yield opened
    finally:
        for node in opened:
            node.close()


def linked_anyhow(nodes: list[Canister]) -> None:
    for node in nodes:
        eventually(lambda node=node: [m.state for m in node.members()].count("up") == 2, message="linked")


@contextmanager
def lagging(nodes: list[Canister], *which: int) -> Iterator[list[Lag]]:
    lags = [Lag(nodes[number]) for number in which]
    try:
        yield lags
    finally:
        for lag in lags:
            lag.end()


# Lag.


def test_a_count_never_goes_back_though_no_node_hears_of_the_others(nodes: list[Canister]) -> None:
    """Every request goes to another node, and no live commit ever arrives."""
    site = Site(nodes)
    with lagging(nodes, 0, 1, 2):
        behind = 0
        for turn in range(30):
            if turn:
                behind += site.is_behind(turn % 3)
            assert site.get(turn % 3, "/count").json() == turn + 1
        assert behind > 20, "there was a lag"
    assert sum(site.look_ups) <= 60


@pytest.mark.parametrize("seed", range(5))
def test_no_answer_is_ever_older_than_the_last_one(nodes: list[Canister], seed: int) -> None:
    """Reads and writes at random nodes, live commits let in at random."""
    random = Random(seed)
    site = Site(nodes)
    seen: set[str] = set()
    behind = 0
    with lagging(nodes, 0, 1, 2) as lags:
        for turn in range(60):
            node = random.randrange(3)
            behind += bool(seen) and site.is_behind(node)
            if random.random() < 0.4:
                key = f"k{turn}"
                assert site.get(node, "/add", params={"key": key}).status_code == 200
                seen.add(key)
            else:
                response = site.get(node, "/show")
                assert seen <= response.json().keys()
                assert response.headers["x-behind"] == "False"
                seen = set(response.json())
            random.choice(lags).let_in(random.randrange(4))
    assert behind > 5, "there was a lag"


def test_a_session_is_found_before_its_node_is_heard_of(nodes: list[Canister]) -> None:
    """The very next request, at a node to which the session is still on its way, keeps its log-in."""
    with lagging(nodes, 1, 2):
        for _ in range(5):
            site = Site(nodes)
            site.get(0, "/log_in")
            for node in (1, 2, 1):
                response = site.get(node, "/show")
                assert response.json() == {"user": "ann"}
                assert TOKEN in site.client.cookies


def test_a_log_out_is_seen_everywhere(nodes: list[Canister]) -> None:
    """The node that is behind does not bring the cookies back."""
    site = Site(nodes)
    with lagging(nodes, 1):
        site.get(0, "/log_in")
        site.get(0, "/log_out")
        assert not site.client.cookies
        assert site.get(1, "/show").json() == {}
        assert not site.client.cookies


def test_what_was_looked_up_is_not_looked_up_again(nodes: list[Canister]) -> None:
    site = Site(nodes)
    with lagging(nodes, 1):
        site.get(0, "/count")
        site.get(0, "/count")
        for _ in range(20):
            assert site.get(1, "/show").json() == {"n": 2}
        assert site.is_behind(1)
    assert 1 <= site.look_ups[1] <= 2


def test_without_lag_nobody_is_asked(nodes: list[Canister]) -> None:
    site = Site(nodes)
    for turn in range(9):
        site.get(turn % 3, "/count")
        for node in range(3):
            eventually(lambda node=node: not site.is_behind(node), message="heard")
    assert site.look_ups == [0, 0, 0]


def test_an_answer_that_comes_late_takes_the_cookie_back(nodes: list[Canister]) -> None:
    """The documented limit: what counts is the last answer the client received, not the newest one."""
    site = Site(nodes)
    with lagging(nodes, 1):
        site.get(0, "/count")
        first = site.client.cookies[SEEN]
        site.get(0, "/count")
        assert site.get(1, "/show").json() == {"n": 2}
        site.get(0, "/count")
        site.show_stamp(first)  # as if the first answer had been the last to arrive
        assert site.get(1, "/show").json() == {"n": 2}, "older than the third, not than the first"


# Splits.


def cut_off(site: Site, *which: int) -> None:
    cut = [site.nodes[number] for number in which]
    split(cut)


def heal(nodes: list[Canister]) -> None:
    for node in nodes:
        node.node.isolate(on=False)
    linked_anyhow(nodes)


def test_nobody_is_logged_out_by_a_split(nodes: list[Canister]) -> None:
    """Who logged in on one side asks the other, again and again, and is logged in after it."""
    for when_behind in ("serve", "refuse"):
        site = Site(nodes, when_behind=when_behind)
        cut_off(site, 2)
        site.get(0, "/log_in")
        token = site.client.cookies[TOKEN]
        for path in ("/show", "/untouched", "/add?key=x", "/count") * 3:
            response = site.get(2, path)
            assert "set-cookie" not in response.headers
        assert site.client.cookies[TOKEN] == token
        heal(nodes)
        assert site.get(2, "/show").json() == {"user": "ann"}


def test_a_node_that_is_cut_off_serves_what_it_has_and_says_so(
    nodes: list[Canister], caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(nodes)
    site.get(0, "/count")
    eventually(lambda: not site.is_behind(2), message="heard")
    cut_off(site, 2)
    assert site.get(2, "/show").headers["x-behind"] == "False", "nothing was missed yet"
    site.get(0, "/count")
    for _ in range(3):
        response = site.get(2, "/show")
        assert (response.json(), response.headers["x-behind"]) == ({"n": 1}, "True")
        assert "may be newer on a member" in caplog.text
        caplog.clear()
    assert site.get(2, "/add?key=x").status_code == 200
    assert site.get(2, "/show").headers["x-behind"] == "True", "its own write does not hide what it lacks"
    assert site.get(0, "/show").headers["x-behind"] == "True", "now the other side lacks something too"
    heal(nodes)
    for node in range(3):
        response = site.get(node, "/show")
        assert (response.json(), response.headers["x-behind"]) == ({"n": 2, "x": 1}, "False")


def test_a_node_that_is_cut_off_may_refuse(nodes: list[Canister]) -> None:
    site = Site(nodes, when_behind="refuse")
    site.get(0, "/count")
    eventually(lambda: not site.is_behind(2), message="heard")
    cut_off(site, 2)
    assert site.get(2, "/show").json() == {"n": 1}, "nothing was missed yet"
    site.get(0, "/count")
    for path in ("/show", "/count", "/add?key=x"):
        response = site.get(2, path)
        assert response.status_code == 503, path
        assert "set-cookie" not in response.headers
    assert site.get(2, "/untouched").status_code == 200
    assert site.get(1, "/show").json() == {"n": 2}
    heal(nodes)
    assert site.get(2, "/show").json() == {"n": 2}


def test_writes_wait_for_as_many_members_as_asked_for(nodes: list[Canister]) -> None:
    site, careful = Site(nodes, acks="majority"), Site(nodes, acks="all")
    assert site.get(0, "/count").json() == 1
    assert careful.get(0, "/count").json() == 1
    handle = careful.token.handle
    assert [node.get_data(handle, local=True) for node in nodes] == [{"n": 1}] * 3
    cut_off(site, 2)
    assert site.get(0, "/count").json() == 2
    response = careful.get(0, "/count")
    assert response.status_code == 503
    assert "it stands on this node and spreads" in response.text
    assert careful.get(0, "/show").json() == {"n": 2}
    heal(nodes)
    assert careful.get(2, "/show").json() == {"n": 2}, "the 503 carried the cookie of what stands"


# What a false seen cookie costs.


def test_a_seen_cookie_with_a_wrong_mac_or_of_another_session_costs_nothing(nodes: list[Canister]) -> None:
    site, other = Site(nodes), Site(nodes)
    site.get(0, "/count")
    other.get(0, "/count")
    eventually(lambda: not site.is_behind(1) and not other.is_behind(1), message="heard")
    good = seal((make_version(2**50, NodeId(b"node-X..")),), site.token)
    forged = good[:-1] + ("A" if good[-1] != "A" else "B")
    for text in (forged, other.client.cookies[SEEN], "x"):
        site.look_ups[:] = other.look_ups[:] = [0, 0, 0]
        site.show_stamp(text)
        assert site.get(1, "/show").json() == {"n": 1}
        assert site.look_ups == other.look_ups == [0, 0, 0]
        assert not site.is_behind(1), "it was replaced by a good one"


def test_a_seen_cookie_of_a_node_nobody_knows_costs_one_look_up(nodes: list[Canister]) -> None:
    site = Site(nodes)
    site.get(0, "/count")
    eventually(lambda: not site.is_behind(1), message="heard")
    good = site.client.cookies[SEEN]
    site.show_stamp(seal((make_version(2**50, NodeId(b"node-X..")),), site.token))
    for _ in range(10):
        assert site.get(1, "/show").headers["x-behind"] == "False"
    assert site.look_ups == [0, 1, 0]
    assert site.client.cookies[SEEN] == good


def test_look_ups_are_bounded_when_nobody_can_answer(nodes: list[Canister]) -> None:
    site = Site(nodes)
    cut_off(site, 1)
    site.get(0, "/count")
    for _ in range(5 * RATE):
        site.get(1, "/show")
    assert site.look_ups[1] < 5 * RATE
