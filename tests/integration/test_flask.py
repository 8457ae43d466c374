"""Sessions in Flask, with its test client, over a real canister."""

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Response, request, session
from tests.integration.flask_kit import (
    NAME,
    client_of,
    cookies_of,
    make_app,
    token_in,
)
from tests.integration.local import last_write

from canister import Canister
from canister.clock import to_datetime
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration


# A session's life.


def test_an_untouched_request_writes_nothing_and_sends_no_cookie(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(make_app(canister))
    assert set(client.get("/plain").headers.keys()) == {"Content-Type", "Content-Length"}
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    clock.advance(timedelta(minutes=10))
    assert set(client.get("/plain").headers.keys()) == {"Content-Type", "Content-Length"}
    assert last_write(canister) == before


def test_vary_stays_one_line(canister: Canister) -> None:
    app = make_app(canister)

    @app.get("/vary")
    def vary() -> Any:
        session["a"] = 1
        return "ok", {"Vary": "Accept"}

    assert client_of(app).get("/vary").headers.getlist("Vary") == ["Accept, Cookie"]


def test_a_first_value_sends_the_safe_cookie_and_the_next_request_finds_it(canister: Canister) -> None:
    client = client_of(make_app(canister))
    response = client.post("/put", json={"a": [1]})
    (cookie,) = cookies_of(response)
    assert cookie.startswith(f"{NAME}=")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Lax")
    assert response.headers["Cache-Control"] == 'private, no-cache="Set-Cookie"'
    assert response.headers["Vary"] == "Cookie"
    response = client.get("/")
    assert response.json == {"a": [1]}
    assert response.headers["Vary"] == "Cookie"
    assert cookies_of(response) == []


def test_clear_empties_the_session_and_keeps_it(canister: Canister) -> None:
    client = client_of(make_app(canister))
    client.post("/put", json={"a": 1})
    assert cookies_of(client.post("/clear")) == []
    assert client.get("/").json == {}


def test_regenerate_goes_on_under_a_new_id(canister: Canister) -> None:
    client = client_of(make_app(canister))
    client.post("/put", json={"a": 1})
    old = token_in(client)
    client.post("/regenerate")
    assert token_in(client) != old
    assert client.get("/").json == {"a": 1}
    client.set_cookie(NAME, old)
    assert client.get("/").json == {}


def test_the_attributes_of_flasks_own_session(canister: Canister) -> None:
    app = make_app(canister)
    seen: list[tuple[bool, ...]] = []

    @app.after_request
    def look(response: Response) -> Response:
        inner: Any = request.environ["canister.session"]  # flask.session itself counts as an access
        seen.append((inner.new, inner.accessed, inner.modified))
        return response

    client = client_of(app)
    client.get("/plain")
    client.get("/")
    client.post("/put", json={"a": 1})
    client.get("/plain")
    client.get("/")
    client.post("/put", json={"a": 1})
    client.post("/put", json={"a": 2})
    assert seen == [
        (True, False, False),
        (True, True, False),
        (True, True, True),
        (False, False, False),
        (False, True, False),
        (False, True, False),
        (False, True, True),
    ]


def test_a_nested_edit_is_saved_without_saying_so(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/append")
    def append() -> str:
        session["list"].append(1)
        return str(session.modified)

    client = client_of(app)
    client.post("/put", json={"list": []})
    assert client.post("/append").text == "True"
    assert client.get("/").json == {"list": [1]}


def test_what_is_declared_not_modified_is_not_saved(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/take-back/<int:more>")
    def take_back(more: int) -> str:
        session["a"] = 2
        session.modified = False
        if more:
            session["b"] = 3
        return str(session.modified)

    client = client_of(app)
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    assert client.post("/take-back/0").text == "False"
    assert last_write(canister) == before
    assert client.post("/take-back/1").text == "True"
    assert client.get("/").json == {"a": 2, "b": 3}


def test_counters_and_updates_are_taken_back_as_well(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/take-back/<int:more>")
    def take_back(more: int) -> list[Any]:
        current: Any = session
        current.increment("clicks")
        current.update_key("a", lambda value: value + 1, 0)
        session["b"] = 1
        session.modified = False
        assert not session.modified
        if more:
            current.increment("clicks")
        return [session.modified, current.count("clicks")]

    @app.get("/clicks")
    def clicks() -> list[Any]:
        return [cast("Any", session).count("clicks"), dict(session)]

    client = client_of(app)
    client.post("/put", json={"a": 1})
    before = last_write(canister)
    assert client.post("/take-back/0").json == [False, 1]
    assert client.get("/clicks").json == [0, {"a": 1}]
    assert last_write(canister) == before
    assert client.post("/take-back/1").json == [True, 2]
    assert client.get("/clicks").json == [2, {"a": 2, "b": 1}]


def test_a_log_in_is_not_taken_back(canister: Canister) -> None:
    app = make_app(canister)

    @app.post("/log-in")
    def log_in() -> list[Any]:
        current: Any = session
        current.login("ann")
        session.modified = False
        return [session.modified, current.user]

    client = client_of(app)
    assert client.post("/log-in").json == [True, "ann"]
    assert canister.num_local_sessions() == 1


# Permanent sessions.


def test_a_permanent_session_has_its_own_idle_time_and_its_cookie_an_age(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(make_app(canister, PERMANENT_SESSION_LIFETIME=timedelta(days=5)))
    client.post("/put", json={"a": 1})
    (cookie,) = cookies_of(client.post("/permanent/1"))
    assert cookie.startswith(f"{NAME}=")
    assert cookie.endswith("; Max-Age=432000")
    clock.advance(timedelta(days=4))
    assert client.get("/").json == {"_permanent": True, "a": 1}
    (cookie,) = cookies_of(client.post("/permanent/0"))
    assert "Max-Age" not in cookie
    clock.advance(timedelta(minutes=30))
    assert client.get("/").json == {}


def test_a_log_in_keeps_what_it_finds_permanent(canister: Canister) -> None:
    app = make_app(canister, PERMANENT_SESSION_LIFETIME=timedelta(days=5))

    @app.post("/stay")
    def stay() -> str:
        session.permanent = True
        session.login("ann")  # type: ignore[attr-defined]
        return "ok"

    client = client_of(app)
    (cookie,) = cookies_of(client.post("/stay"))
    assert cookie.endswith("; Max-Age=432000")
    assert client.get("/").json == {"_permanent": True}


def test_a_permanent_session_outlives_its_idle_time_by_a_touch_interval_at_most(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(make_app(canister, PERMANENT_SESSION_LIFETIME=timedelta(days=5)))
    client.post("/permanent/1")
    client.post("/put", json={"a": 1})
    client.post("/permanent/1")
    clock.advance(timedelta(days=5.26))
    assert client.get("/").json == {}


def test_clear_ends_permanence(canister: Canister, clock: ManualClock) -> None:
    client = client_of(make_app(canister))
    client.post("/put", json={"a": 1, "_permanent": True})
    assert "Max-Age" not in cookies_of(client.post("/clear"))[0]
    client.post("/put", json={"b": 1})
    clock.advance(timedelta(minutes=30))
    assert client.get("/").json == {}


def test_permanence_survives_a_new_id(canister: Canister, clock: ManualClock) -> None:
    client = client_of(make_app(canister, PERMANENT_SESSION_LIFETIME=3600))
    client.post("/put", json={"a": 1, "_permanent": True})
    assert cookies_of(client.post("/regenerate"))[0].endswith("; Max-Age=3600")
    clock.advance(timedelta(minutes=50))
    assert client.get("/").json == {"_permanent": True, "a": 1}


def test_a_lifetime_beyond_the_absolute_one_is_cut(tmp_path: Path, clock: ManualClock) -> None:
    with Canister(tmp_path / "data", clock=clock, absolute_lifetime="2d") as canister:
        client = client_of(make_app(canister))
        client.post("/put", json={"a": 1})
        assert cookies_of(client.post("/permanent/1"))[0].endswith("; Max-Age=172800")
    with Canister(tmp_path / "data", clock=clock, absolute_lifetime="9d") as canister:
        client.application = make_app(canister)
        assert client.post("/permanent/0").status_code == 200
        assert client.post("/permanent/1").status_code == 200, "its lifetime was fixed at its creation"


def test_a_session_that_holds_nothing_but_permanence_is_not_stored(canister: Canister) -> None:
    app = make_app(canister)
    app.before_request(lambda: setattr(session, "permanent", True))
    client = client_of(app)
    assert cookies_of(client.get("/plain")) == []
    assert last_write(canister) == 0
    assert cookies_of(client.post("/put", json={"a": 1}))[0].endswith("; Max-Age=2592000")


def test_an_empty_session_that_is_to_be_stored_is_stored_with_its_permanence(canister: Canister) -> None:
    app = make_app(canister)

    @app.get("/begin")
    def begin() -> str:
        session.permanent = True
        session.ensure_stored()  # type: ignore[attr-defined]
        return "ok"

    client = client_of(app)
    assert cookies_of(client.get("/begin"))[0].endswith("; Max-Age=2592000")
    assert client.get("/").json == {"_permanent": True}


def test_the_application_may_say_how_long_the_cookie_is_kept(canister: Canister) -> None:
    app = make_app(canister, PERMANENT_SESSION_LIFETIME=timedelta(days=5))

    @app.post("/keep/<int:days>")
    def keep(days: int) -> str:
        session["a"] = days
        cast("Any", session).set_cookie_age(timedelta(days=days) if days else None)
        return "ok"

    client = client_of(app)
    assert cookies_of(client.post("/keep/14"))[0].endswith("; Max-Age=1209600")
    assert cookies_of(client.post("/keep/0")) == [], "as without permanence"
    client.post("/permanent/1")
    assert "Max-Age" not in cookies_of(client.post("/keep/0"))[0]
    assert cookies_of(client.post("/keep/5")) == [], "as with permanence"


def test_a_new_permanent_session_takes_no_end_over_from_the_one_before(
    canister: Canister, clock: ManualClock
) -> None:
    app = make_app(canister)

    @app.post("/kiosk")
    def kiosk() -> str:
        session["a"] = 1
        cast("Any", session).set_expiry(until=to_datetime(clock.now()) + timedelta(minutes=5))
        return "ok"

    @app.post("/switch/<how>")
    def switch(how: str) -> str:
        getattr(session, how)()
        session.update(b=2, _permanent=True)
        return "ok"

    for how, left in (("logout", {"b": 2, "_permanent": True}), ("regenerate", {})):
        client = client_of(app)
        client.post("/kiosk")
        client.post(f"/switch/{how}")
        clock.advance(timedelta(minutes=6))
        assert client.get("/").json == left


def test_each_request_refreshes_a_permanent_session_once_per_touch_interval(
    canister: Canister, clock: ManualClock
) -> None:
    client = client_of(make_app(canister, PERMANENT_SESSION_LIFETIME=timedelta(days=20)))
    client.post("/put", json={"a": 1, "_permanent": True})
    assert cookies_of(client.get("/plain")) == []
    clock.advance(timedelta(days=1))
    (cookie,) = cookies_of(client.get("/plain"))
    assert cookie.startswith(f"{NAME}={token_in(client)}; ")
    before = last_write(canister)
    assert cookies_of(client.get("/plain")) == []
    assert last_write(canister) == before


def test_without_refresh_only_a_change_prolongs_a_permanent_session(
    canister: Canister, clock: ManualClock
) -> None:
    config: Any = {"SESSION_REFRESH_EACH_REQUEST": False, "PERMANENT_SESSION_LIFETIME": timedelta(days=20)}
    client = client_of(make_app(canister, **config))
    client.post("/put", json={"a": 1, "_permanent": True})
    before = last_write(canister)
    clock.advance(timedelta(days=2))
    assert cookies_of(client.get("/plain")) == cookies_of(client.get("/")) == []
    assert last_write(canister) == before
    assert cookies_of(client.post("/put", json={"a": 2}))[0].endswith("; Max-Age=1728000")
