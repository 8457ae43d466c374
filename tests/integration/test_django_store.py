"""Django's contract of a session store, its settings, its system checks, and the engine on its own."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

# First the project, which configures Django.
from tests.integration.django_project import KEY, MIDDLEWARE, cut_off_settings
from tests.redis_servers import running_redis

# isort: split

from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.core.management import call_command
from django.test import AsyncClient, Client, override_settings

from canister import Canister, CannotTellError, ConfigError
from canister.clock import to_datetime
from canister.integrations.django import SessionStore, close, session_manager
from canister.integrations.django.configuration import read_settings
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
ENGINE_ALONE = [DJANGOS, *MIDDLEWARE[1:]]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr("canister.opening.SystemClock", lambda: clock)
    return clock


@pytest.fixture(autouse=True)
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    with override_settings(CANISTER={"path": tmp_path / "data"}):
        yield session_manager().canister
    close()


@pytest.fixture
def cut_off(tmp_path: Path) -> Iterator[None]:
    with override_settings(CANISTER=cut_off_settings(tmp_path / "cut-off")):
        assert session_manager().canister.node.store.peers().doubts > 0
        yield


def stored(**values: Any) -> SessionStore:
    session = SessionStore()
    session.update(values)
    session.save()
    return session


def again(session: SessionStore) -> SessionStore:
    return SessionStore(session.session_key)


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def test_the_key_of_a_session_that_another_one_has_followed_is_kept(clock: ManualClock) -> None:
    """Django would delete the cookie of a late request that only reads, and with it the new one."""
    session = stored(a=1)
    key = session.session_key
    session.cycle_key()
    session.save()
    late = SessionStore(key)
    assert late.get("a") is None
    assert not late.is_empty()
    late.delete(key)
    assert again(session)["a"] == 1
    clock.advance(11_000_000)
    late = SessionStore(key)
    assert late.get("a") is None
    assert late.is_empty()


# What Django's documentation says of a session.


def test_it_is_a_mapping() -> None:
    session = SessionStore()
    assert (session.accessed, session.modified, session.session_key) == (False, False, None)
    assert session.is_empty()
    session["a"] = 1
    assert (session.accessed, session.modified, session["a"], session.get("a")) == (True, True, 1, 1)
    assert ("a" in session, session.has_key("a"), "b" in session) == (True, True, False)
    assert session.setdefault("a", 2) == 1
    assert session.setdefault("b", 2) == 2
    session.update({"c": 3})
    assert sorted(session.items()) == [("a", 1), ("b", 2), ("c", 3)]
    assert (sorted(session.keys()), sorted(session.values())) == (["a", "b", "c"], [1, 2, 3])
    assert session.pop("a") == 1
    assert session.pop("a", "none") == "none"
    with pytest.raises(KeyError):
        session.pop("a")
    del session["b"]
    session.set_test_cookie()
    assert session.test_cookie_worked()
    session.delete_test_cookie()
    assert dict(session.items()) == {"c": 3}


def test_reading_is_no_change() -> None:
    session = again(stored(a=1))
    assert (session.accessed, session.modified) == (False, False)
    assert session["a"] == 1
    assert (session.accessed, session.modified) == (True, False)
    with pytest.raises(KeyError):
        session.pop("b")
    assert not session.modified


def test_a_change_is_one_wherever_it_is_made() -> None:
    session = again(stored(a=[1]))
    session["a"].append(2)
    assert session.modified
    session.save()
    assert again(session)["a"] == [1, 2]


def test_values_come_back_equal_and_of_the_same_type() -> None:
    values = {"t": (1, 2), "s": {1}, "d": datetime(2026, 1, 1, tzinfo=UTC), "i": {1: "x"}, "n": None}
    assert dict(again(stored(**values)).items()) == values


def test_an_empty_session_may_be_saved() -> None:
    session = stored()
    assert session.session_key is not None
    assert session.exists(session.session_key)
    assert again(session).handle == session.handle is not None


def test_it_exists_until_it_is_deleted() -> None:
    session = stored(a=1)
    key = session.session_key
    assert session.exists(key)
    other = SessionStore()
    other.delete(key)
    assert not other.exists(key)
    assert again(session).load() == {}
    session = stored(a=1)
    session.delete()
    assert not session.exists(session.session_key)
    SessionStore().delete()  # there is nothing to delete


def test_a_fresh_key_costs_no_look_up(canister: Canister, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canister.node.store, "load", None)
    assert not SessionStore().exists("0123456789abcdefghijklmnopqrstuv")


def test_a_key_that_is_none_is_not_taken_over() -> None:
    for key in ("1", "x" * 32, "x" * 112):
        session = SessionStore(key)
        session.save()
        assert session.session_key not in (key, None)
        assert dict(session.items()) == {}


def test_flushing_ends_the_session() -> None:
    session = stored(a=1)
    key = session.session_key
    session.flush()
    assert not session.exists(key)
    assert (session.session_key, session.modified, session.accessed) == (None, True, True)
    assert session.is_empty()
    session["b"] = 2
    session.save()
    assert session.session_key not in (key, None)
    assert dict(again(session).items()) == {"b": 2}


def test_cycling_the_key_keeps_the_data_and_ends_the_old_key(canister: Canister) -> None:
    session = stored(a=1)
    key, handle = session.session_key, session.handle
    session.cycle_key()
    assert session.session_key not in (key, None), "asked for, the new one is made at once"
    assert session.handle != handle
    assert dict(again(session).items()) == {"a": 1}
    assert SessionStore(key).load() == {}
    assert list(canister.all_sessions()) == [session.handle]


def test_creating_makes_a_session_at_once(canister: Canister) -> None:
    session = SessionStore()
    session.create()
    first = session.session_key
    assert session.exists(first)
    session["a"] = 1
    session.create()
    assert session.session_key != first
    assert dict(again(session).items()) == {"a": 1}
    assert list(canister.all_sessions()) == [session.handle]


def test_a_session_that_must_be_created_must_not_be_there() -> None:
    session = SessionStore()
    session["a"] = 1
    session.save(must_create=True)
    with pytest.raises(CreateError):
        session.save(must_create=True)


@pytest.mark.parametrize("end", ["destroyed", "expired"])
def test_a_late_save_brings_nothing_back(end: str, clock: ManualClock, canister: Canister) -> None:
    session = again(stored(a=1))
    session["b"] = 2
    if end == "destroyed":
        again(session).flush()
    else:
        clock.advance(timedelta(days=15))
    with pytest.raises(UpdateError):
        session.save()
    assert list(canister.all_sessions()) == []


def test_clearing_keeps_the_session() -> None:
    session = stored(a=1)
    session.clear()
    assert (session.modified, dict(session.items())) == (True, {})
    session.save()
    found = again(session)
    assert (dict(found.items()), found.handle) == ({}, session.handle)


def test_the_asynchronous_methods_do_the_same(canister: Canister) -> None:
    async def scenario() -> None:
        session = SessionStore()
        await session.aset("a", 1)
        await session.aupdate({"b": 2, "c": 3})
        assert await session.apop("c") == 3
        assert await session.asetdefault("d", 4) == 4
        assert await session.ahas_key("a")
        await session.asave()
        key = session.session_key
        found = SessionStore(key)
        assert sorted(await found.akeys()) == ["a", "b", "d"]
        assert await found.aexists(key)
        with pytest.raises(CreateError):
            await found.asave(must_create=True)
        await found.acycle_key()
        await found.asave()
        assert not await found.aexists(key)
        assert await found.aget("a") == 1
        key = found.session_key
        await found.acreate()
        assert found.session_key != key
        other = SessionStore(found.session_key)
        assert await other.aload() == {"a": 1, "b": 2, "d": 4}
        await other.aset("e", 5)
        await SessionStore().adelete(found.session_key)
        with pytest.raises(UpdateError):
            await other.asave()
        with pytest.raises(CannotTellError, match="was given the next one"):
            await session.aflush()  # it was loaded before the key was cycled
        session = SessionStore()
        await session.asave()
        await session.aset_expiry(60)
        assert await session.aget_expiry_age() == 60
        await session.aflush()
        assert session.session_key is None
        await SessionStore.aclear_expired()

    asyncio.run(scenario())
    assert list(canister.all_sessions()) == []


# Expiry.


def lives(session: SessionStore, clock: ManualClock, until: timedelta) -> bool:
    """Tell whether the session ends at *until* from now, to within a touch interval."""
    before, after = until * 0.99, until * 0.07
    clock.advance(before)
    alive = bool(again(session).load())
    clock.advance(after)
    return alive and not again(session).load()


def test_the_idle_timeout_is_djangos_two_weeks(clock: ManualClock) -> None:
    session = stored(a=1)
    assert session.get_expiry_age() == settings.SESSION_COOKIE_AGE == 14 * 24 * 3600
    assert lives(session, clock, timedelta(days=14))


def test_a_session_may_have_an_idle_timeout_of_its_own(clock: ManualClock) -> None:
    session = stored(a=1)
    session.set_expiry(3600)
    session.save()
    assert (session.get_expiry_age(), session.get_expire_at_browser_close()) == (3600, False)
    assert lives(session, clock, timedelta(hours=1))
    session = stored(a=1)
    session.set_expiry(3600)
    session.set_expiry(None)
    session.save()
    assert lives(session, clock, timedelta(days=14))


def test_a_session_may_end_at_an_instant(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    now = datetime.fromtimestamp(clock.now() / 1e6, UTC)
    monkeypatch.setattr("django.utils.timezone.now", lambda: now)
    for value in (now + timedelta(hours=2), timedelta(hours=2)):
        session = stored(a=1)
        session.set_expiry(value)
        session.save()
        assert session.get_expiry_date() == now + timedelta(hours=2)
        assert again(session).load()
    clock.advance(timedelta(hours=1, minutes=59))
    assert again(session).load()
    clock.advance(timedelta(minutes=1))
    assert not again(session).load()


def test_an_end_that_is_past_is_at_once(clock: ManualClock) -> None:
    session = stored(a=1)
    session.set_expiry(-10)
    session.save()
    assert not again(session).load()


@pytest.mark.parametrize("value", [365 * 24 * 3600, timedelta(days=3650)])
def test_no_expiry_goes_past_the_absolute_lifetime(clock: ManualClock, value: Any) -> None:
    old, fresh = stored(a=1), SessionStore()
    fresh["a"] = 1
    for session in (old, fresh):
        session.set_expiry(value)
        session.save()
    for _ in range(29):
        clock.advance(timedelta(days=1))
        old, fresh = again(old), again(fresh)
        for session in (old, fresh):
            assert session["a"] == 1
            session.save()
    clock.advance(timedelta(days=1, seconds=1))
    assert not again(old).load()
    assert not again(fresh).load()


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize(("before", "now"), [("1d", "30d"), ("30d", "1d")])
def test_no_expiry_goes_past_an_absolute_lifetime_that_was_configured_otherwise(
    tmp_path: Path, clock: ManualClock, before: str, now: str, *, idle: bool
) -> None:
    week = timedelta(days=7)
    with override_settings(CANISTER={"path": tmp_path / "older", "absolute_lifetime": before}):
        sessions = [stored(a=1), stored(a=1), stored(a=1)]
    with override_settings(CANISTER={"path": tmp_path / "older", "absolute_lifetime": now}):
        kept, cycled, cycling = map(again, sessions)
        cycling.cycle_key()
        for session in (kept, cycled, cycling):
            session.set_expiry(week.total_seconds() if idle else to_datetime(clock.now()) + week)
        cycled.cycle_key()
        for session in (kept, cycled, cycling):
            session.save()
        assert lives(kept, clock, timedelta(days=1))


def test_clearing_and_cycling_mind_the_expiry(clock: ManualClock) -> None:
    session = stored(a=1)
    session.set_expiry(3600)
    session.save()
    session.cycle_key()
    session.save()
    assert session.get_expiry_age() == 3600
    session.clear()
    session["a"] = 1
    session.save()
    assert session.get_expiry_age() == settings.SESSION_COOKIE_AGE
    assert lives(session, clock, timedelta(days=14))


def test_the_cookie_lasts_as_long_as_django_would_have_it() -> None:
    def age(path: str, **changed: Any) -> Any:
        with override_settings(**changed):
            return next(iter(Client().get(path).cookies.values()))["max-age"]

    assert age("/put/a/1") == "", "until the browser is closed"
    assert age("/put/a/1", SESSION_EXPIRE_AT_BROWSER_CLOSE=False) == "1209600"
    assert age("/put/a/1", SESSION_COOKIE_AGE=3600) == "3600"
    assert age("/put/a/1", SESSION_COOKIE_AGE=3600, SESSION_EXPIRE_AT_BROWSER_CLOSE=True) == ""
    assert age("/expire/60") == "60"
    assert age("/expire/0", SESSION_COOKIE_AGE=3600) == ""


def test_the_cookie_follows_a_change_of_the_expiry_and_the_use(clock: ManualClock) -> None:
    client = Client()
    client.get("/put/a/1")
    assert client.get("/expire/36000").cookies["__Host-id"]["max-age"] == "36000"
    assert not client.get("/show").cookies
    clock.advance(timedelta(minutes=31))
    assert client.get("/show").cookies["__Host-id"]["max-age"] == "36000", "kept as long as it is used"
    assert client.get("/expire/0").cookies["__Host-id"]["max-age"] == ""


# Settings.


def cookie(**changed: Any) -> Any:
    with override_settings(**changed):
        found = read_settings().options.get("cookie")
        names = ("name", "secure", "httponly", "samesite", "path", "domain")
        return tuple(getattr(found, name) for name in names)


def test_the_cookie_is_safe_where_the_project_says_nothing() -> None:
    assert cookie() == ("__Host-id", True, True, "lax", "/", None)
    assert cookie(SESSION_COOKIE_NAME="sessionid") == ("sessionid", True, True, "lax", "/", None)
    assert cookie(SESSION_COOKIE_DOMAIN="example.org")[0] == "__Secure-id"
    assert cookie(SESSION_COOKIE_DOMAIN=".example.org") == cookie(SESSION_COOKIE_DOMAIN="example.org")
    assert cookie(SESSION_COOKIE_PATH="/shop")[0] == "__Secure-id"
    assert cookie(SESSION_COOKIE_SECURE=False)[:2] == ("id", False)
    assert cookie(SESSION_COOKIE_HTTPONLY=False)[2] is False
    assert cookie(SESSION_COOKIE_SAMESITE="Strict")[3] == "strict"
    assert cookie(SESSION_COOKIE_SAMESITE="None")[3] == "none"
    assert cookie(SESSION_COOKIE_SAMESITE=None)[3] == "lax", "what browsers make of no attribute"


def test_settings_are_told_and_taken_back() -> None:
    for _ in range(2):
        with override_settings(SESSION_COOKIE_SECURE=False):
            assert settings.SESSION_COOKIE_NAME == "id"
            assert set(Client().get("/put/a/1").cookies) == {"id"}
        assert settings.SESSION_COOKIE_NAME == "__Host-id"


def test_the_idle_timeout_has_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(*, age: int | None = None, **own: Any) -> timedelta:
        changed: dict[str, Any] = {} if age is None else {"SESSION_COOKIE_AGE": age}
        with override_settings(CANISTER={"path": tmp_path / "idle", **own}, **changed):
            timeout = session_manager().canister.config.session_timeout
            assert SessionStore().get_expiry_age() == timeout.total_seconds()
            return timeout

    assert idle() == timedelta(days=14)
    assert idle(age=60) == timedelta(minutes=1)
    assert idle(session_timeout="30m") == timedelta(minutes=30)
    assert idle(preset="nist-aal2") == timedelta(minutes=57)
    assert idle(absolute_lifetime="12h") == timedelta(hours=12)
    monkeypatch.setenv("CANISTER_SESSION_TIMEOUT", "20m")
    assert idle() == timedelta(minutes=20)
    assert idle(age=60) == timedelta(minutes=1)
    twice: dict[str, Any] = {"SESSION_COOKIE_AGE": 60, "CANISTER": {"path": "x", "session_timeout": "1m"}}
    with override_settings(**twice), pytest.raises(ConfigError, match="set one"):
        read_settings()


def test_djangos_secret_key_is_the_last_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(**own: Any) -> Any:
        with override_settings(CANISTER={"path": tmp_path, **own}, SECRET_KEY_FALLBACKS=["older", b"\x01"]):
            return read_settings().options.get("secret_keys")

    assert keys() == [KEY, "older", "01"]
    assert keys(secret_keys="mine") == "mine"
    monkeypatch.setenv("CANISTER_SECRET_KEYS", "theirs")
    assert keys() is None


def test_the_cookie_has_no_second_description(tmp_path: Path) -> None:
    twice = override_settings(CANISTER={"path": tmp_path, "cookie": None})
    with twice, pytest.raises(ConfigError, match="SESSION_COOKIE_NAME"):
        read_settings()


# System checks.


def found(**changed: Any) -> list[str]:
    with override_settings(**changed):
        return [message.id for message in run_checks() if message.id.startswith("canister.")]


def test_the_checks_say_what_is_wrong() -> None:
    assert found() == []
    assert found(MIDDLEWARE=ENGINE_ALONE) == ["canister.W001"]
    assert found(MIDDLEWARE=[*MIDDLEWARE, DJANGOS]) == ["canister.E003"]
    assert found(CANISTER={}) == ["canister.E001"]
    assert found(CANISTER="sessions", SESSION_SERIALIZER="json.dumps") == ["canister.E001", "canister.W002"]
    assert found(SECRET_KEY="x" * 40) == ["canister.E001"]
    assert found(CANISTER={"path": "x", "secret_keys": []}) == ["canister.E001"]
    assert found(SESSION_COOKIE_AGE=365 * 24 * 3600) == ["canister.E001"]
    assert found(SESSION_SERIALIZER="json.dumps") == ["canister.W002"]
    others = "django.contrib.sessions.backends.db"
    assert found(SESSION_ENGINE=others) == ["canister.E002"]
    assert found(SESSION_ENGINE=others, MIDDLEWARE=ENGINE_ALONE) == []


def test_a_command_that_signs_nothing_needs_no_secret_key() -> None:
    """Django refuses an empty SECRET_KEY where it is used, and its own check says so for deployment only."""
    with override_settings(SECRET_KEY=""):
        call_command("check")
        assert CookieSettings().name == settings.SESSION_COOKIE_NAME
        with pytest.raises(ImproperlyConfigured, match="secret keys is empty"):
            session_manager()


def test_djangos_own_checks_are_content() -> None:
    checks = run_checks(include_deployment_checks=True)
    assert [m.id for m in checks if m.id in ("admin.E410", "security.W010", "security.W012")] == []


# The engine with Django's own middleware.


def test_a_renewed_secret_reaches_the_client(engine_alone: Client, clock: ManualClock) -> None:
    engine_alone.get("/put/a/1")
    before = engine_alone.cookies["sessionid"].value
    clock.advance(timedelta(hours=5))
    response = engine_alone.get("/show")
    assert response.cookies["sessionid"].value != before
    assert response.json()["data"] == {"a": "1"}
    clock.advance(timedelta(hours=1))
    assert not engine_alone.get("/show").cookies
    assert engine_alone.get("/show").json()["data"] == {"a": "1"}


def test_a_renewed_secret_whose_answer_was_lost_is_given_again(
    engine_alone: Client, clock: ManualClock
) -> None:
    engine_alone.get("/put/a/1")
    before = engine_alone.cookies["sessionid"].value
    clock.advance(timedelta(hours=5))
    renewed = engine_alone.get("/show").cookies["sessionid"].value
    for path in ("/show", "/put/b/2"):
        engine_alone.cookies["sessionid"] = before
        assert not engine_alone.get("/untouched").cookies
        assert engine_alone.get(path).cookies["sessionid"].value == renewed
    assert not engine_alone.get("/show").cookies
    clock.advance(timedelta(days=13))
    assert engine_alone.get("/show").json()["data"] == {"a": "1", "b": "2"}


@pytest.fixture
def engine_alone() -> Iterator[Client]:
    names = {"SESSION_COOKIE_NAME": "sessionid", "SESSION_EXPIRE_AT_BROWSER_CLOSE": False}
    with override_settings(MIDDLEWARE=ENGINE_ALONE, **names):
        yield Client()


def test_the_engine_works_with_djangos_middleware(engine_alone: Client) -> None:
    assert not engine_alone.get("/untouched").cookies
    assert engine_alone.get("/put/a/1").cookies["sessionid"]["max-age"] == 1209600
    assert engine_alone.get("/show").json()["data"] == {"a": "1"}
    for _ in range(2):
        engine_alone.get("/append")
    assert engine_alone.get("/show").json()["data"]["list"] == [0, 1], "nested edits as well"
    assert engine_alone.get("/fail/put").status_code == 500
    assert "failed" not in engine_alone.get("/show").json()["data"]
    assert engine_alone.get("/log-out").cookies["sessionid"].value == ""


def test_with_djangos_middleware_reading_is_an_access(engine_alone: Client, clock: ManualClock) -> None:
    engine_alone.get("/put/a/1")
    for _ in range(4):
        clock.advance(timedelta(days=5))
        assert engine_alone.get("/show").json()["data"] == {"a": "1"}


def test_with_djangos_middleware_in_an_event_loop(engine_alone: Client) -> None:
    async def scenario() -> None:
        client = AsyncClient()
        await client.get("/a/put/a/1")
        assert (await client.get("/a/direct")).content == b"1"
        assert (await client.get("/a/show")).json()["data"] == {"a": "1", "direct": 1}

    asyncio.run(scenario())


# Peers, and what has to wait for them.


def test_a_store_on_its_own_never_blocks_an_event_loop(cut_off: None, clock: ManualClock) -> None:
    async def scenario() -> None:
        session = SessionStore(token_of_elsewhere(clock))
        with pytest.raises(SynchronousOnlyOperation, match="asave"):
            session.get("a")
        assert await session.aget("a") is None
        here = SessionStore()
        here["a"] = 1
        here.save()
        assert SessionStore(here.session_key)["a"] == 1, "what is here is read in place"

    asyncio.run(scenario())


def test_what_waits_for_the_disk_is_not_for_event_loops(tmp_path: Path) -> None:
    async def scenario() -> None:
        session = SessionStore()
        session["a"] = 1
        with pytest.raises(SynchronousOnlyOperation):
            session.save()
        await session.asave()
        with pytest.raises(SynchronousOnlyOperation):
            session.flush()

    with override_settings(CANISTER={"path": tmp_path / "full", "durability": "full"}):
        asyncio.run(scenario())


def test_not_knowing_is_not_absence(cut_off: None, clock: ManualClock) -> None:
    token = token_of_elsewhere(clock)
    session = SessionStore(token)
    with pytest.raises(CannotTellError):
        session.exists(token)
    assert dict(session.items()) == {}
    assert (session.session_key, session.is_empty()) == (token, False), "the client's cookie stays"
    session["a"] = 1
    with pytest.raises(CannotTellError):
        session.save()
    assert session.session_key == token


def test_sessions_on_redis(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server, override_settings(CANISTER={"path": server.url}):
        client = Client()
        for _ in range(2):
            client.get("/append")
        assert client.get("/show").json()["data"] == {"list": [0, 1]}
        session = client.session
        session.set_expiry(timedelta(hours=1))
        session.save()
        SessionStore.clear_expired()

        async def scenario() -> None:
            asynchronous = AsyncClient()
            asynchronous.cookies = client.cookies
            assert (await asynchronous.get("/a/direct")).content == b"1", "loaded before the view"
            with pytest.raises(SynchronousOnlyOperation):
                SessionStore(session.session_key).get("direct")
            assert await SessionStore(session.session_key).aget("direct") == 1

        asyncio.run(scenario())
        close()
