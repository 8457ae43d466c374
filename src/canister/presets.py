"""Times that published guidance asks for, by name.

A session ends at most one touch interval after its idle timeout: each pair of the two adds up to
the limit the guidance names.

- ``owasp-high``: OWASP Session Management Cheat Sheet, for applications of high value: 5 minutes idle,
  4 hours in all, a new secret every 15 minutes.
- ``nist-aal1|2|3``: NIST SP 800-63B revision 4. AAL1: 30 days in all. AAL2: 1 hour idle, 24 hours in all.
  AAL3: 15 minutes idle, 12 hours in all.
- ``nist-aal1|2|3-rev3``: the same of revision 3. AAL2: 30 minutes idle, 12 hours in all.
"""

from collections.abc import Mapping

from canister.errors import ConfigError

PRESETS: Mapping[str, Mapping[str, str]] = {
    "owasp-high": {
        "session_timeout": "285s",
        "touch_interval": "15s",
        "absolute_lifetime": "4h",
        "renewal_timeout": "15m",
    },
    "nist-aal1": {"session_timeout": "30d", "absolute_lifetime": "30d"},
    "nist-aal2": {"session_timeout": "57m", "touch_interval": "3m", "absolute_lifetime": "24h"},
    "nist-aal3": {"session_timeout": "14m", "touch_interval": "1m", "absolute_lifetime": "12h"},
    "nist-aal1-rev3": {"session_timeout": "30d", "absolute_lifetime": "30d"},
    "nist-aal2-rev3": {"session_timeout": "1710s", "touch_interval": "90s", "absolute_lifetime": "12h"},
    "nist-aal3-rev3": {"session_timeout": "14m", "touch_interval": "1m", "absolute_lifetime": "12h"},
}


def preset_named(name: object) -> Mapping[str, str]:
    """Return the settings of a preset, none for None.

    Raises:
        ConfigError: there is no preset of that name.
    """
    if name is None:
        return {}
    if not isinstance(name, str) or name not in PRESETS:  # it may come from a file
        raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]
