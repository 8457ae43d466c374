"""The Django adapter over a real canister: middleware, cookie, log-in, asynchronous views."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

# First the project, which configures Django.
from tests.integration.django_project import KEY, MIDDLEWARE, cut_off_settings
from tests.integration.local import last_write, store_away

# isort: split

from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings

from canister import Canister, ConfigError
from canister.errors import SessionError
from canister.integrations.django import close, session_manager, session_of
from canister.integrations.django.middleware import SessionMiddleware
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

NAME = "__Host-id"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr("canister.opening.SystemClock", lambda: clock)
    return clock


@pytest.fixture(autouse=True)
def canister(tmp_path: Path, clock: ManualClock) -> Iterator[Canister]:
    """The canister of the project, a new one for each test."""
    with override_settings(CANISTER={"path": tmp_path / "data"}):
        yield session_manager().canister
    close()


@pytest.fixture
def cut_off(tmp_path: Path, clock: ManualClock) -> Iterator[dict[str, Any]]:
    """Make the project a node that cannot tell; return its settings."""
    own = cut_off_settings(tmp_path / "cut-off")
    with override_settings(CANISTER=own):
        assert session_manager().canister.node.store.peers().doubts > 0
        yield own


@pytest.fixture
def ann() -> Iterator[User]:
    user = User.objects.create_user("ann", password="secret")
    yield user
    User.objects.all().delete()
    connections.close_all()


@pytest.fixture
def client() -> Client:
    return Client()


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def with_cookie(value: str) -> Client:
    client = Client()
    client.cookies[NAME] = value
    return client


def shown(client: Client) -> Any:
    return client.get("/show").json()["data"]


# Requests.


def test_an_untouched_request_writes_nothing_and_sends_no_cookie(
    client: Client, canister: Canister, clock: ManualClock
) -> None:
    assert dict(client.get("/untouched").headers).keys() == {"Content-Type"}
    client.get("/put/a/1")
    before = last_write(canister)
    clock.advance(timedelta(days=10))
    response = client.get("/untouched")
    assert dict(response.headers).keys() == {"Content-Type"}
    assert not response.cookies
    assert last_write(canister) == before


def test_a_first_value_sends_the_safe_cookie_and_the_next_request_finds_it(client: Client) -> None:
    response = client.get("/put/a/1")
    (cookie,) = response.cookies.values()
    assert cookie.key == NAME
    attributes = {name: value for name, value in cookie.items() if value}
    assert attributes == {"path": "/", "secure": True, "httponly": True, "samesite": "Lax"}
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    assert response.headers["Vary"] == "Cookie"
    response = client.get("/show")
    assert response.json()["data"] == {"a": "1"}
    assert response.headers["Vary"] == "Cookie"
    assert not response.cookies
    assert not client.get("/put/b/2").cookies, "a change needs no cookie"


def test_a_nested_edit_is_saved(client: Client) -> None:
    for _ in range(3):
        client.get("/append")
    assert shown(client) == {"list": [0, 1, 2]}


def test_reading_is_an_access_and_with_djangos_setting_every_request_is(
    tmp_path: Path, clock: ManualClock
) -> None:
    with override_settings(CANISTER={"path": tmp_path / "data", "renewal_timeout": None}):
        count_accesses(Client(), session_manager().canister, clock)


def count_accesses(client: Client, canister: Canister, clock: ManualClock) -> None:
    client.get("/put/a/1")
    clock.advance(timedelta(days=1))
    client.get("/show")
    assert last_write(canister) == clock.now(), "one write: a second one would have a stamp after it"
    clock.advance(timedelta(days=1))
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        client.get("/untouched")
        assert last_write(canister) == clock.now()
        client.get("/untouched")
        assert last_write(canister) == clock.now(), "once for each touch interval"


def test_concurrent_requests_keep_each_others_keys(client: Client) -> None:
    client.get("/put/a/1")
    first = client.session
    first["slow"] = 1
    client.get("/put/fast/1")
    first.save()
    assert shown(client) == {"a": "1", "slow": 1, "fast": "1"}


def test_a_forged_cookie_gets_a_fresh_session(
    client: Client, canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.get("/put/a/1")
    token = client.cookies[NAME].value
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    with monkeypatch.context() as patch:
        patch.setattr(canister.node.store, "load", None)  # whoever looks at the disk fails
        response = with_cookie(forged).get("/show")
    assert response.json()["data"] == {}
    assert response.cookies[NAME]["expires"] == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert with_cookie(forged).get("/put/b/1").cookies[NAME].value not in (token, forged)


def test_an_expired_session_gets_a_fresh_one(client: Client, clock: ManualClock) -> None:
    client.get("/put/a/1")
    clock.advance(timedelta(days=15))
    assert shown(client) == {}


def test_a_save_after_the_log_out_is_answered_as_django_does(client: Client, canister: Canister) -> None:
    client.get("/put/a/1")

    def view(request: HttpRequest) -> HttpResponse:
        request.session["slow"] = 1
        canister.destroy(request.session.handle)
        return HttpResponse("ok")

    with replaced("show", view):
        assert client.get("/show").status_code == 400
    assert list(canister.all_sessions()) == []


def test_a_failed_request_stores_nothing(client: Client) -> None:
    client.get("/put/a/1")
    token = client.cookies[NAME].value
    for what in ("put", "cycle"):
        assert client.get(f"/fail/{what}").status_code == 500
        assert client.cookies[NAME].value == token
        assert shown(client) == {"a": "1"}


def test_what_a_failed_request_has_stored_itself_stands(client: Client, ann: User) -> None:
    client.get("/fail/save")
    assert shown(client) == {"saved": True}, "it had a cookie"
    client.get("/log-in/ann")
    client.get("/fail/log-out")
    assert client.get("/show").json()["user"] is None


def test_a_change_after_the_headers_left_is_reported(
    client: Client, canister: Canister, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(SessionError, match="GET /stream"):
        b"".join(client.get("/stream"))
    with override_settings(CANISTER={"path": tmp_path / "other", "strict": False}):
        client = Client()
        b"".join(client.get("/stream"))
        assert "what GET /stream changed" in caplog.text
        assert shown(client) == {"early": 1}


def test_a_project_may_put_something_else_in_the_sessions_place(client: Client) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        request.session = {"mine": 1}
        return HttpResponse("ok")

    with replaced("show", view):
        assert not client.get("/show").cookies


def test_no_log_ever_holds_a_token(client: Client, caplog: pytest.LogCaptureFixture, ann: User) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = []
    for path in ("/put/a/1", "/log-in/ann", "/change-password"):
        client.get(path)
        tokens.append(client.cookies[NAME].value)
    client.get("/log-out")
    with_cookie(tokens[0]).get("/show")
    assert "was created" in caplog.text
    for token in tokens:
        assert token not in caplog.text


class replaced:
    """Put another view in the place of one."""

    def __init__(self, route: str, view: Any) -> None:
        from tests.integration.django_project import urlpatterns

        self.pattern = next(one for one in urlpatterns if str(one.pattern) == route)
        self.view, self.before = view, self.pattern.callback

    def __enter__(self) -> None:
        self.pattern.callback = self.view

    def __exit__(self, *_: object) -> None:
        self.pattern.callback = self.before


# Logging in and out, by Django's own functions.


def test_a_log_in_is_a_new_session_of_the_user_with_the_data(
    client: Client, canister: Canister, ann: User
) -> None:
    client.get("/put/a/1")
    planted, before = client.cookies[NAME].value, last_write(canister)
    client.get("/log-in/ann")
    assert last_write(canister) == before + 1, "one write"
    assert client.get("/show").json()["user"] == ann.pk
    assert client.get("/whoami").content == b"ann"
    assert shown(client) == {"a": "1"}
    assert with_cookie(planted).get("/show").json() == {"user": None, "data": {}, "handle": None}
    (session,) = session_manager().users.sessions(ann.pk)
    assert session.handle == client.get("/show").json()["handle"]
    assert (session.identity.address, session.identity.agent) == (None, None)


def test_a_second_log_in_of_the_same_user_is_a_new_session_too(client: Client, ann: User) -> None:
    client.get("/log-in/ann")
    first = client.cookies[NAME].value
    client.get("/put/a/1")
    client.get("/log-in/ann")
    assert client.cookies[NAME].value != first
    assert shown(client) == {"a": "1"}
    assert len(session_manager().users.sessions(ann.pk)) == 1


@pytest.mark.parametrize("end", ["/log-in/bob", "/a/log-in/bob"])
def test_the_age_of_the_cookie_ends_with_the_session(client: Client, ann: User, end: str) -> None:
    User.objects.create_user("bob", password="secret")
    client.get("/log-in/ann")
    assert client.get("/expire/36000").cookies[NAME]["max-age"] == "36000"
    assert client.get(end).cookies[NAME]["max-age"] == "", "until the browser is closed"


def test_another_user_gets_nothing_of_the_first_ones(client: Client, ann: User) -> None:
    bob = User.objects.create_user("bob", password="secret")
    client.get("/log-in/ann")
    client.get("/put/a/1")
    client.get("/log-in/bob")
    assert client.get("/show").json()["user"] == bob.pk
    assert client.get("/whoami").content == b"bob"
    assert shown(client) == {}
    # Also where the project has taken Django's key out by itself, so that Django sees no other user.
    client.get("/put/a/1")
    client.get("/expire/36000")
    session = client.session
    del session["_auth_user_id"]
    session.save()
    assert client.get("/log-in/ann").cookies[NAME]["max-age"] == ""
    assert client.get("/whoami").content == b"ann"
    assert shown(client) == {}


def test_a_log_out_destroys_the_session(client: Client, canister: Canister, ann: User) -> None:
    client.get("/log-in/ann")
    token = client.cookies[NAME].value
    response = client.get("/log-out")
    assert response.cookies[NAME].value == ""
    assert with_cookie(token).get("/show").json()["user"] is None
    assert list(canister.all_sessions()) == []


def test_clearing_the_session_logs_the_user_out(client: Client, ann: User) -> None:
    client.get("/log-in/ann")
    client.get("/clear")
    assert client.get("/whoami").content == b"nobody"
    assert client.get("/show").json()["user"] is None
    assert session_manager().users.sessions(ann.pk) == []


@pytest.mark.parametrize(
    ("acts", "key"),
    [
        ("clear", None),
        ("set_expiry", None),
        ("cycle_key clear", "new"),
        ("flush clear", ""),
        ("flush set_expiry", ""),
    ],
)
def test_default_times_alone_make_no_session(canister: Canister, acts: str, key: str | None) -> None:
    def act(request: HttpRequest) -> HttpResponse:
        for name in acts.split():
            getattr(request.session, name)(*((None,) if name == "set_expiry" else ()))
        return HttpResponse("ok")

    visitor = Client()
    if key is not None:
        visitor.get("/put/a/1")
    factory = RequestFactory()
    factory.cookies = visitor.cookies
    response: Any = SessionMiddleware(act)(factory.get("/"))
    sent = response.cookies[NAME].value if NAME in response.cookies else None
    assert ("new" if sent else sent) == key
    assert len(list(canister.all_sessions())) == (key == "new")


def test_a_changed_password_keeps_this_session_and_ends_the_others(client: Client, ann: User) -> None:
    other = Client()
    for one in (client, other):
        one.get("/log-in/ann")
    token = client.cookies[NAME].value
    client.get("/change-password")
    assert client.cookies[NAME].value != token, "a change of privilege is a new session"
    assert client.get("/whoami").content == b"ann"
    assert client.get("/show").json()["user"] == ann.pk
    assert other.get("/whoami").content == b"nobody"
    assert len(session_manager().users.sessions(ann.pk)) == 1, "Django has flushed it"


def test_where_and_with_what_a_user_logged_in_is_recorded_if_asked_for(tmp_path: Path, ann: User) -> None:
    with override_settings(CANISTER={"path": tmp_path / "data", "record_client": True}):
        Client(REMOTE_ADDR="192.0.2.1", HTTP_USER_AGENT="browser").get("/log-in/ann")
        (session,) = session_manager().users.sessions(ann.pk)
        assert (session.identity.address, session.identity.agent) == ("192.0.2.1", "browser")


def test_a_log_in_too_many_may_be_refused(tmp_path: Path, ann: User) -> None:
    cap = {"max_sessions": 1, "at_cap": "reject"}
    with override_settings(CANISTER={"path": tmp_path / "data", **cap}):
        first, second = Client(), Client()
        first.get("/log-in/ann")
        response = second.get("/log-in/ann")
        assert response.status_code == 403
        assert second.get("/whoami").content == b"nobody"
        assert first.get("/whoami").content == b"ann"


def test_messages_and_the_csrf_secret_live_in_the_session(ann: User) -> None:
    with override_settings(CSRF_USE_SESSIONS=True):
        client = Client(enforce_csrf_checks=True)
        client.get("/say")
        assert client.get("/listen").content == b"hello"
        assert client.get("/listen").content == b""
        token = client.get("/form").content.decode()
        assert client.post("/put/a/1").status_code == 403
        assert client.post("/put/a/1", {"csrfmiddlewaretoken": token}).status_code == 200
        assert client.post("/log-in/ann", {"csrfmiddlewaretoken": token}).status_code == 200
        assert client.post("/put/a/1", {"csrfmiddlewaretoken": token}).status_code == 403, "rotated"
        fresh = client.get("/form").content.decode()
        assert client.post("/put/a/2", {"csrfmiddlewaretoken": fresh}).status_code == 200
        assert shown(client)["a"] == "2"


# Django's test client.


def test_the_test_client_logs_in_and_out_and_edits_the_session(client: Client, ann: User) -> None:
    client.force_login(ann)
    assert client.get("/whoami").content == b"ann"
    assert client.get("/show").json()["user"] == ann.pk
    session = client.session
    session["a"] = 1
    session.save()
    assert shown(client) == {"a": 1}
    client.get("/put/b/2")
    assert client.session["b"] == "2"
    token = client.cookies[NAME].value
    client.logout()
    assert client.get("/whoami").content == b"nobody"
    assert with_cookie(token).get("/whoami").content == b"nobody"
    assert client.login(username="ann", password="secret")
    assert client.get("/whoami").content == b"ann"


def test_the_asynchronous_test_client_does_so_too(ann: User) -> None:
    async def scenario() -> None:
        client = AsyncClient()
        await client.aforce_login(ann)
        assert (await client.get("/whoami")).content == b"ann"
        session = await client.asession()
        await session.aset("a", 1)
        await session.asave()
        assert (await client.get("/a/show")).json()["data"] == {"a": 1}
        await client.alogout()
        assert (await client.get("/whoami")).content == b"nobody"

    asyncio.run(scenario())


# Asynchronous views.


def test_asynchronous_views_read_and_write(ann: User) -> None:
    async def scenario() -> None:
        client = AsyncClient()
        assert not (await client.get("/untouched")).cookies
        await client.get("/a/put/a/1")
        assert (await client.get("/a/direct")).content == b"1"
        assert (await client.get("/a/direct")).content == b"2", "loaded before the view"
        assert (await client.get("/a/show")).json()["data"] == {"a": "1", "direct": 2}
        planted = client.cookies[NAME].value
        await client.get("/a/log-in/ann")
        assert client.cookies[NAME].value != planted
        assert (await client.get("/a/show")).json()["user"] == ann.pk
        assert (await client.get("/whoami")).content == b"ann", "a view that is no coroutine"
        assert (await client.get("/a/log-out")).cookies[NAME].value == ""
        assert (await client.get("/a/show")).json() == {"user": None, "data": {}, "handle": None}

    asyncio.run(scenario())


def test_no_middleware_hop_to_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middleware and the session are awaited where they are."""
    import asgiref.sync

    hops: list[object] = []
    call = asgiref.sync.SyncToAsync.__call__

    async def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        hops.append(self.func)
        return await call(self, *args, **kwargs)

    async def scenario() -> None:
        client = AsyncClient()
        await client.get("/a/put/a/1")
        monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", counted)
        await client.get("/a/put/a/2")

    with override_settings(MIDDLEWARE=MIDDLEWARE[:1]):
        asyncio.run(scenario())
    assert [hop for hop in hops if "canister" in repr(hop)] == []


# Not knowing is not absence.


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_node_that_cannot_tell_serves_reads_refuses_writes_and_leaves_the_cookie(
    cut_off: dict[str, Any], clock: ManualClock, asynchronous: bool
) -> None:
    prefix = "/a" if asynchronous else ""

    def get(path: str) -> Any:
        cookie = token_of_elsewhere(clock)
        if not asynchronous:
            return with_cookie(cookie).get(path)
        client = AsyncClient()
        client.cookies[NAME] = cookie
        return asyncio.run(client.get(path))

    response = get(f"{prefix}/show")
    assert (response.status_code, response.json()["data"], len(response.cookies)) == (200, {}, 0)
    response = get(f"{prefix}/put/a/1")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "2"
    assert not response.cookies
    assert b"cookie was left as it is" in response.content


@pytest.mark.parametrize("prefix", ["", "/a"])
def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    client: Client, canister: Canister, ann: User, prefix: str
) -> None:
    client.get("/put/a/1")
    with store_away(canister):
        assert client.get("/untouched").status_code == 200
        for path in ("show", "log-in/ann", "log-out"):
            response = client.get(f"{prefix}/{path}")
            assert response.status_code == 503, path
            assert response.headers["Retry-After"] == "2"
            assert not response.cookies
    assert shown(client) == {"a": "1"}


def test_a_node_that_cannot_tell_may_refuse_reads_as_well(
    cut_off: dict[str, Any], clock: ManualClock
) -> None:
    with override_settings(CANISTER=cut_off | {"when_behind": "refuse"}):
        client = with_cookie(token_of_elsewhere(clock))
        assert client.get("/untouched").status_code == 200
        response = client.get("/show")
        assert (response.status_code, len(response.cookies)) == (503, 0)
        required = [*MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
        with override_settings(MIDDLEWARE=required):
            client = with_cookie(token_of_elsewhere(clock))
            client.raise_request_exception = False
            response = client.get("/untouched")
            assert (response.status_code, len(response.cookies)) == (503, 0), "nobody is sent to the log-in"


def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: dict[str, Any], ann: User) -> None:
    with override_settings(CANISTER=cut_off | {"acks": 2}):
        client = Client()
        assert client.get("/log-in/ann").status_code == 503
        assert client.get("/whoami").content == b"ann", "it had its cookie"


def test_the_seen_cookie_goes_with_what_was_seen(cut_off: dict[str, Any]) -> None:
    client = Client()
    assert set(client.get("/put/a/1").cookies) == {NAME, "__Host-seen"}
    assert not client.get("/show").cookies
    assert set(client.get("/put/a/2").cookies) == {"__Host-seen"}
    assert client.get("/log-out").cookies["__Host-seen"].value == ""


# The session behind the session.


def test_a_view_gets_at_what_django_has_no_name_for(client: Client) -> None:
    def count(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(session_of(request).increment("visits")))

    with replaced("show", count):
        assert [client.get("/show").content for _ in range(3)] == [b"1", b"2", b"3"]
    with pytest.raises(ConfigError, match="NoneType"):
        session_of(HttpRequest())


# The admin view.


def test_staff_sees_and_ends_a_users_sessions(ann: User) -> None:
    root = User.objects.create_superuser("root", password="secret")
    phone, laptop = Client(), Client()
    for one in (phone, laptop):
        one.force_login(ann)
    admin = Client()
    admin.force_login(root)
    page = f"/admin/sessions/{ann.pk}/"
    handles = [one.get("/show").json()["handle"] for one in (phone, laptop)]
    text = admin.get(page).content.decode()
    assert all(handle in text for handle in handles)
    assert admin.post(page, {"end": handles[0]}).status_code == 302
    assert phone.get("/whoami").content == b"nobody"
    assert laptop.get("/whoami").content == b"ann"
    admin.post(page, {"end": "all"})
    assert laptop.get("/whoami").content == b"nobody"
    assert "No sessions" in admin.get(page).content.decode()
    own = f"/admin/sessions/{root.pk}/"
    other = Client()
    other.force_login(root)
    assert "this one" in admin.get(own).content.decode()
    admin.post(own, {"end": "all"})
    assert (other.get("/whoami").content, admin.get("/whoami").content) == (b"nobody", b"root")
    assert admin.get("/admin/sessions/999/").status_code == 404
    assert admin.get("/admin/sessions/no-key/").status_code == 404
    assert admin.post(page).status_code == 302


def test_others_see_and_end_no_sessions(ann: User) -> None:
    page = f"/admin/sessions/{ann.pk}/"
    client = Client()
    assert client.get(page).status_code == 302, "to the log-in"
    staff = User.objects.create_user("bob", password="secret", is_staff=True)
    client.force_login(staff)
    assert client.get(page).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="view_user"))
    text = client.get(page).content.decode()
    assert "Sessions of ann" in text
    victim = Client()
    victim.force_login(ann)
    assert (
        "<button"
        not in client.get(page).content.decode().partition('id="content-main"')[2].partition('id="footer"')[0]
    )
    assert client.post(page, {"end": "all"}).status_code == 403
    assert victim.get("/whoami").content == b"ann"


# Start and upkeep.


def test_clearsessions_sweeps(client: Client, canister: Canister, clock: ManualClock) -> None:
    client.get("/put/a/1")
    clock.advance(timedelta(days=40))
    assert canister.num_local_sessions() == 0
    assert list(canister.node.store.scan())
    call_command("clearsessions")
    assert not list(canister.node.store.scan())


def test_what_cannot_work_is_refused_at_start(tmp_path: Path) -> None:
    for wrong, message in [
        ({"CANISTER": {}}, "path"),
        ({"CANISTER": "sessions"}, "CANISTER is a dict"),
        ({"CANISTER": {"path": tmp_path, "colour": "red"}}, "colour"),
        ({"CANISTER": {"path": tmp_path, "any_host": "maybe"}}, "any_host"),
        ({"CANISTER": {"path": tmp_path, "record_client": "some"}}, "record_client"),
        ({"CANISTER": {"path": tmp_path, "strict": "banana"}}, "strict"),
        ({"SESSION_COOKIE_NAME": "__Host-x", "SESSION_COOKIE_DOMAIN": "example.org"}, "__Host-x"),
        ({"SESSION_COOKIE_SAMESITE": False}, "samesite"),
        ({"SECRET_KEY": "short"}, "32 characters"),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, "SESSION_ENGINE"),
    ]:
        with override_settings(**wrong), pytest.raises(ImproperlyConfigured, match=message):
            SessionMiddleware(lambda request: HttpResponse())


def test_plain_http_serves_private_networks_only(tmp_path: Path) -> None:
    with override_settings(SESSION_COOKIE_SECURE=False):
        cookie = Client().get("/put/a/1").cookies["id"]
        assert not cookie["secure"]
        with pytest.raises(ConfigError, match="private networks"):
            Client(HTTP_HOST="example.org").get("/put/a/1")
        with (
            override_settings(CANISTER={"path": tmp_path / "data", "any_host": "no"}),
            pytest.raises(ConfigError, match="private networks"),
        ):
            Client(HTTP_HOST="example.org").get("/put/a/1")
        with override_settings(CANISTER={"path": tmp_path / "data", "any_host": True}):
            assert Client(HTTP_HOST="example.org").get("/put/a/1").cookies["id"]


def test_a_key_that_was_replaced_still_verifies(client: Client) -> None:
    client.get("/put/a/1")
    with override_settings(SECRET_KEY=KEY[::-1], SECRET_KEY_FALLBACKS=[KEY]):
        assert shown(client) == {"a": "1"}
    with override_settings(SECRET_KEY=KEY[::-1]):
        assert shown(client) == {}


def test_django_itself_tells_what_holds() -> None:
    assert CookieSettings().name == settings.SESSION_COOKIE_NAME
    assert settings.SESSION_COOKIE_SECURE is True
    assert settings.SESSION_EXPIRE_AT_BROWSER_CLOSE is True
