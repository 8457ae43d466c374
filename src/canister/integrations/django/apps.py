"""The Django app: system checks, and the templates of the admin view."""

from django.apps import AppConfig

from canister.integrations.django import checks
from canister.integrations.django.configuration import tell_settings_early


class CanisterConfig(AppConfig):
    """Found by Django under ``canister.integrations.django`` in ``INSTALLED_APPS``."""

    name = "canister.integrations.django"
    label = "canister"
    verbose_name = "Sessions"

    def ready(self) -> None:
        """Register the checks."""
        checks.register()
        tell_settings_early()
