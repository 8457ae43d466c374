"""Django's session middleware over one kind of sessions, called with requests: no handler, no server."""

import json
import sys
from typing import Any

import django
from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.http import HttpRequest, HttpResponse
from serving import VALUE, serve, timed, work

ENGINES = {
    "canister": "canister.integrations.django",
    "noop": "with_django",
    **{name: f"django.contrib.sessions.backends.{name}" for name in ("db", "cached_db", "signed_cookies")},
}


class SessionStore(SessionBase):
    """An engine with nothing behind it."""

    def load(self) -> dict[str, Any]:
        return {}

    def exists(self, session_key: str) -> bool:
        return False

    def create(self) -> None:
        self._session_key = "0" * 32
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        self._session_key = "0" * 32

    def delete(self, session_key: str | None = None) -> None:
        pass


class Side:
    """A client that sends one request after the other and keeps its cookie."""

    def __init__(self, job: dict[str, Any]) -> None:
        _set_up(job)
        from django.contrib.sessions.middleware import SessionMiddleware

        self._uses_sessions, self._works = job["kind"] != "none", job.get("works", False)
        self._answer: Any = SessionMiddleware(self._page) if self._uses_sessions else self._page
        self._cookies: dict[str, str] = {}
        self._writes = 0

    def requests(self, count: int) -> dict[str, float]:
        return timed(self._request, count)

    def _page(self, request: Any) -> HttpResponse:
        if self._uses_sessions:
            request.session.get("user")
            if "write" in request.META:
                self._writes += 1
                request.session["user"] = VALUE + str(self._writes)
        if self._works:
            work()
        return HttpResponse("done")

    def _request(self, number: int) -> None:
        request = HttpRequest()
        request.COOKIES.update(self._cookies)
        if not number % 10:
            request.META["write"] = "1"
        answer = self._answer(request)
        if answer.status_code != 200:
            raise RuntimeError(f"answered with {answer.status_code}")
        self._cookies.update({name: morsel.value for name, morsel in answer.cookies.items()})


def _set_up(job: dict[str, Any]) -> None:
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": job["path"] + ".db"}
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{job.get('port')}",
    }
    settings.configure(
        SECRET_KEY="0123456789abcdef" * 4,
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": database},
        CACHES={"default": cache},
        SESSION_ENGINE=ENGINES.get(job["kind"], ENGINES["noop"]),
        CANISTER={"path": job["path"]},
    )
    django.setup()
    if job["kind"] in ("db", "cached_db"):
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        connection.cursor().execute("PRAGMA journal_mode=WAL")
        connection.cursor().execute("PRAGMA synchronous=NORMAL")


if __name__ == "__main__":
    serve(Side(json.loads(sys.argv[1])))
