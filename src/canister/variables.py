"""The environment variables that begin with ``CANISTER_``, and what a misspelt one was meant to be."""

import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from canister.errors import ConfigError

logger = logging.getLogger("canister")

PREFIX = "CANISTER_"
CONFIG = f"{PREFIX}CONFIG"
OTHERS = ("CONFIG", "SECRET_KEYS", "PATH", "INSECURE_COOKIES", "RECORD_CLIENT")
"""What is no setting of a node and read elsewhere, or handed on by applications, as the examples do."""
MANAGERS = ("WHEN_BEHIND", "ACKS", "MAX_SESSIONS", "AT_CAP", "STRICT", "MOVE_IN")
"""Settings of the session manager, which applications may hand on too."""
_ALIKE = 0.75
"""From here on (1: the same) a name is taken for another one that is misspelt."""

_told: set[str] = set()


def settings_in(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the settings that an environment gives a value.

    What is like nothing that is known may be somebody else's: where a service of that name runs, Kubernetes
    sets ``CANISTER_PORT`` for all. It is logged, once for each process.

    Args:
        environ: the environment.
        names: the settings there are.

    Raises:
        ConfigError: a variable is a misspelt one of ours.
    """
    ours = {name.upper(): name for name in names}
    known = [*ours, *OTHERS, *MANAGERS]
    given = {name.removeprefix(PREFIX) for name in environ if name.startswith(PREFIX)}
    for name in sorted(given.difference(known)):
        if meant := get_close_matches(name, known, 1, _ALIKE):
            raise ConfigError(
                f"unknown variable {PREFIX}{name} in the environment; is it {PREFIX}{meant[0]}?"
            )
        if name not in _told:
            _told.add(name)
            logger.warning("%s%s in the environment is no setting of Canister: not used", PREFIX, name)
    return {setting: environ[PREFIX + name] for name, setting in ours.items() if name in given}
