"""Litestar's store contract, and what a store on many nodes adds to it."""

import string
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, Request, get
from litestar.config.response_cache import ResponseCacheConfig
from litestar.middleware.rate_limit import RateLimitConfig
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.registry import StoreRegistry
from litestar.testing import TestClient
from tests.integration.cluster import eventually
from tests.integration.local import agree, heal, open_pair, split

from canister import Canister, InvalidIdError, TooLargeError
from canister.integrations.litestar import CanisterStore
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock

pytestmark = [pytest.mark.integration, pytest.mark.anyio, pytest.mark.usefixtures("logging_put_back")]

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(canister: Canister) -> CanisterStore:
    return CanisterStore(canister)


# Litestar's contract.


async def test_what_was_set_is_got_as_bytes(store: CanisterStore) -> None:
    assert await store.get("a") is None
    await store.set("a", b"\x00\xff", 60)
    await store.set("b", "grün")
    assert await store.get("a") == b"\x00\xff"
    assert await store.get("b") == "grün".encode()
    await store.set("a", b"")
    assert await store.get("a") == b""


@pytest.mark.parametrize("key", [*string.punctuation, "fooü", "..", "", "\0", "x" * 5000, "\ud800"])
async def test_any_text_is_a_key(store: CanisterStore, key: str) -> None:
    await store.set(key, b"value")
    await store.set(key + "2", b"other")
    assert await store.get(key) == b"value"
    assert await store.get(key + "2") == b"other"


@pytest.mark.parametrize("second", [1, SECOND])
async def test_a_value_ends_at_its_end(store: CanisterStore, clock: ManualClock, second: Any) -> None:
    await store.set("a", b"1", second)
    clock.advance(SECOND * 0.9)
    assert await store.get("a") == b"1"
    clock.advance(SECOND * 0.1)
    assert await store.get("a") is None
    assert await store.exists("a") is False
    assert await store.expires_in("a") is None


@pytest.mark.parametrize("span", [10, SECOND * 10])
async def test_getting_may_renew(store: CanisterStore, clock: ManualClock, span: Any) -> None:
    await store.set("a", b"1", 1)
    assert await store.get("a", renew_for=span) == b"1"
    assert await store.expires_in("a") == 10
    clock.advance(SECOND * 2)
    assert await store.get("a") == b"1"
    assert await store.get("a", renew_for=3) == b"1"
    assert await store.expires_in("a") == 3, "renewing may shorten as well"
    clock.advance(SECOND * 3)
    assert await store.get("a", renew_for=span) is None, "what has ended is not renewed"
    assert await store.get("a") is None


async def test_renewing_what_has_no_end_changes_nothing(store: CanisterStore, clock: ManualClock) -> None:
    await store.set("a", b"1")
    assert await store.get("a", renew_for=1) == b"1"
    assert await store.expires_in("a") == -1
    clock.advance(SECOND * 2)
    assert await store.get("a") == b"1"


async def test_what_is_deleted_is_gone_and_may_be_set_again(store: CanisterStore) -> None:
    await store.delete("a")
    for value in (b"1", b"2"):
        await store.set("a", value, 60)
        assert await store.get("a") == value
        await store.delete("a")
        assert await store.get("a") is None
        assert await store.exists("a") is False
        await store.delete("a")


async def test_exists_tells_of_values_only(store: CanisterStore) -> None:
    assert await store.exists("a") is False
    await store.set("a", b"")
    assert await store.exists("a") is True


async def test_expires_in_counts_seconds(store: CanisterStore, clock: ManualClock) -> None:
    assert await store.expires_in("a") is None
    await store.set("a", b"1")
    assert await store.expires_in("a") == -1
    await store.set("a", b"1", 10)
    assert await store.expires_in("a") == 10
    clock.advance(SECOND * 9.5)
    assert await store.expires_in("a") == 1
    await store.set("a", b"1", 3)
    assert await store.expires_in("a") == 3, "the newer set decides, be it shorter"
    await store.set("a", b"1")
    assert await store.expires_in("a") == -1


@pytest.mark.parametrize("span", [0, -1, -(10**15), timedelta(0)])
async def test_no_time_at_all_is_no_value(store: CanisterStore, span: Any) -> None:
    await store.set("a", b"1")
    await store.set("a", b"2", span)
    assert await store.get("a") is None


@pytest.mark.parametrize("span", [10**15, timedelta.max])
async def test_no_end_is_further_off_than_400_days(store: CanisterStore, span: Any) -> None:
    await store.set("a", b"1", span)
    assert await store.get("a", renew_for=span) == b"1"
    assert await store.expires_in("a") == 400 * 24 * 3600


async def test_delete_all_removes_what_there_is(store: CanisterStore) -> None:
    for i in range(300):
        await store.set(f"key-{i}", b"value", expires_in=10 if i % 2 else None)
    await store.delete_all()
    assert [i for i in range(300) if await store.exists(f"key-{i}")] == []


async def test_namespaces_keep_values_apart(store: CanisterStore) -> None:
    inner = store.with_namespace("inner")
    assert inner.namespace == ("litestar", "inner")
    await store.set("a", b"outer")
    await inner.set("a", b"inner")
    assert (await store.get("a"), await inner.get("a")) == (b"outer", b"inner")
    # What a clumsy separator would mix up.
    await store.set("inner\0\0=a", b"x")
    await store.with_namespace("innera").set("", b"y")
    assert (await store.get("a"), await inner.get("a")) == (b"outer", b"inner")


async def test_delete_all_goes_down_and_not_up(store: CanisterStore, canister: Canister) -> None:
    inner, sibling = store.with_namespace("inner"), store.with_namespace("inner2")
    other = CanisterStore(canister, ["other"])
    for one in (store, inner, sibling, other):
        await one.set("a", b"1")
    await inner.delete_all()
    assert [await one.get("a") for one in (store, inner, sibling)] == [b"1", None, b"1"]
    await store.delete_all()
    assert [await one.get("a") for one in (store, inner, sibling, other)] == [None, None, None, b"1"]


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_namespace_has_a_name(store: CanisterStore, name: str) -> None:
    with pytest.raises(InvalidIdError, match="namespace"):
        store.with_namespace(name)


# What is ours.


async def test_a_key_may_be_used_for_longer_than_any_session_lives(
    store: CanisterStore, clock: ManualClock, canister: Canister
) -> None:
    """A rate limiter sets the same key for years; a session past its absolute lifetime takes no write."""
    for day in range(100):
        await store.set("often", str(day), 2 * 86_400)
        await store.set("for ever", b"1")
        clock.advance(DAY)
        if day % 10 == 0:
            canister.clear_untouched_sessions()
    assert await store.get("often") == b"99"
    clock.advance(398 * DAY)
    assert await store.get("often") is None
    assert await store.get("for ever") == b"1"


async def test_what_has_ended_is_swept(store: CanisterStore, clock: ManualClock, canister: Canister) -> None:
    await store.set("a", b"1", 60)
    clock.advance(timedelta(minutes=62))
    assert canister.clear_untouched_sessions() == 1


async def test_entries_are_no_sessions(store: CanisterStore, canister: Canister, clock: ManualClock) -> None:
    events: list[Any] = []
    manager = SessionManager(canister, secret_keys="key-0123456789-abcdefghijklmnopqrs")
    manager.subscribe(events.append)
    await store.set("a", b"1", 60)
    assert list(canister.all_sessions()) == []
    assert canister.num_local_sessions() == 0
    clock.advance(timedelta(minutes=62))
    canister.clear_untouched_sessions()
    manager._watch.look()
    assert events == []


async def test_a_value_that_is_too_large_is_refused(store: CanisterStore, canister: Canister) -> None:
    most = canister.config.max_value
    await store.set("a", b"x" * most)
    with pytest.raises(TooLargeError, match="max_value"):
        await store.set("a", b"x" * (most + 1))
    assert await store.get("a") == b"x" * most


async def test_the_later_of_two_sets_wins_on_all_nodes_and_a_delete_hides_what_was_before(
    tmp_path: Path,
) -> None:
    with open_pair(tmp_path) as nodes:
        here, there = (CanisterStore(node) for node in nodes)
        await here.set("a", b"1", 600)
        await here.set("gone", b"1", 600)
        agree(nodes)
        assert await there.get("a") == b"1"
        split(nodes)
        await there.set("a", b"2", 600)
        await here.set("a", b"3", 60)
        await there.set("gone", b"2", 600)
        await here.delete("gone")
        heal(nodes)
        agree(nodes)
        for store in (here, there):
            assert await store.get("a") == b"3"
            assert await store.expires_in("a") in range(30, 61)
            assert await store.get("gone") is None


def test_the_rate_limiter_counts_in_it(canister: Canister) -> None:
    @get("/")
    async def index() -> str:
        return "ok"

    limit = RateLimitConfig(rate_limit=("day", 2))
    stores = StoreRegistry(default_factory=CanisterStore(canister).with_namespace)
    for wanted in ([200, 200, 429], [429]):  # a second process of the node, as it were
        app = Litestar([index], middleware=[limit.middleware], stores=stores)
        with TestClient(app) as client:
            assert [client.get("/").status_code for _ in wanted] == wanted


async def test_the_response_cache_lies_in_it(canister: Canister, clock: ManualClock) -> None:
    calls: list[str] = []

    @get("/", cache=60)
    async def index(request: Request[Any, Any, Any]) -> str:
        calls.append(request.url.query)
        return f"made for {request.url.query}"

    store = CanisterStore(canister, ["cache"])
    for _ in range(2):
        app = Litestar(
            [index], stores={"pages": store}, response_cache_config=ResponseCacheConfig(store="pages")
        )
        with TestClient(app) as client:
            assert client.get("/?a=1").text == "made for a=1"
            assert client.get("/?b=" + "x" * 2000).status_code == 200
    assert len(calls) == 2
    clock.advance(SECOND * 61)
    with TestClient(app) as client:
        client.get("/?a=1")
    assert len(calls) == 3


def test_litestars_own_sessions_can_lie_in_it(canister: Canister) -> None:
    @get("/")
    async def index(request: Request[Any, Any, Any]) -> dict[str, Any]:
        request.session.setdefault("visits", 0)
        request.session["visits"] += 1
        return dict(request.session)

    @get("/out")
    async def out(request: Request[Any, Any, Any]) -> None:
        request.clear_session()

    app = Litestar(
        [index, out], middleware=[ServerSideSessionConfig().middleware],
        stores={"sessions": CanisterStore(canister)},
    )  # fmt: skip
    with TestClient(app) as client:
        client.get("/")
        assert client.get("/").json() == {"visits": 2}
        client.get("/out")
        assert client.get("/").json() == {"visits": 1}


def test_it_shows_on_the_other_node(tmp_path: Path) -> None:
    with open_pair(tmp_path) as nodes:
        here, there = (CanisterStore(node) for node in nodes)

        def run(coroutine: Any) -> Any:
            with pytest.raises(StopIteration) as ended:
                coroutine.send(None)  # it awaits nothing
            return ended.value.value

        run(here.set("a", b"1"))
        eventually(lambda: run(there.get("a")) == b"1", message="the other node has it")
