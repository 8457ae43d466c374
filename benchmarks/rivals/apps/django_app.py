"""Django's sessions in its database, or in its cache on Redis."""

import base64
from typing import Any

import django
import redis
from benchmarks.rivals.serving import Gate, Place, wsgi
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

COOKIE = "sessionid"
serve = wsgi
urlpatterns: list[Any] = []


def make(place: Place, gate: Gate, argument: str) -> Any:
    apps = ["contenttypes", "auth", "sessions"]
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": place.directory / "django.db"}
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": place.redis_url}
    settings.configure(
        SECRET_KEY="a-secret-of-the-benchmark",
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=[f"django.contrib.{app}" for app in apps],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        DATABASES={"default": database},
        CACHES={"default": cache},
        SESSION_ENGINE=f"django.contrib.sessions.backends.{argument}",
    )
    django.setup()
    call_command("migrate", verbosity=0)
    urlpatterns.extend(routes(gate))
    return get_wsgi_application()


def routes(gate: Gate) -> list[Any]:
    from django.contrib.auth import login, logout
    from django.contrib.auth.models import User

    def put(request: Any, key: str, value: str) -> Any:
        request.session[key] = value
        return HttpResponse("ok")

    def slow_put(request: Any, key: str, value: str) -> Any:
        request.session[key] = value
        gate.wait()
        return HttpResponse("ok")

    def slow_read(request: Any) -> Any:
        dict(request.session.items())
        gate.wait()
        return HttpResponse("ok")

    def log_in(request: Any, user: str) -> Any:
        login(request, User.objects.get_or_create(username=user)[0])
        request.session["user"] = user
        return HttpResponse("ok")

    def log_out(request: Any) -> Any:
        logout(request)
        return HttpResponse("ok")

    def show(request: Any) -> Any:
        return JsonResponse({key: request.session[key] for key in request.session.keys()})  # noqa: SIM118

    return [
        path("show", show),
        path("put/<key>/<value>", put),
        path("slow/put/<key>/<value>", slow_put),
        path("slow/read", slow_read),
        path("login/<user>", log_in),
        path("logout", log_out),
    ]


def plant(place: Place, token: str, payload: bytes) -> None:
    if settings.SESSION_ENGINE.endswith("db"):
        from django.contrib.sessions.models import Session

        Session.objects.filter(session_key=token).update(session_data=base64.b64encode(payload).decode())
    else:
        redis.Redis.from_url(place.redis_url).set(f":1:django.contrib.sessions.cache{token}", payload)
