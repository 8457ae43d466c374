"""A shopping cart on Django: ``python examples/django_shop.py``, then http://127.0.0.1:8000/.

Serves plain http for the sake of the example; leave out ``SESSION_COOKIE_SECURE = False`` behind TLS. The
forms of a real site also need ``django.middleware.csrf.CsrfViewMiddleware``.
"""

import sys
from pathlib import Path
from tempfile import gettempdir

import django
from django.conf import settings
from django.contrib.auth import login, logout
from django.contrib.auth.decorators import login_required
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from canister.integrations.django import session_manager


def configure(directory: Path) -> None:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        CANISTER={"path": directory / "sessions"},
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": directory / "users.db"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "canister.integrations.django"],
        MIDDLEWARE=[
            "canister.integrations.django.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="an example's key, which everybody knows: make your own",
        SESSION_COOKIE_SECURE=False,
        SESSION_ENGINE="canister.integrations.django",
        USE_TZ=True,
    )
    django.setup()


def show(request: HttpRequest) -> HttpResponse:
    session = request.session
    cart = {key.removeprefix("cart:"): n for key, n in session.items() if key.startswith("cart:")}
    return JsonResponse({"user": request.user.get_username(), "cart": cart})


@require_POST
def add(request: HttpRequest, article: str) -> HttpResponse:
    # A key for each article: what two tabs add at once is all kept.
    key = f"cart:{article}"
    request.session[key] = request.session.get(key, 0) + 1
    return HttpResponse("ok\n")


@require_POST
def log_in(request: HttpRequest, name: str) -> HttpResponse:
    from django.contrib.auth.models import User  # after Django was configured

    login(request, User.objects.get_or_create(username=name)[0])  # a new id, the cart with it
    return HttpResponse("ok\n")


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)  # and the session is over, on every node
    return HttpResponse("ok\n")


@login_required
def devices(request: HttpRequest) -> HttpResponse:
    found = session_manager().users.sessions(request.user.pk)
    return JsonResponse([{"handle": one.handle, "last seen": one.last_seen} for one in found], safe=False)


@login_required
@require_POST
def end(request: HttpRequest, handle: str) -> HttpResponse:
    return JsonResponse({"ended": session_manager().users.end(request.user.pk, handle)})


urlpatterns = [
    path("", show),
    path("cart/<article>", add),
    path("log-in/<name>", log_in),
    path("log-out", log_out),
    path("devices", devices),
    path("devices/<handle>/end", end),
]

if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    directory = Path(sys.argv[2] if len(sys.argv) > 2 else f"{gettempdir()}/canister-django")
    directory.mkdir(parents=True, exist_ok=True)
    configure(directory)
    call_command("migrate", verbosity=0)
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)
