"""Sessions of Django, Flask, Flask-Session and Starlette go on here, whatever kept them there."""

import logging
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

# First the project, which configures Django.
from tests.integration.django_project import KEY

# isort: split

from django.contrib.sessions.models import Session as DjangoRow
from django.core.cache import caches
from django.db import connection, connections
from django.test import override_settings
from tests.integration.old_systems import (
    BACKENDS,
    ENGINES,
    MONTH,
    Old,
    django_log_in,
    django_old,
    flask_app,
    flask_log_in,
    flask_old,
    flask_session_old,
    starlette_log_in,
    starlette_old,
    time_ago,
    with_flask_session,
)
from tests.redis_servers import RedisServer, running_redis

from canister import Canister, ConfigError, OldSystemError
from canister.clock import to_datetime
from canister.integrations.moving.django import DjangoSessions
from canister.integrations.moving.flask import FlaskCookies
from canister.integrations.moving.flask_session import FlaskSessionRedis
from canister.integrations.moving.starlette import StarletteCookies
from canister.life import hard_end
from canister.sessions import Session, SessionManager
from canister.sessions.movein import OldSession, OldSystem

pytestmark = pytest.mark.integration

HOUR = timedelta(hours=1)
OLD_SYSTEMS = ["flask", "flask_session", "starlette", *ENGINES]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_client(redis: RedisServer) -> Iterator["Redis"]:
    with redis.client() as client:
        client.flushall()
        yield client


@pytest.fixture(autouse=True)
def database() -> Iterator[None]:
    yield
    connections.close_all()


@pytest.fixture(params=OLD_SYSTEMS)
def old(request: pytest.FixtureRequest) -> Iterator[Old]:
    made: dict[str, Callable[[], AbstractContextManager[Old]]] = {
        "flask": flask_old,
        "starlette": starlette_old,
        "flask_session": lambda: flask_session_old(request.getfixturevalue("redis_client")),
    }
    with made.get(request.param, partial(django_old, request.param))() as old:
        yield old


def open_manager(directory: Path, system: OldSystem) -> SessionManager:
    canister = Canister(directory, agent=False, session_timeout="14d", absolute_lifetime="30d")
    return SessionManager(canister, secret_keys=KEY, move_in=[system])


@pytest.fixture
def manager(tmp_path: Path, old: Old) -> Iterator[SessionManager]:
    manager = open_manager(tmp_path / "data", old.system)
    with manager.canister:
        yield manager


@pytest.fixture
def other(tmp_path: Path, old: Old) -> Iterator[SessionManager]:
    manager = open_manager(tmp_path / "other", old.system)
    with manager.canister:
        yield manager


def exchange(a: SessionManager, b: SessionManager) -> None:
    for source, target in ((a, b), (b, a)):
        target.canister.node.store.merge(source.canister.node.store.scan(), {})


def request(manager: SessionManager, header: str) -> tuple[Session, str]:
    session = manager.open([header])
    dict(session)
    cookie = manager.commit(session).set_cookie or ""
    return session, cookie.partition(";")[0]


# What holds wherever a session moves in from.


def test_nobody_is_logged_out(manager: SessionManager, old: Old) -> None:
    session, cookie = request(manager, old.header)
    assert (session.user, session["cart"]) == (old.user, old.cart)
    assert cookie
    again, none = request(manager, f"{old.header}; {cookie}")
    assert (again.handle, again.user, none) == (session.handle, old.user, "")


def test_it_ends_when_it_would_have(manager: SessionManager, old: Old) -> None:
    session, _ = request(manager, old.header)
    end = to_datetime(hard_end(session.state.record))
    assert abs(end - old.ends) < timedelta(seconds=10)


def test_two_tabs_that_move_in_at_once_meet(manager: SessionManager, old: Old) -> None:
    first, second = manager.open([old.header]), manager.open([old.header])
    first["a"], second["b"] = 1, 2
    cookies = {manager.commit(session).set_cookie for session in (first, second)}
    assert len(cookies) == 1
    session, _ = request(manager, old.header)
    assert (session["a"], session["b"], session["cart"]) == (1, 2, old.cart)


def test_two_nodes_give_it_the_same_life_however_late(
    manager: SessionManager, other: SessionManager, old: Old
) -> None:
    here, _ = request(manager, old.header)
    with time_ago(-HOUR):
        there, _ = request(other, old.header)
    assert here.handle == there.handle
    births = [session.state.record.birth for session in (here, there)]
    assert births[0].born == births[1].born
    assert births[0].absolute == births[1].absolute


def test_an_old_cookie_does_not_undo_a_log_out_here_or_on_the_other_side_of_a_split(
    manager: SessionManager, other: SessionManager, old: Old
) -> None:
    _, cookie = request(manager, old.header)
    manager.destroy(manager.open([cookie]))
    assert request(manager, old.header) == ({}, "")
    # The other side has not heard of it.
    assert request(other, old.header)[0].user == old.user
    exchange(manager, other)
    assert request(other, old.header) == ({}, "")
    assert request(manager, old.header) == ({}, "")


def test_forged_ones_are_refused(manager: SessionManager, old: Old) -> None:
    name, value = old.system.cookie_name, old.value
    middle = len(value) // 2
    turned = value[:middle] + ("a" if value[middle] != "a" else "b") + value[middle + 1 :]
    for forged in (turned, value[:-1], value + "A", "x" * 40, "", "é" * 20, "a\x00b" * 9, "1" * 5000):
        assert request(manager, f"{name}={forged}") == ({}, ""), forged


def test_an_old_cookie_of_the_new_ones_name_moves_in(tmp_path: Path, old: Old) -> None:
    class Named:
        cookie_name = "__Host-id"
        find = staticmethod(old.system.find)

    manager = open_manager(tmp_path / "named", Named())
    with manager.canister:
        session, cookie = request(manager, f"__Host-id={old.value}")
        assert session.user == old.user
        again, none = request(manager, cookie)
        assert (again.handle, none) == (session.handle, "")
        for both in (f"__Host-id={old.value}; {cookie}", f"{cookie}; __Host-id={old.value}"):
            assert request(manager, both)[0].handle == session.handle


# What is over.


def test_expired_signed_cookies_are_refused() -> None:
    app = flask_app(PERMANENT_SESSION_LIFETIME=HOUR)
    with time_ago(HOUR * 2):
        signed = [
            (FlaskCookies(app), flask_log_in(app)),
            (StarletteCookies(KEY, max_age=3600), starlette_log_in()),
        ]
    for system, value in signed:
        assert system.find(value) is None
        with time_ago(HOUR * 1.5):
            assert system.find(value) is not None


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_expired_rows_of_django_are_refused(engine: str) -> None:
    with django_old(engine) as old:
        DjangoRow.objects.update(expire_date=datetime.now(UTC) - HOUR)
        assert old.system.find(old.value) is None


def test_expired_signed_cookies_of_django_are_refused() -> None:
    with time_ago(HOUR), django_old("signed_cookies") as old:
        value = old.value
        assert old.system.find(value) is not None
    with django_old("signed_cookies"):
        assert DjangoSessions(f"{BACKENDS}.signed_cookies", cookie_age=HOUR / 2).find(value) is None


def test_what_has_stopped_long_ago_is_over(tmp_path: Path) -> None:
    stopped = datetime.now(UTC) - 2 * HOUR
    with django_old("cache") as old:
        system = DjangoSessions(f"{BACKENDS}.cache", cookie_age=HOUR, stopped=stopped)
        manager = open_manager(tmp_path / "data", system)
        with manager.canister:
            assert request(manager, old.header) == ({}, "")


def test_a_session_that_flask_session_has_dropped_is_refused(redis_client: "Redis") -> None:
    with flask_session_old(redis_client) as old:
        assert old.system.find(old.value) is not None
        [key] = redis_client.keys("session:*")
        redis_client.pexpire(key, 1)
        while redis_client.exists(key):
            pass
        assert old.system.find(old.value) is None


# What cannot be asked.


def test_a_redis_that_is_down_logs_nobody_out(tmp_path: Path) -> None:
    with (
        running_redis(tmp_path / "redis") as server,
        server.client() as client,
        flask_session_old(client) as old,
    ):
        manager = open_manager(tmp_path / "data", old.system)
        server.stop()
        with manager.canister:
            session = manager.open([old.header])
            with pytest.raises(OldSystemError, match="Flask-Session's servers"):
                session.get("cart")
            assert manager.commit(session).set_cookie is None
            server.start()  # it forgot everything: what comes of it is absence
            assert request(manager, old.header) == ({}, "")


def test_a_database_that_is_down_logs_nobody_out(tmp_path: Path) -> None:
    with django_old("db") as old:
        manager = open_manager(tmp_path / "data", old.system)
        with manager.canister:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE django_session RENAME TO away")
            try:
                session = manager.open([old.header])
                with pytest.raises(OldSystemError, match="no such table"):
                    session.get("cart")
                assert manager.commit(session).set_cookie is None
            finally:
                with connection.cursor() as cursor:
                    cursor.execute("ALTER TABLE away RENAME TO django_session")
            assert request(manager, old.header)[0].user == old.user


def test_a_cache_that_is_down_logs_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ConnectionRefusedError("the cache is away")

    with django_old("cache") as old:
        monkeypatch.setattr(caches["default"], "get", fail)
        with pytest.raises(OldSystemError, match="the cache is away"):
            old.system.find(old.value)


# What is particular to one of them.


def test_django_sessions_with_an_expiry_of_their_own() -> None:
    for engine in ENGINES:
        stopped = datetime.now(UTC) if engine == "cache" else None
        found = DjangoSessions(f"{BACKENDS}.{engine}", stopped=stopped).find(
            django_log_in(engine, "expire/300")
        )
        assert found is not None
        assert (found.idle, found.user) == (timedelta(seconds=300), None)
        assert abs(found.ends - found.created - timedelta(seconds=300)) < timedelta(seconds=2), engine


def find(old: Old) -> OldSession:
    found = old.system.find(old.value)
    assert found is not None
    return found


def test_django_keeps_the_hash_of_the_password_and_the_backend(manager: SessionManager, old: Old) -> None:
    if "django" not in type(old.system).__module__:
        assert "_auth_user_hash" not in find(old).data
        return
    session, _ = request(manager, old.header)
    assert session["_auth_user_id"] == str(old.user)
    assert session["_auth_user_backend"] == "django.contrib.auth.backends.ModelBackend"
    assert session["_auth_user_hash"]


def test_a_row_that_django_cannot_verify_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with django_old("db") as old:
        row = DjangoRow.objects.get(session_key=old.value)
        row.session_data = row.session_data[:-4] + "AAAA"
        row.save()
        with caplog.at_level(logging.WARNING, "django.security.SuspiciousSession"):
            assert old.system.find(old.value) is None
        assert "Session data corrupted" in caplog.text


def test_djangos_own_secret_keys_verify() -> None:
    with django_old("signed_cookies") as old:
        another = "another-key-0123456789-abcdefghijk"
        with override_settings(SECRET_KEY=another):
            assert old.system.find(old.value) is None
        with override_settings(SECRET_KEY=another, SECRET_KEY_FALLBACKS=[KEY]):
            assert old.system.find(old.value) is not None


def test_the_cache_of_django_has_to_say_when_it_stopped() -> None:
    for stopped in (None, datetime(2030, 1, 1)):
        with pytest.raises(ConfigError, match="say when the last process"):
            DjangoSessions(f"{BACKENDS}.cache", stopped=stopped)


@pytest.mark.parametrize("engine", ["django.contrib.sessions.backends.file", "nowhere", "json"])
def test_other_engines_of_django_are_refused(engine: str) -> None:
    with pytest.raises(ConfigError, match=r"is no session engine|only from Django's"):
        DjangoSessions(engine)


def test_flasks_older_keys_verify() -> None:
    app = flask_app()
    value = flask_log_in(app)
    app.config.update(SECRET_KEY="another-key-0123456789", SECRET_KEY_FALLBACKS=None)
    assert FlaskCookies(app).find(value) is None
    app.config["SECRET_KEY_FALLBACKS"] = [KEY]
    assert FlaskCookies(app).find(value) is not None
    app.config["SECRET_KEY"] = None
    with pytest.raises(ConfigError, match="SECRET_KEY"):
        FlaskCookies(app).find(value)


def test_a_permanent_session_of_flask_may_be_idle_for_its_lifetime() -> None:
    app = flask_app()
    found = FlaskCookies(app).find(flask_log_in(app))
    assert found is not None
    assert found.idle == MONTH


@pytest.mark.filterwarnings("ignore:The 'use_signer' option is deprecated:DeprecationWarning")
def test_flask_sessions_signed_and_in_json(redis_client: "Redis") -> None:
    config = {"SESSION_SERIALIZATION_FORMAT": "json", "SESSION_USE_SIGNER": True}
    with flask_session_old(redis_client, SESSION_KEY_PREFIX="s/", **config) as old:
        assert find(old).user == "ann"
        assert old.system.find(old.value.partition(".")[0]) is None, "the signature is looked at"


class Planted:
    ran = False

    def __reduce__(self) -> Any:
        return exec, (f"import {__name__} as here; here.Planted.ran = True",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_and_never_read(
    redis_client: "Redis", caplog: pytest.LogCaptureFixture, protocol: int
) -> None:
    app = with_flask_session(redis_client)
    for number, planted in enumerate(({"_user_id": "ann"}, {"x": Planted()})):
        redis_client.set(f"session:planted-{number}", pickle.dumps(planted, protocol), ex=100)
        assert FlaskSessionRedis(app).find(f"planted-{number}") is None
    assert not Planted.ran
    assert caplog.text.count("A pickle is not read") == 2
    assert "planted" not in caplog.text


@pytest.mark.parametrize("stored", [b"*", b"[1]", b"null", b"", b"\xc1", b"\x91" * 9999 + b"\xc0"])
def test_what_is_no_mapping_is_refused(redis_client: "Redis", stored: bytes) -> None:
    redis_client.set("session:odd", stored, ex=100)
    assert FlaskSessionRedis(with_flask_session(redis_client)).find("odd") is None


def test_a_session_of_flask_session_without_an_end_is_refused(
    redis_client: "Redis", caplog: pytest.LogCaptureFixture
) -> None:
    with flask_session_old(redis_client) as old:
        [key] = redis_client.keys("session:*")
        redis_client.persist(key)
        assert old.system.find(old.value) is None
    assert "has no end" in caplog.text


def test_servers_that_do_not_tell_the_end_are_named(
    redis_client: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    with flask_session_old(redis_client) as old:
        monkeypatch.setattr(
            "redis.client.Pipeline.pexpiretime", lambda self, key: self.execute_command("PEXPIRE_TIME", key)
        )
        with pytest.raises(OldSystemError, match="Redis 7 or Valkey"):
            old.system.find(old.value)


@pytest.mark.parametrize("form", ["json", "msgpack"])
def test_a_client_that_decodes_is_named(redis_client: "Redis", form: str) -> None:
    where = {name: redis_client.get_connection_kwargs()[name] for name in ("host", "port", "db")}
    with flask_session_old(redis_client, SESSION_SERIALIZATION_FORMAT=form) as old:
        decoding = Redis(**where, decode_responses=True)
        system = FlaskSessionRedis(flask_app(SESSION_REDIS=decoding))
        with decoding, pytest.raises(OldSystemError, match="decode_responses"):
            system.find(old.value)


def test_an_end_that_no_date_reaches_is_named(redis_client: "Redis") -> None:
    with flask_session_old(redis_client) as old:
        [key] = redis_client.keys("session:*")
        redis_client.pexpireat(key, 2**58)
        with pytest.raises(OldSystemError, match="later than can be told"):
            old.system.find(old.value)


def test_flask_session_needs_its_client_and_its_key() -> None:
    with pytest.raises(ConfigError, match="SESSION_REDIS"):
        FlaskSessionRedis(flask_app())
    app = flask_app(SESSION_REDIS=Redis(), SESSION_USE_SIGNER=True)
    app.config["SECRET_KEY"] = None
    with pytest.raises(ConfigError, match="SECRET_KEY"):
        FlaskSessionRedis(app)


def test_a_starlette_cookie_without_an_age_lasts_as_long_as_anything_may(tmp_path: Path) -> None:
    value = starlette_log_in(max_age=None)
    manager = open_manager(tmp_path / "data", StarletteCookies(KEY, max_age=None))
    with manager.canister:
        session, _ = request(manager, f"session={value}")
        assert session["user"] == "ann"
        assert session.user is None, "nobody said where it has its user"
        ends = to_datetime(hard_end(session.state.record))
        assert abs(ends - datetime.now(UTC) - timedelta(days=400)) < timedelta(seconds=10)
