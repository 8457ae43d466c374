"""System checks: what ``manage.py check`` says of the settings."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage

from canister.integrations.django.configuration import ENGINE, MIDDLEWARE, moves_in, problems
from canister.integrations.django.store import SessionStore

_DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"


def register() -> None:
    """Have Django run the checks."""
    checks.register(check_settings, checks.Tags.security)


def check_settings(app_configs: Sequence[Any] | None = None, **_: Any) -> list[CheckMessage]:
    """Return what is wrong, and what could be better."""
    ours, djangos = MIDDLEWARE in settings.MIDDLEWARE, _DJANGOS in settings.MIDDLEWARE
    if not issubclass(import_module(settings.SESSION_ENGINE).SessionStore, SessionStore):
        return [_engine()] if ours else []
    found: list[CheckMessage] = [
        checks.Error(f"Sessions cannot work: {problem}.", id="canister.E001") for problem in problems()
    ]
    if ours and djangos:
        found.append(
            checks.Error(f"{MIDDLEWARE} and {_DJANGOS} are both in MIDDLEWARE.", _REPLACE, id="canister.E003")
        )
    elif djangos:
        found.append(checks.Warning(_LACKS, _REPLACE, id="canister.W001"))
    if settings.is_overridden("SESSION_SERIALIZER") and not moves_in():
        found.append(checks.Warning("SESSION_SERIALIZER is not used.", _VALUES, id="canister.W002"))
    return found


_REPLACE = f"Put {MIDDLEWARE} in the place of {_DJANGOS}."
_LACKS = (
    "Django's SessionMiddleware sends the session cookie: it has none of our defaults (a __Host- name, say), "
    "and a client that goes from node to node may see what is older than what it has seen."
)
_VALUES = "Values of the types that canister.codec lists are stored as they are; remove the setting."


def _engine() -> CheckMessage:
    return checks.Error(
        f"{MIDDLEWARE} needs SESSION_ENGINE = {ENGINE!r}.",
        "Set it, or take the middleware out.",
        id="canister.E002",
    )
