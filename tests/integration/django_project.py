"""A Django project in one module: import it before anything of Django that needs settings."""

import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import django
from django.conf import settings

KEY = "key-0123456789-abcdefghijklmnopqrs"
ENGINE = "canister.integrations.django"
MIDDLEWARE = [
    "canister.integrations.django.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
_scratch = TemporaryDirectory(prefix="canister-django-")  # removed when the process ends
_DIRECTORY = Path(_scratch.name)

settings.configure(
    ALLOWED_HOSTS=["*"],
    CANISTER={"path": _DIRECTORY / "never-used"},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _DIRECTORY / "users.db"}},
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        ENGINE,
    ],
    MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage",
    MIDDLEWARE=MIDDLEWARE,
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF="tests.integration.django_project",
    SECRET_KEY=KEY,
    SESSION_ENGINE=ENGINE,
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    USE_TZ=True,
)
django.setup()

from django.contrib import admin, messages  # noqa: E402
from django.contrib.auth import (  # noqa: E402
    aauthenticate,
    alogin,
    alogout,
    authenticate,
    login,
    logout,
    update_session_auth_hash,
)
from django.core.management import call_command  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402
from django.urls import include, path  # noqa: E402

call_command("migrate", verbosity=0)


def cut_off_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of a node whose only other member cannot be reached."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{one.getsockname()[1]}"
    return {"path": directory, "listen": listen, "seeds": ["127.0.0.1:1"], "remote_timeout": "100ms"}


def untouched(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def show(request: HttpRequest) -> HttpResponse:
    session = request.session
    data = {key: value for key, value in session.items() if not key.startswith("_auth_user")}
    return JsonResponse({"user": session.user, "data": data, "handle": session.handle})


def whoami(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.user.get_username() or "nobody")


def put(request: HttpRequest, key: str, value: str) -> HttpResponse:
    request.session[key] = value
    return HttpResponse("ok")


def append(request: HttpRequest) -> HttpResponse:
    request.session.setdefault("list", [])
    request.session["list"].append(len(request.session["list"]))
    return HttpResponse("ok")


def clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return HttpResponse("ok")


def fail(request: HttpRequest, what: str) -> HttpResponse:
    """Do something, and answer that the server has failed."""
    if what == "put":
        request.session["failed"] = True
    elif what == "save":
        request.session["saved"] = True
        request.session.save()
        request.session["failed"] = True
    elif what == "cycle":
        request.session.cycle_key()
    elif what == "log-out":
        logout(request)
    return HttpResponse("broken", status=500)


def expire(request: HttpRequest, seconds: int) -> HttpResponse:
    request.session["a"] = 1
    request.session.set_expiry(seconds)
    return HttpResponse("ok")


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    user = authenticate(request, username=name, password="secret")
    login(request, user)
    return HttpResponse("ok")


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("ok")


def change_password(request: HttpRequest) -> HttpResponse:
    request.user.set_password("secret2")
    request.user.save()
    update_session_auth_hash(request, request.user)
    return HttpResponse("ok")


def say(request: HttpRequest) -> HttpResponse:
    messages.info(request, "hello")
    return HttpResponse("ok")


def listen(request: HttpRequest) -> HttpResponse:
    return HttpResponse(",".join(str(message) for message in messages.get_messages(request)))


def form(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_token(request))


def stream(request: HttpRequest) -> HttpResponse:
    def body() -> Any:
        yield b"a"
        request.session["late"] = 1

    request.session["early"] = 1
    return StreamingHttpResponse(body())


async def ashow(request: HttpRequest) -> HttpResponse:
    data = {k: v for k, v in await request.session.aitems() if not k.startswith("_auth_user")}
    return JsonResponse({"user": request.session.user, "data": data, "handle": request.session.handle})


async def aput(request: HttpRequest, key: str, value: str) -> HttpResponse:
    await request.session.aset(key, value)
    return HttpResponse("ok")


async def direct(request: HttpRequest) -> HttpResponse:
    """Use the session as in a view that is no coroutine."""
    request.session["direct"] = request.session.get("direct", 0) + 1
    return HttpResponse(str(request.session["direct"]))


async def alog_in(request: HttpRequest, name: str) -> HttpResponse:
    await alogin(request, await aauthenticate(request, username=name, password="secret"))
    return HttpResponse("ok")


async def alog_out(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("ok")


urlpatterns = [
    path("untouched", untouched),
    path("show", show),
    path("whoami", whoami),
    path("put/<key>/<value>", put),
    path("append", append),
    path("clear", clear),
    path("fail/<what>", fail),
    path("expire/<int:seconds>", expire),
    path("log-in/<name>", log_in),
    path("log-out", log_out),
    path("change-password", change_password),
    path("say", say),
    path("listen", listen),
    path("form", form),
    path("stream", stream),
    path("a/show", ashow),
    path("a/put/<key>/<value>", aput),
    path("a/direct", direct),
    path("a/log-in/<name>", alog_in),
    path("a/log-out", alog_out),
    path("admin/sessions/", include("canister.integrations.django.urls")),
    path("admin/", admin.site.urls),
]
