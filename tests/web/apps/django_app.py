"""A Django project for the tests on real servers, as WSGI: the routes that every framework's has."""

import os
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        AUTHENTICATION_BACKENDS=["tests.web.apps.django_app.Everybody"],
        CANISTER={"path": os.environ["CANISTER_PATH"]},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "canister.integrations.django"],
        MIDDLEWARE=[
            "canister.integrations.django.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF="tests.web.apps.django_app",
        SECRET_KEY="never used: the tests set CANISTER_SECRET_KEYS",
        SESSION_COOKIE_SECURE=False,
        SESSION_ENGINE="canister.integrations.django",
        USE_TZ=True,
    )
    django.setup()

from django.contrib.auth import login, logout
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path

user_logged_in.disconnect(dispatch_uid="update_last_login")  # there is no database to note it in


class Everybody(BaseBackend):
    """Knows everybody without a database: the primary key is made of the name."""

    def get_user(self, user_id: int) -> User:
        return user_of(user_id.to_bytes((user_id.bit_length() + 7) // 8).decode())


def user_of(name: str) -> User:
    return User(pk=int.from_bytes(name.encode()), username=name)


def answer_plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


def answer_show(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    data = {key: value for key, value in request.session.items() if not key.startswith("_auth_user_")}
    known = user.username if user.is_authenticated else None
    return JsonResponse({"user": known, "data": data, "handle": request.session.handle})


def answer_put(request: HttpRequest, key: str, value: str) -> HttpResponse:
    request.session[key] = value
    return HttpResponse("ok")


def answer_login(request: HttpRequest, name: str) -> HttpResponse:
    login(request, user_of(name))
    return HttpResponse("ok")


def answer_logout(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("ok")


def answer_clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return HttpResponse("ok")


def answer_pid(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


urlpatterns = [
    path("plain", answer_plain),
    path("show", answer_show),
    path("put/<key>/<value>", answer_put),
    path("login/<name>", answer_login),
    path("logout", answer_logout),
    path("clear", answer_clear),
    path("pid", answer_pid),
]

app = get_wsgi_application()
