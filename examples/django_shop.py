"""A small shop on Django: ``python examples/django_shop.py``, then http://localhost:8000/.

The pages are in ``templates/``. Serves plain http for the sake of the example; leave out
``SESSION_COOKIE_SECURE = False`` behind TLS.
"""

import sys
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import django
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.views.decorators.http import require_POST

from canister.integrations.django import session_manager

ARTICLES = ["Green tea", "Rye bread", "Heather honey", "Mountain cheese"]


def configure(sessions: Path, database: Path, **others: Any) -> None:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        CANISTER={"path": sessions, "record_client": True},  # the client, for the list of devices
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "canister.integrations.django"],
        LOGIN_URL="/",
        MIDDLEWARE=[
            "canister.integrations.django.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="an example's key, which everybody knows: make your own",
        SESSION_ENGINE="canister.integrations.django",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [Path(__file__).with_name("templates")],
                "OPTIONS": {"context_processors": [f"{__name__}.for_every_page"]},
            }
        ],
        USE_TZ=True,
        **others,
    )
    django.setup()


def for_every_page(request: HttpRequest) -> dict[str, Any]:
    # csrf_token is there by itself.
    user = request.user.get_username()
    return {"framework": "Django", "user": user, "csrf_field": "csrfmiddlewaretoken"}


def home(request: HttpRequest) -> HttpResponse:
    items = request.session.items()
    cart = [(key.removeprefix("cart:"), n) for key, n in items if key.startswith("cart:")]
    return render(request, "shop.html", {"articles": ARTICLES, "cart": sorted(cart)})


@require_POST
def add(request: HttpRequest) -> HttpResponse:
    key = f"cart:{request.POST['article']}"
    if request.POST["article"] in ARTICLES:
        # A key for each article: what two tabs add at once is all kept.
        request.session[key] = request.session.get(key, 0) + 1
    return redirect("/")


@require_POST
def remove(request: HttpRequest) -> HttpResponse:
    request.session.pop(f"cart:{request.POST['article']}", None)
    return redirect("/")


@require_POST
def log_in(request: HttpRequest) -> HttpResponse:
    from django.contrib.auth.models import User  # after Django was configured

    # A real shop asks for a password, too. The session goes on under a new id, the cart with it.
    login(request, User.objects.get_or_create(username=request.POST["name"])[0])
    return redirect("/")


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)  # and the session is over, on every node
    return redirect("/")


@login_required
def devices(request: HttpRequest) -> HttpResponse:
    found = session_manager().users.sessions(request.user.pk)
    listed = [(one.handle, one.identity.agent, f"{one.last_seen:%d %B, %H:%M} UTC") for one in found]
    return render(request, "devices.html", {"devices": listed, "own": request.session.handle})


@login_required
@require_POST
def end_device(request: HttpRequest) -> HttpResponse:
    session_manager().users.end(request.user.pk, request.POST["handle"])
    return redirect("/devices")


urlpatterns = [
    path("", home),
    path("add", add),
    path("remove", remove),
    path("log-in", log_in),
    path("log-out", log_out),
    path("devices", devices),
    path("devices/end", end_device),
]

if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else f"{gettempdir()}/canister-django")
    directory.mkdir(parents=True, exist_ok=True)
    configure(directory / "sessions", directory / "users.db", SESSION_COOKIE_SECURE=False)
    call_command("migrate", verbosity=0)
    call_command("runserver", f"localhost:{port}", use_reloader=False)
