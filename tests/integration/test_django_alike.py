"""What projects rely on, alike with Django's own engine, with ours alone, and with our middleware."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# First the project, which configures Django.
from tests.integration.django_project import MIDDLEWARE

# isort: split

from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings
from django.utils.module_loading import import_string

from canister.integrations.django import SessionStore, close, session_manager

pytestmark = pytest.mark.integration

ENGINE, OURS = "canister.integrations.django", MIDDLEWARE[0]
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"
SYSTEMS = {
    "Django": ("django.contrib.sessions.backends.cache", DJANGOS),
    "engine": (ENGINE, DJANGOS),
    "both": (ENGINE, OURS),
}


class Browser:
    """Keeps the session cookie, and sends each request through the session middleware to a view."""

    def __init__(self) -> None:
        self.cookie: str | None = None

    def get(self, view: Callable[[Any], object], status: int = 200, **headers: str) -> HttpResponse:
        def answer(request: HttpRequest) -> HttpResponse:
            view(request.session)
            return HttpResponse(status=status, headers=headers)

        response = import_string(settings.MIDDLEWARE[0])(answer)(self._request())
        return self._taken(response)

    async def aget(self, view: Callable[[Any], Any]) -> HttpResponse:
        async def answer(request: HttpRequest) -> HttpResponse:
            await view(request.session)
            return HttpResponse()

        return self._taken(await import_string(settings.MIDDLEWARE[0])(answer)(self._request()))

    def data(self) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        self.get(lambda session: seen.update(session.items()))
        return seen

    def _request(self) -> HttpRequest:
        pairs = {} if self.cookie is None else {"Cookie": f"{settings.SESSION_COOKIE_NAME}={self.cookie}"}
        return RequestFactory().get("/", headers=pairs)

    def _taken(self, response: HttpResponse) -> HttpResponse:
        if settings.SESSION_COOKIE_NAME in response.cookies:
            self.cookie = response.cookies[settings.SESSION_COOKIE_NAME].value or None
        response.close()
        return response


@pytest.fixture(params=SYSTEMS)
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Browser]:
    engine, middleware = SYSTEMS[request.param]
    cache.clear()
    with override_settings(
        CANISTER={"path": tmp_path}, SESSION_ENGINE=engine, MIDDLEWARE=[middleware, *MIDDLEWARE[1:]]
    ):
        yield Browser()
    close()


def put(session: Any) -> None:
    session["a"] = [1]


def test_a_session_that_is_only_saved_gets_its_cookie(browser: Browser) -> None:
    keys = []

    def cart(session: Any) -> None:
        if not session.session_key:
            session.save()
        keys.append(session.session_key)

    assert [bool(browser.get(cart).cookies) for _ in range(3)] == [True, False, False]
    assert len(set(keys)) == 1
    assert browser.cookie in keys


def test_a_session_that_is_only_saved_in_an_event_loop_gets_its_cookie(browser: Browser) -> None:
    async def cart(session: Any) -> None:
        if not session.session_key:
            await session.asave()

    async def visits() -> list[bool]:
        return [bool((await browser.aget(cart)).cookies) for _ in range(3)]

    assert asyncio.run(visits()) == [True, False, False]


def untouched(session: Any) -> None:
    session.modified = session.accessed = False


def test_what_is_said_to_be_unmodified_is_not_saved(browser: Browser) -> None:
    def view(session: Any) -> None:
        put(session)
        session.set_expiry(100)
        untouched(session)
        assert not session.modified

    response = browser.get(view)
    assert not response.cookies
    assert not response.has_header("Vary")
    browser.get(put)
    kept = browser.cookie

    def again(session: Any) -> None:
        session["a"].append(2)
        session["b"] = 1
        untouched(session)

    response = browser.get(again)
    assert not response.cookies
    assert not response.has_header("Vary")
    assert browser.data() == {"a": [1]}
    assert browser.cookie == kept


def test_with_another_change_all_of_them_are_saved(browser: Browser) -> None:
    def view(session: Any) -> None:
        put(session)
        untouched(session)
        session["b"] = 1

    assert browser.get(view).has_header("Vary")
    assert browser.data() == {"a": [1], "b": 1}


def test_what_was_saved_before_it_stays_saved(browser: Browser) -> None:
    browser.get(put)

    def view(session: Any) -> None:
        session["b"] = 1
        session.save()
        session["c"] = 1
        untouched(session)

    browser.get(view)
    assert browser.data() == {"a": [1], "b": 1}


def test_saving_every_request_saves_that_too(browser: Browser) -> None:
    with override_settings(SESSION_SAVE_EVERY_REQUEST=True):
        browser.get(lambda session: (put(session), untouched(session)))
    assert browser.data() == {"a": [1]}


def test_a_response_varies_if_the_session_was_used(browser: Browser) -> None:
    assert not browser.get(lambda session: None).has_header("Vary")
    assert browser.get(lambda session: session.get("a"), Vary="Accept")["Vary"] == "Accept, Cookie"
    response = browser.get(lambda session: session.get("a"))
    assert response["Vary"] == "Cookie"
    assert not response.cookies


def test_a_new_key_takes_the_data_along(browser: Browser) -> None:
    browser.get(put)
    before = browser.cookie
    browser.get(lambda session: session.cycle_key())
    assert browser.cookie not in (before, None)
    assert browser.data() == {"a": [1]}
    browser.cookie = before
    assert browser.data() == {}


def test_a_flush_takes_the_cookie_away_and_what_follows_is_new(browser: Browser) -> None:
    browser.get(put)
    before = browser.cookie
    browser.get(lambda session: session.flush())
    assert browser.cookie is None
    browser.get(put)
    between = browser.cookie

    def view(session: Any) -> None:
        session.flush()
        session["b"] = 1

    browser.get(view)
    assert browser.cookie not in (before, between, None)
    assert browser.data() == {"b": 1}


def test_a_failed_request_saves_nothing(browser: Browser) -> None:
    assert not browser.get(put, status=500).cookies
    browser.get(put)
    browser.get(lambda session: session.update({"b": 1}), status=500)
    assert browser.data() == {"a": [1]}


def test_the_test_cookie_works(browser: Browser) -> None:
    browser.get(lambda session: session.set_test_cookie())

    def worked(session: Any) -> None:
        assert session.test_cookie_worked()
        session.delete_test_cookie()

    browser.get(worked)
    assert browser.data() == {}


@pytest.mark.parametrize("browser", ["engine", "both"], indirect=True)
def test_a_new_key_a_log_in_and_a_log_out_stand(browser: Browser) -> None:
    """Django has stored them by then; the client is left without its cookie."""

    def logged_in(session: SessionStore) -> None:
        put(session)
        session.log_in("ann")
        untouched(session)
        assert session.modified

    browser.get(logged_in)
    assert browser.data() == {"a": [1]}
    before = browser.cookie
    browser.get(lambda session: (session.cycle_key(), untouched(session)))
    assert browser.cookie not in (before, None)
    browser.get(lambda session: (session.flush(), untouched(session)))
    assert session_manager().canister.num_local_sessions() == 0
