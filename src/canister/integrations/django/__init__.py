"""Sessions for Django: a session engine, and a middleware that owns the cookie.

In the settings of a project:

    SESSION_ENGINE = "canister.integrations.django"
    CANISTER = {"path": "/var/lib/shop/sessions"}

``canister.integrations.django.SessionMiddleware`` goes in the place of Django's in ``MIDDLEWARE``, and
``canister.integrations.django`` into ``INSTALLED_APPS`` for the system checks and the admin view.
"""

from canister.integrations.django import signals
from canister.integrations.django.configuration import close, session_manager, tell_settings_early
from canister.integrations.django.middleware import SessionMiddleware
from canister.integrations.django.store import SessionStore, session_of

__all__ = ["SessionMiddleware", "SessionStore", "close", "session_manager", "session_of"]

signals.connect()
tell_settings_early()
