"""Sessions in Flask: configuration, what goes wrong, streams, and what comes after the headers."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask, Response, flash, get_flashed_messages, request, session, stream_with_context
from markupsafe import Markup
from tests.integration.flask_kit import (
    KEY,
    NAME,
    OTHER_KEY,
    client_of,
    cookies_of,
    make_app,
    token_of_elsewhere,
)
from tests.integration.local import last_write, store_away
from werkzeug.exceptions import ServiceUnavailable

from canister import (
    Canister,
    CanisterError,
    CannotTellError,
    ConfigError,
    InvalidValueError,
    SessionDestroyedError,
    SessionEndedError,
    SessionError,
)
from canister.integrations.flask import CanisterSessions
from canister.sessions import CookieSettings
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration


# Configuration.


@pytest.mark.parametrize(
    ("config", "name", "attributes"),
    [
        ({}, NAME, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"SESSION_COOKIE_NAME": "shop"}, "shop", "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"SESSION_COOKIE_DOMAIN": ".localhost"},
            "__Secure-id",
            "; Path=/; Domain=localhost; Secure; HttpOnly; SameSite=Lax",
        ),
        ({"SESSION_COOKIE_PATH": "/put"}, "__Secure-id", "; Path=/put; Secure; HttpOnly; SameSite=Lax"),
        ({"APPLICATION_ROOT": "/put"}, "__Secure-id", "; Path=/put; Secure; HttpOnly; SameSite=Lax"),
        ({"SESSION_COOKIE_HTTPONLY": False}, NAME, "; Path=/; Secure; SameSite=Lax"),
        ({"SESSION_COOKIE_SECURE": True}, NAME, "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, NAME, "; Path=/; Secure; HttpOnly; SameSite=Strict"),
        ({"SESSION_COOKIE_SAMESITE": "None"}, NAME, "; Path=/; Secure; HttpOnly; SameSite=None"),
        ({"CANISTER_INSECURE_COOKIES": True}, "session", "; Path=/; HttpOnly; SameSite=Lax"),
        ({"CANISTER_INSECURE_COOKIES": "false"}, "__Host-id", "; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"CANISTER_INSECURE_COOKIES": True, "SESSION_COOKIE_SECURE": True},
            "session",
            "; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
    ],
)
def test_flasks_cookie_settings(canister: Canister, config: Any, name: str, attributes: str) -> None:
    app = make_app(canister, **config)
    assert app.session_interface.get_cookie_name(app) == name
    (cookie,) = cookies_of(client_of(app).post("/put", json={"a": 1}))
    assert cookie.startswith(f"{name}=")
    assert cookie[cookie.index(";") :] == attributes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"SESSION_COOKIE_PARTITIONED": True}, "PARTITIONED"),
        ({"SESSION_COOKIE_SAMESITE": "Both"}, "samesite"),
        ({"SESSION_COOKIE_NAME": "__Host-x", "SESSION_COOKIE_PATH": "/x"}, "__Host-x"),
        ({"CANISTER_INSECURE_COOKIES": True, "SESSION_COOKIE_SAMESITE": "None"}, "samesite"),
        ({"SECRET_KEY": "dev"}, "at least 32"),
        ({"SECRET_KEY_FALLBACKS": ["dev"]}, "at least 32"),
        ({"CANISTER_INSECURE_COOKIES": "off?"}, "INSECURE_COOKIES must be true or false"),
        ({"CANISTER_RECORD_CLIENT": "maybe"}, "RECORD_CLIENT must be true or false"),
        ({"CANISTER_STRICT": "banana"}, "strict must be true or false"),
        ({"CANISTER_ACKS": "some"}, "acks"),
        ({"CANISTER_PATH": "here"}, "CANISTER_PATH: no effect"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(
    canister: Canister, config: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_app(canister, **config)


def test_a_cookie_given_as_an_argument_goes_before_flasks_settings(canister: Canister) -> None:
    app = make_app(canister, {"cookie": CookieSettings(name="own")}, SESSION_COOKIE_NAME="shop")
    assert cookies_of(client_of(app).post("/put", json={"a": 1}))[0].startswith("own=")


def test_the_canister_may_be_opened_by_the_configuration(tmp_path: Path) -> None:
    config: Any = {"CANISTER_PATH": tmp_path / "data", "CANISTER_SESSION_TIMEOUT": "5m", "CANISTER_ACKS": 2}
    app = make_app(None, **config)
    with app.extensions["canister"].canister as opened:
        assert opened.config.session_timeout == timedelta(minutes=5)
        assert client_of(app).post("/put", json={"a": 1}).status_code == 503, "acks"
    with pytest.raises(ConfigError, match="CANISTER_PATH"):
        make_app(None)
    with pytest.raises(ConfigError, match="'sesion_timeout'"):
        make_app(None, CANISTER_PATH=tmp_path / "data", CANISTER_SESION_TIMEOUT="5m")


def test_the_secret_key_and_its_fallbacks_verify(canister: Canister) -> None:
    client = client_of(make_app(canister))
    client.post("/put", json={"a": 1})
    client.application = make_app(
        canister, SECRET_KEY=OTHER_KEY.encode(), SECRET_KEY_FALLBACKS=[KEY.encode()]
    )
    assert client.get("/").json == {"a": 1}
    client.application = make_app(canister, SECRET_KEY=OTHER_KEY)
    assert client.get("/").json == {}


def test_a_key_of_random_bytes_is_one(canister: Canister) -> None:
    key = bytes(range(130, 160))
    client = client_of(make_app(canister, SECRET_KEY=key))
    client.post("/put", json={"a": 1})
    client.application = make_app(canister, SECRET_KEY=key)
    assert client.get("/").json == {"a": 1}


def test_a_configuration_without_fallbacks_of_the_secret_key(canister: Canister) -> None:
    """Quart 0.20 has no such setting."""
    app = Flask("shop")
    app.config["SECRET_KEY"] = "key-0123456789-abcdefghijklmnopqrs"
    app.config.pop("SECRET_KEY_FALLBACKS", None)
    CanisterSessions(app, canister=canister)


def test_canisters_own_secret_keys_go_before_flasks(
    canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(make_app(canister, CANISTER_SECRET_KEYS=[OTHER_KEY]))
    client.post("/put", json={"a": 1})
    monkeypatch.setenv("CANISTER_SECRET_KEYS", OTHER_KEY)
    client.application = make_app(canister, SECRET_KEY="dev")
    assert client.get("/").json == {"a": 1}


def test_an_extension_serves_several_applications(canister: Canister) -> None:
    sessions = CanisterSessions(canister=canister)
    apps = [Flask(f"app{number}") for number in range(2)]
    for app in apps:
        app.config["SECRET_KEY"] = KEY
        sessions.init_app(app)
    found = []
    for app in apps:
        with app.app_context():
            found.append(sessions.manager)
    assert found == [app.extensions["canister"] for app in apps]
    assert found[0] is not found[1]


def test_plain_http_serves_private_hosts_only(canister: Canister) -> None:
    app = make_app(canister, CANISTER_INSECURE_COOKIES=True)
    client = app.test_client()
    assert client.get("/plain", base_url="http://localhost:5000").status_code == 200
    with pytest.raises(ConfigError, match=r"example\.org"):
        client.get("/plain", base_url="http://example.org")
    app.config["PROPAGATE_EXCEPTIONS"] = False
    assert client.get("/plain", base_url="http://example.org").status_code == 500


# What goes wrong.


def test_what_cannot_be_stored_is_a_500_and_nothing_of_it_is_stored(
    canister: Canister, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(canister)
    commits: list[object] = []
    commit = app.extensions["canister"].commit
    monkeypatch.setattr(app.extensions["canister"], "commit", lambda s: (commits.append(s), commit(s))[1])

    @app.get("/bad")
    def bad() -> str:
        session["a"] = object()
        return "ok"

    with pytest.raises(InvalidValueError, match="'a'"):
        client_of(app).get("/bad")
    assert len(commits) == 1
    app.config["PROPAGATE_EXCEPTIONS"] = False
    response = client_of(app).get("/bad")
    assert response.status_code == 500
    assert len(commits) == 2, "the page of the error commits nothing again"
    assert cookies_of(response) == []
    assert last_write(canister) == 0


def test_the_page_of_an_error_has_the_cookie_of_what_was_stored_before(canister: Canister) -> None:
    app = make_app(canister, PROPAGATE_EXCEPTIONS=False)

    @app.post("/bad")
    def bad() -> str:
        cast("Any", session).login("ann")
        cast("Any", session).commit()
        session["a"] = object()
        return "ok"

    client = client_of(app)
    response = client.post("/bad")
    assert response.status_code == 500
    assert len(cookies_of(response)) == 1


class Lazy:
    """A text that is looked up when it is shown, as Flask-Babel's are."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __html__(self) -> str:
        return self.text


def test_a_lazy_string_is_stored_as_its_text(canister: Canister) -> None:
    app = make_app(canister)
    kept = [Lazy("a"), 1]

    @app.get("/say")
    def say() -> str:
        flash(Lazy("hello"))  # type: ignore[arg-type]
        session["nested"] = {"list": kept, "tuple": (Markup("<b>"), Lazy("b")), "dict": {"x": Lazy("c")}}
        return "ok"

    @app.get("/flashes")
    def said() -> Any:
        return get_flashed_messages()

    client = client_of(app)
    assert client.get("/say").status_code == 200
    assert isinstance(kept[0], Lazy), "the application's own list stays as it is"
    assert client.get("/flashes").json == ["hello"]
    assert client.get("/").json == {"nested": {"list": ["a", 1], "tuple": ["<b>", "b"], "dict": {"x": "c"}}}


def test_a_value_that_holds_itself_is_refused(canister: Canister) -> None:
    app = make_app(canister)

    @app.get("/bad")
    def bad() -> str:
        value: list[Any] = []
        value += [value, value]
        session["a"] = value
        return "ok"

    with pytest.raises(InvalidValueError, match="nests deeper"):
        client_of(app).get("/bad")


def test_an_error_of_the_application_keeps_what_was_written_as_flask_does(canister: Canister) -> None:
    app = make_app(canister, PROPAGATE_EXCEPTIONS=False)

    @app.get("/fail")
    def fail() -> str:
        session["a"] = 1
        raise RuntimeError

    client = client_of(app)
    assert client.get("/fail").status_code == 500
    assert client.get("/").json == {"a": 1}


def test_while_the_store_is_away_what_uses_the_session_is_503_and_all_else_is_served(
    canister: Canister,
) -> None:
    app = make_app(canister)

    @app.post("/log-out")
    def log_out() -> str:
        session.destroy()  # type: ignore[attr-defined]
        return "ok"

    client = client_of(app)
    client.post("/put", json={"a": 1})
    with store_away(canister):
        assert client.get("/plain").status_code == 200
        for method, path in [("GET", "/"), ("POST", "/regenerate"), ("POST", "/log-out")]:
            response = client.open(path, method=method)
            assert response.status_code == 503, path
            assert response.headers["Retry-After"] == "2"
            assert cookies_of(response) == []
    assert client.get("/").json == {"a": 1}


def test_what_cannot_be_told_is_a_503_that_leaves_the_cookie_alone(
    cut_off: Canister, clock: ManualClock
) -> None:
    client = client_of(make_app(cut_off))
    client.set_cookie(NAME, token_of_elsewhere(clock))
    assert client.get("/").json == {}
    response = client.post("/put", json={"a": 1})
    assert response.status_code == 503
    assert "cookie was left as it is" in response.text
    assert response.headers["Retry-After"] == "2"
    assert response.headers["Cache-Control"] == "no-store"
    assert cookies_of(response) == []
    client.application = make_app(cut_off, CANISTER_WHEN_BEHIND="refuse")
    assert client.get("/").status_code == 503
    assert client.get("/plain").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "retry_after"), [(CannotTellError, 418, None), (ServiceUnavailable, 503, "2")]
)
def test_the_application_may_answer_refusals_itself(
    cut_off: Canister, clock: ManualClock, error: type[Exception], status: int, retry_after: str | None
) -> None:
    """By what is refused, and then all of it is its own, or by the status, whose headers stay."""
    app = make_app(cut_off)
    app.register_error_handler(error, lambda error: ("own answer", status))
    client = client_of(app)
    client.set_cookie(NAME, token_of_elsewhere(clock))
    response = client.post("/put", json={"a": 1})
    assert (response.status_code, response.text) == (status, "own answer")
    assert response.headers.get("Retry-After") == retry_after


@pytest.mark.parametrize("own", [False, True])
def test_a_save_that_another_request_has_overtaken_is_409(canister: Canister, own: bool) -> None:
    app = make_app(canister)

    @app.get("/slow")
    def slow() -> str:
        session["slow"] = 1
        other = client_of(app)
        other.set_cookie(NAME, request.cookies[NAME])
        other.post("/regenerate")
        return "never sent"

    if own:
        app.register_error_handler(SessionDestroyedError, lambda error: ("please try again", 418))
    client = client_of(app)
    client.post("/put", json={"a": 1})
    response = client.get("/slow")
    assert response.status_code == (418 if own else 409)
    assert ("please try again" if own else "another request destroyed the session") in response.text
    assert cookies_of(response) == [], "it would take the new one away"


@pytest.mark.parametrize("base", [SessionError, CanisterError])
def test_an_own_handler_for_a_base_of_the_error_answers(canister: Canister, base: type[Exception]) -> None:
    app = make_app(canister)
    app.register_error_handler(base, lambda error: (f"own: {type(error).__name__}", 418))

    @app.get("/end")
    def end() -> str:
        raise SessionEndedError("it is over")

    @app.get("/tell")
    def tell() -> str:
        raise CannotTellError("nobody knows")

    client = client_of(app)
    response = client.get("/end")
    assert (response.status_code, response.text) == (418, "own: SessionEndedError")
    assert client.get("/tell").status_code == (418 if base is CanisterError else 503)


def test_a_handler_that_was_there_before_stays(canister: Canister) -> None:
    app = Flask(__name__)
    app.config["SECRET_KEY"] = KEY

    @app.errorhandler(CannotTellError)
    def own(error: CannotTellError) -> str:
        return "own"

    CanisterSessions(app, canister=canister)
    assert app.error_handler_spec[None][None][CannotTellError] is own


def test_a_refused_stream_is_closed(cut_off: Canister, clock: ManualClock) -> None:
    app = make_app(cut_off)

    class Body:
        closed = False

        def __iter__(self) -> Iterator[str]:
            return iter(["never"])

        def close(self) -> None:
            self.closed = True

    body = Body()

    @app.get("/stream")
    def stream() -> Response:
        session["a"] = 1
        return Response(body)

    client = client_of(app)
    client.set_cookie(NAME, token_of_elsewhere(clock))
    with client.get("/stream") as response:
        assert response.status_code == 503
        assert "never" not in response.text
    assert body.closed


def test_a_session_that_cannot_be_told_is_not_called_new(cut_off: Canister, clock: ManualClock) -> None:
    app = make_app(cut_off)
    app.add_url_rule("/new", view_func=lambda: str(session.new))
    client = client_of(app)
    assert client.get("/new").text == "True"
    client.set_cookie(NAME, token_of_elsewhere(clock))
    assert client.get("/new").text == "False"


def test_a_write_that_is_not_acknowledged_is_503_and_stands(cut_off: Canister) -> None:
    client = client_of(make_app(cut_off, {"acks": 2}))
    response = client.post("/put", json={"a": 1})
    assert response.status_code == 503
    assert "it stands on this node" in response.text
    assert client.get_cookie(NAME) is not None
    assert client.get("/").json == {"a": 1}


# Streams, and what comes after the headers.


def streaming_app(canister: Canister, *, commit: bool) -> Flask:
    app = make_app(canister)

    @app.get("/stream")
    def stream() -> Response:
        def body() -> Iterator[str]:
            yield str(session.get("a"))
            session["late"] = True
            if commit:
                session.commit()  # type: ignore[attr-defined]
            yield "!"

        return Response(stream_with_context(body()))

    return app


def test_a_stream_reads_the_session_and_commits_what_it_changes(canister: Canister) -> None:
    client = client_of(streaming_app(canister, commit=True))
    client.post("/put", json={"a": 1})
    assert client.get("/stream").text == "1!"
    assert client.get("/").json == {"a": 1, "late": True}


def test_a_change_that_a_stream_does_not_commit_is_told(canister: Canister) -> None:
    client = client_of(streaming_app(canister, commit=False))
    client.post("/put", json={"a": 1})
    with pytest.raises(SessionError, match="GET /stream"):
        client.get("/stream", buffered=True)
    assert client.get("/").json == {"a": 1}


def test_a_change_after_the_request_is_told_when_the_response_is_closed(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(canister, {"strict": False})

    @app.get("/<how>")
    def late(how: str) -> Response:
        own: Any = session._get_current_object()  # type: ignore[attr-defined]

        def body() -> Iterator[str]:
            yield "a"
            own["late"] = True

        response = Response("a" if how == "closed" else body())
        if how == "closed":
            response.call_on_close(lambda: own.update(late=True))
        if how == "twice":
            own["a"] = 2
            app.teardown_request_funcs.setdefault(None, []).append(lambda _: own.update(b=3))
        return response

    client = client_of(app)
    client.post("/put", json={"a": 1})
    for how, times in (("closed", 1), ("stream", 1), ("twice", 2)):
        caplog.clear()
        client.get(f"/{how}", buffered=True).close()
        assert [how in message for message in caplog.messages] == [True] * times
    assert client.get("/").json == {"a": 2}


def test_an_edit_in_place_after_the_request_can_be_committed(canister: Canister) -> None:
    app = make_app(canister)

    @app.get("/stream")
    def stream() -> Response:
        own: Any = session._get_current_object()  # type: ignore[attr-defined]
        items = own.setdefault("items", [])

        def body() -> Iterator[str]:
            items.append(1)
            own.commit()
            yield "a"

        return Response(body())

    client = client_of(app)
    client.get("/stream", buffered=True).close()
    assert client.get("/").json == {"items": [1]}


def test_a_context_that_is_never_saved_stores_nothing(
    canister: Canister, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no response that something could be told after."""
    with make_app(canister).test_request_context():
        session["a"] = 1
    assert canister.num_local_sessions() == 0
    assert caplog.text == ""


def test_two_tabs_that_flash_at_once_keep_one_of_the_messages(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/flash/<text>")
    def say(text: str) -> str:
        flash(text, "info")
        if text == "first":
            other = client_of(app)
            other.set_cookie(NAME, request.cookies[NAME])
            other.post("/put", json={"b": 1})
            other.post("/flash/second")
        return "ok"

    @app.get("/flashes")
    def said() -> Any:
        return get_flashed_messages(with_categories=True)

    client = client_of(app)
    client.post("/put", json={"a": 1})
    client.post("/flash/zero")
    assert client.get("/flashes").json == [["info", "zero"]]
    client.post("/flash/first")
    assert client.get("/flashes").json == [["info", "first"]], "one list, one writer wins"
    assert client.get("/").json == {"a": 1, "b": 1}, "another key is kept"
