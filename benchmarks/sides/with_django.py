"""Django's own sessions, used through their store: what a request's load and save cost."""

import json
import sys
from typing import Any

import django
from django.conf import settings
from serving import VALUE, serve, timed


class Side:
    """One session, loaded anew at each call; one in ten is changed and saved, as a request would."""

    def __init__(self, job: dict[str, Any]) -> None:
        engine = f"django.contrib.sessions.backends.{job['kind']}"
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": job["path"]}
        cache = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{job['port']}",
        }
        settings.configure(
            SECRET_KEY="benchmark",
            INSTALLED_APPS=["django.contrib.sessions"],
            DATABASES={"default": database},
            CACHES={"default": cache},
            SESSION_ENGINE=engine,
        )
        django.setup()
        from django.core.management import call_command
        from django.db import connection

        call_command("migrate", verbosity=0)
        connection.cursor().execute("PRAGMA journal_mode=WAL")
        connection.cursor().execute("PRAGMA synchronous=NORMAL")
        self._store = __import__(engine, fromlist=["SessionStore"]).SessionStore
        first = self._store()
        first["user"] = VALUE
        first.save()
        self._key = first.session_key

    def requests(self, count: int) -> dict[str, float]:
        return timed(self._request, count)

    def _request(self, number: int) -> None:
        session = self._store(self._key)
        session.get("user")
        if not number % 10:
            session["user"] = VALUE
            session.save()
            self._key = session.session_key


if __name__ == "__main__":
    serve(Side(json.loads(sys.argv[1])))
