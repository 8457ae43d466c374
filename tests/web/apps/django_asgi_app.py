"""The project of `django_app` as ASGI, with coroutines for views."""

import os
from typing import Any

from django.contrib.auth import alogin, alogout
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from tests.web.apps.django_app import settings, user_of


async def answer_plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


async def answer_show(request: HttpRequest) -> HttpResponse:
    user: Any = await request.auser()
    items = await request.session.aitems()
    data = {key: value for key, value in items if not key.startswith("_auth_user_")}
    known = user.username if user.is_authenticated else None
    return JsonResponse({"user": known, "data": data, "handle": request.session.handle})


async def answer_put(request: HttpRequest, key: str, value: str) -> HttpResponse:
    await request.session.aset(key, value)
    return HttpResponse("ok")


async def answer_login(request: HttpRequest, name: str) -> HttpResponse:
    await alogin(request, user_of(name))
    return HttpResponse("ok")


async def answer_logout(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("ok")


async def answer_clear(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return HttpResponse("ok")


async def answer_pid(request: HttpRequest) -> HttpResponse:
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

settings.ROOT_URLCONF = __name__
app = get_asgi_application()
