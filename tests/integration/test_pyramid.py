"""The session factory under Pyramid, over a real canister."""

import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.local import last_write, store_away

from canister import AgentError, Canister, ConfigError, SessionDestroyedError, SessionError
from canister.record import NodeId, make_version
from canister.sessions import CookieSettings
from canister.sessions.keys import KeyRing
from canister.sessions.token import draft
from canister.testing.clock import ManualClock

with warnings.catch_warnings():
    # WebOb 1.8 imports the standard library's cgi, or, where that is gone, a package in its place.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pyramid.config import Configurator
    from pyramid.interfaces import ISession, ISessionFactory
    from pyramid.response import FileResponse, Response
    from webtest import TestApp as Client  # pytest would collect it by its own name
    from zope.interface.verify import verifyObject

    from canister.integrations.pyramid import SessionFactory

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"
NAME = "__Host-id"
END = CookieSettings().end()
HTTPS = {"wsgi.url_scheme": "https", "HTTP_HOST": "testserver", "SERVER_PORT": "443"}


def show(request: Any) -> Any:
    request.session.update(request.GET)
    return {"user": request.session.user, "data": dict(request.session)}


def log_in(request: Any) -> Any:
    request.session.login("ann")
    return {}


def log_out(request: Any) -> Any:
    request.session.invalidate()
    return {}


def untouched(request: Any) -> Any:
    return {}


VIEWS = {"show": show, "log-in": log_in, "log-out": log_out, "untouched": untouched}


def client_of(canister: Canister, settings: dict[str, Any] | None = None, **views: Any) -> Client:
    given = {"canister": canister, "canister.secret_keys": KEY}
    with Configurator(settings=given | (settings or {})) as config:
        config.include("canister.integrations.pyramid")
        for name, view in (VIEWS | views).items():
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name, renderer="json")
    return Client(config.make_wsgi_app(), extra_environ=HTTPS)


def with_cookie(value: str) -> dict[str, str]:
    return {"Cookie": f"{NAME}={value}"}


def data_of(client: Client, cookie: str | None = None) -> Any:
    return client.get("/show", headers={} if cookie is None else with_cookie(cookie)).json["data"]


def token_of(client: Client) -> str:
    token: str = client.cookies[NAME]
    return token


def token_of_elsewhere(clock: ManualClock) -> str:
    return draft(KeyRing([KEY])).seal(make_version(clock.now(), NodeId(b"node-B.."))).text


def test_an_untouched_request_writes_nothing_and_sends_no_cookie(canister: Canister) -> None:
    headers = client_of(canister).get("/untouched").headers
    assert not {"Set-Cookie", "Vary", "Cache-Control"} & set(headers)
    assert last_write(canister) == 0


def test_vary_stays_one_line(canister: Canister) -> None:
    def vary(request: Any) -> Any:
        request.response.vary = ["Accept"]
        return dict(request.session)

    assert client_of(canister, vary=vary).get("/vary").headers.getall("Vary") == ["Accept, Cookie"]


@pytest.mark.parametrize("shown", ["new", "created", "handle"])
def test_a_page_that_shows_what_the_session_is_varies(canister: Canister, shown: str) -> None:
    client = client_of(canister, page=lambda request: {"is": getattr(request.session, shown)})
    assert client.get("/page").headers.getall("Vary") == ["Cookie"]


def test_a_session_from_first_value_to_log_out(canister: Canister) -> None:
    client = client_of(canister)
    response = client.get("/show?a=1")
    assert response.headers["Set-Cookie"].endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    response = client.get("/show")
    assert response.json == {"user": None, "data": {"a": "1"}}
    assert response.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in response.headers
    before = token_of(client)
    client.get("/log-in")
    token = token_of(client)
    assert token != before
    assert client.get("/show").json == {"user": "ann", "data": {"a": "1"}}
    assert data_of(client_of(canister), before) == {}, "the token of before the log-in is no good"
    assert client.get("/log-out").headers["Set-Cookie"] == END
    assert data_of(client, token) == {}


def test_it_is_what_pyramid_calls_a_session(canister: Canister, clock: ManualClock) -> None:
    def look(request: Any) -> Any:
        assert verifyObject(ISession, request.session)
        assert request.registry.queryUtility(ISessionFactory) is not None
        return {"new": request.session.new, "created": request.session.created}

    client = client_of(canister, look=look)
    born = clock.now() // 1_000_000
    assert client.get("/look").json == {"new": True, "created": born}
    client.get("/show?a=1")
    clock.advance(timedelta(minutes=5))
    assert client.get("/look").json == {"new": False, "created": born}


def test_changed_is_not_needed(canister: Canister) -> None:
    def append(request: Any) -> Any:
        request.session.setdefault("list", []).append(1)
        request.session.changed()
        return {}

    client = client_of(canister, append=append)
    client.get("/append")
    client.get("/append")
    assert data_of(client) == {"list": [1, 1]}


def test_flash_messages(canister: Canister) -> None:
    def flash(request: Any) -> Any:
        session = request.session
        session.flash("a")
        session.flash("a")
        session.flash("a", allow_duplicate=False)
        session.flash("b", queue="other")
        return session.peek_flash()

    def pop(request: Any) -> Any:
        return [request.session.pop_flash(), request.session.pop_flash("other")]

    client = client_of(canister, flash=flash, pop=pop)
    assert client.get("/flash").json == ["a", "a"]
    assert client.get("/pop").json == [["a", "a"], ["b"]]
    assert client.get("/pop").json == [[], []]


def test_two_requests_that_flash_at_once_keep_both_messages(canister: Canister) -> None:
    def flash(request: Any) -> Any:
        request.session.flash(request.GET["text"])
        if request.GET["text"] == "slow":
            client_of(canister, flash=flash).get(
                "/flash?text=fast", headers={"Cookie": request.headers["Cookie"]}
            )
        return {}

    client = client_of(canister, flash=flash)
    client.get("/show?a=1")
    client.get("/flash?text=slow")
    assert data_of(client)["_f_"] == ["fast", "slow"]


def test_pyramids_own_csrf_check(canister: Canister) -> None:
    def form(request: Any) -> Any:
        return request.session.get_csrf_token()

    def fresh(request: Any) -> Any:
        return request.session.new_csrf_token()

    with Configurator(settings={"canister": canister, "canister.secret_keys": KEY}) as config:
        config.include("canister.integrations.pyramid")
        config.set_default_csrf_options(require_csrf=True)
        for name, view in (VIEWS | {"form": form, "fresh": fresh}).items():
            config.add_route(name, f"/{name}")
            config.add_view(view, route_name=name, renderer="json")
    client = Client(config.make_wsgi_app(), extra_environ=HTTPS | {"HTTP_REFERER": "https://testserver/"})
    token = client.get("/form").json
    assert client.get("/form").json == token
    client.post("/show", {"csrf_token": token}, status=200)
    client.post("/show", {"csrf_token": token[:-1]}, status=400)
    client.post("/show", {}, status=400)
    renewed = client.get("/fresh").json
    client.post("/show", {"csrf_token": token}, status=400)
    client.post("/log-in", {"csrf_token": renewed}, status=200)
    client.post("/show", {"csrf_token": renewed}, status=400)


def test_a_change_after_the_commit_is_reported(canister: Canister) -> None:
    def stream(request: Any) -> Any:
        session = request.session

        def body() -> Iterator[bytes]:
            yield b"a"
            session["late"] = 1

        return Response(app_iter=body())

    def finished(request: Any) -> Any:
        session = request.session
        request.add_response_callback(lambda request, response: session.update(late=1))
        return {}

    client = client_of(canister, stream=stream, finished=finished)
    for path in ("/stream", "/finished"):
        with pytest.raises(SessionError, match=f"what GET {path} changed"):
            client.get(path)
    assert list(canister.all_sessions()) == []


class Counting:
    """A body that is an iterator but no generator; what it was given is called for its second chunk."""

    closed = False

    def __init__(self, act: Callable[[], object]) -> None:
        self.chunks = 0
        self.act = act

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.chunks += 1
        if self.chunks == 2:
            self.act()
        if self.chunks > 2:
            raise StopIteration
        return b"a"

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("used_before", [False, True])
def test_a_body_that_is_no_generator_is_watched_and_closed(canister: Canister, used_before: bool) -> None:
    bodies: list[Counting] = []

    def stream(request: Any) -> Any:
        if used_before:
            request.session.get("a")
        bodies.append(Counting(lambda: request.session.update(late=1)))
        return Response(app_iter=bodies[-1])

    with pytest.raises(SessionError, match="what GET /stream changed"):
        client_of(canister, stream=stream).get("/stream")
    assert bodies[0].closed
    assert list(canister.all_sessions()) == []


def test_a_session_first_used_when_the_response_is_complete_is_told_of(canister: Canister) -> None:
    def finished(request: Any) -> Any:
        request.add_finished_callback(lambda request: request.session.update(late=1))
        return {}

    def stream(request: Any) -> Any:
        def body() -> Iterator[bytes]:
            request.session.login("ann")
            with pytest.raises(SessionError, match="headers have left"):
                request.session.commit()
            yield b"a"

        return Response(app_iter=body())

    def committed(request: Any) -> Any:
        def body() -> Iterator[bytes]:
            request.session["late"] = 2
            request.session.commit()
            yield b"a"

        return Response(app_iter=body())

    client = client_of(canister, stream=stream, finished=finished, committed=committed)
    client.get("/show?a=1")
    for path in ("/stream", "/finished"):
        with pytest.raises(SessionError, match=f"what GET {path} changed"):
            client.get(path)
        assert data_of(client) == {"a": "1"}
    client.get("/committed")
    assert data_of(client) == {"a": "1", "late": 2}


def test_a_file_is_left_to_the_server(canister: Canister) -> None:
    bodies: list[Any] = []

    def file(request: Any) -> Any:
        request.session["a"] = 1
        response = FileResponse(__file__, request)
        bodies.append(response.app_iter)
        request.add_finished_callback(lambda _: bodies.append(response.app_iter))
        return response

    assert client_of(canister, file=file).get("/file").status_code == 200
    assert bodies[0] is bodies[1]


def test_an_exception_commits_nothing(canister: Canister) -> None:
    def fail(request: Any) -> Any:
        request.session["a"] = 1
        raise RuntimeError("view")

    with pytest.raises(RuntimeError, match="view"):
        client_of(canister, fail=fail).get("/fail")
    assert last_write(canister) == 0


def test_a_save_that_comes_after_the_log_out_fails_and_brings_nothing_back(canister: Canister) -> None:
    def slow(request: Any) -> Any:
        request.session["slow"] = 1
        client_of(canister).get("/log-out", headers={"Cookie": request.headers["Cookie"]})
        return {}

    client = client_of(canister, slow=slow)
    client.get("/log-in")
    response = client.get("/slow", status=409)
    assert response.text.startswith("Conflict: another request destroyed the session")
    assert "Set-Cookie" not in response.headers
    assert list(canister.all_sessions()) == []


@pytest.mark.parametrize("factory", [False, True])
def test_what_a_commit_refuses_is_answered_by_the_applications_own_exception_view(
    canister: Canister, factory: bool
) -> None:
    def slow(request: Any) -> Any:
        request.session["slow"] = 1
        canister.destroy(request.session.handle)
        return Response("never sent")

    def own(error: Exception, _request: Any) -> Any:
        assert isinstance(error, SessionDestroyedError)
        return Response("please try again", status=409)

    config = Configurator(settings={"canister": canister, "canister.secret_keys": KEY})
    if factory:  # and no view but its own
        config.set_session_factory(SessionFactory(canister, secret_keys=KEY))
    else:
        config.include("canister.integrations.pyramid")
        config.add_exception_view(own, context=SessionDestroyedError)
    config.add_route("slow", "/slow")
    config.add_view(slow, route_name="slow")
    config.add_route("put", "/put")
    config.add_view(lambda request: Response(str(request.session.update(a=1))), route_name="put")
    client = Client(config.make_wsgi_app(), extra_environ=HTTPS)
    client.get("/put")
    text = client.get("/slow", status=409).text
    assert text.startswith("Conflict: another request" if factory else "please try again")


def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    client = client_of(canister)
    client.get("/show?a=1")
    with store_away(canister):
        assert client.get("/untouched").status_code == 200
        for path in ("/show", "/log-in", "/log-out"):
            response = client.get(path, status=503)
            assert response.headers["Retry-After"] == "2"
            assert "Set-Cookie" not in response.headers
    assert data_of(client) == {"a": "1"}


def test_a_node_that_cannot_tell_says_so_and_leaves_the_cookie(cut_off: Canister, clock: ManualClock) -> None:
    cookie = with_cookie(token_of_elsewhere(clock))
    for settings, path in (({}, "/show?a=1"), ({"canister.when_behind": "refuse"}, "/show")):
        response = client_of(cut_off, settings).get(path, headers=cookie, status=503)
        assert response.headers["Retry-After"] == "2"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.text.startswith("Service unavailable: ")
        assert "Set-Cookie" not in response.headers
    assert "Set-Cookie" not in client_of(cut_off).get("/show", headers=cookie).headers


def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: Canister) -> None:
    client = client_of(cut_off, {"canister.acks": "2"})
    assert "it stands on this node" in client.get("/show?a=1", status=503).text
    assert data_of(client) == {"a": "1"}


def test_the_settings_of_an_ini_file(tmp_path: Path) -> None:
    def look(request: Any) -> Any:
        manager = request.registry.queryUtility(ISessionFactory).manager
        config = manager.canister.config
        request.session["a"] = 1
        with pytest.raises(AgentError):
            manager.canister.members()
        return [config.session_timeout.total_seconds(), manager.keys.fingerprints, manager.cookie.name]

    settings = {
        "canister.path": str(tmp_path / "data"),
        "canister.session_timeout": "5m",
        "canister.secret_keys": f"{KEY} other-{KEY}",
        "canister.plain_http": "true",
        "canister.strict": "false",
        "canister.agent": "false",
        "canister.serves": "no",
    }
    with Configurator(settings=settings) as config:
        config.include("canister.integrations.pyramid")
        config.add_route("look", "/look")
        config.add_view(look, route_name="look", renderer="json")
    with config.registry.getUtility(ISessionFactory).manager.canister:
        app = config.make_wsgi_app()
        found = Client(app, extra_environ={"HTTP_HOST": "localhost"}).get("/look").json
        with pytest.raises(ConfigError, match="private"):
            Client(app, extra_environ={"HTTP_HOST": "shop.example"}).get("/look", expect_errors=True)
    assert found == [300.0, KeyRing([KEY, f"other-{KEY}"]).fingerprints, "id"]


def test_settings_that_cannot_work_are_refused(canister: Canister) -> None:
    for settings, message in (
        ({}, "canister.path"),
        ({"canister": canister, "canister.durability": "full"}, "canister.durability comes too late"),
        ({"canister": canister, "canister.plain_http": "maybe"}, "canister.plain_http must be true or false"),
        ({"canister": canister, "canister.strict": "banana"}, "strict must be true or false"),
    ):
        with pytest.raises(ConfigError, match=message), Configurator(settings=settings) as config:
            config.include("canister.integrations.pyramid")
