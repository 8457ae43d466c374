"""Flask's test client: the session before a request, and the context that is kept after one."""

from typing import Any

import pytest
from flask import Response, flash, get_flashed_messages, session
from tests.integration.flask_kit import client_of, make_app

from canister import Canister, SessionError

pytestmark = pytest.mark.integration


def current() -> Any:
    return session._get_current_object()  # type: ignore[attr-defined]


def test_the_test_clients_session_transaction(canister: Canister) -> None:
    client = client_of(make_app(canister))
    with client.session_transaction() as transaction:
        transaction["a"] = 1
    assert client.get("/").json == {"a": 1}
    with client.session_transaction() as transaction:
        assert transaction["a"] == 1


def test_what_a_test_changes_after_the_response_is_nobodys_loss(canister: Canister) -> None:
    app = make_app(canister)

    @app.get("/flash")
    def say() -> str:
        flash("saved")
        return "ok"

    with client_of(app) as client:
        client.get("/flash")
        assert get_flashed_messages() == ["saved"]
        assert client.get("/").json == {"_flashes": [["message", "saved"]]}
        session.clear()


def test_the_session_says_after_the_response_what_it_said_before(canister: Canister) -> None:
    with client_of(make_app(canister)) as client:
        client.post("/put", json={"a": 1})
        assert (current().accessed, current().modified) == (True, True)
        client.get("/")
        assert (current().accessed, current().modified) == (True, False)
        client.post("/put", json={"a": 1})
        assert not current().modified
        client.post("/clear")
        assert current().modified
        client.post("/regenerate")
        assert current().modified


@pytest.mark.parametrize("how", ["torn down", "closed"])
def test_a_change_that_the_application_loses_is_told_all_the_same(canister: Canister, how: str) -> None:
    app = make_app(canister)

    @app.get("/late")
    def late() -> Response:
        own, response = current(), Response("ok")
        if how == "closed":
            response.call_on_close(lambda: own.update(late=True))
        else:
            app.teardown_request_funcs[None].append(lambda _: own.update(late=True))
        return response

    with client_of(app) as client, pytest.raises(SessionError, match="GET /late"):
        client.get("/late", buffered=True)
