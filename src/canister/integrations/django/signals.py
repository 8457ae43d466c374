"""Django's log-in is ours: a new id that belongs to the user, with no code in the application.

A log-out needs nothing: after its signal Django flushes the session, which destroys it.
"""

import sys
from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.core.signals import got_request_exception
from django.http import HttpRequest

from canister.codec import USER_TYPES
from canister.integrations.django.configuration import records_client
from canister.integrations.django.store import SessionStore
from canister.sessions.identity import AGENT_LENGTH
from canister.sessions.outcome import REFUSALS

REFUSAL = "_canister_refusal"
"""Where a request holds the error that Django has made a 500 of."""


def connect() -> None:
    """Listen to Django."""
    user_logged_in.connect(_logged_in, dispatch_uid="canister.integrations.django")
    got_request_exception.connect(_note_refusal, dispatch_uid="canister.integrations.django")


def user_id(user: Any) -> Any:
    """Return the id by which a session knows one of Django's users."""
    key = user.pk
    return key if type(key) in USER_TYPES else str(user._meta.pk.value_to_string(user))


def _logged_in(*, request: HttpRequest, user: Any, **_: Any) -> None:
    store = getattr(request, "session", None)
    if not isinstance(store, SessionStore):
        return
    address = agent = None
    if records_client():
        address = request.META.get("REMOTE_ADDR")
        agent = request.META.get("HTTP_USER_AGENT", "")[:AGENT_LENGTH] or None
    store.log_in(user_id(user), address=address, agent=agent)


def _note_refusal(*, request: HttpRequest | None = None, **_: Any) -> None:
    """Let `SessionMiddleware` know."""
    error = sys.exception()
    if request is not None and isinstance(error, tuple(REFUSALS)):
        setattr(request, REFUSAL, error)
