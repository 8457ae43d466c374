"""Time zones as they are stored, and what stands for one that this host does not know."""

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from canister.errors import ConfigError

_NAME = re.compile(r"[A-Z][A-Za-z0-9_+\-]{0,31}(/[A-Za-z0-9_+\-]{1,32}){0,2}")
"""What a zone's name may be; whatever else could be stored is none on any host."""


class MissingZone(tzinfo):
    """A time zone that this host's time zone data lacks: it keeps its name, and cannot be reckoned with.

    A session that holds one can be used where it was not written: in a slim container, say.

    Args:
        key: the zone's name.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        return f"MissingZone({self.key!r})"

    def __getinitargs__(self) -> tuple[str]:
        """Return what a copy is made of."""
        return (self.key,)

    def utcoffset(self, moment: datetime | None) -> NoReturn:
        """Say what is to be done.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"this host has no data of the time zone {self.key!r}: install the package tzdata, or the "
            "operating system's"
        )

    dst = tzname = utcoffset


def zone_name(zone: tzinfo | None) -> str | list[int] | None:
    """Return "" for no zone, an offset for a fixed one, a name for a ``ZoneInfo``, None for others."""
    if zone is None:
        return ""
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        return [offset.days, offset.seconds, offset.microseconds]
    return zone.key if type(zone) is ZoneInfo or type(zone) is MissingZone else None


def read_zone(name: str | list[int]) -> tzinfo | None:
    """Return the zone that `zone_name` named."""
    if isinstance(name, list):
        return timezone(timedelta(*name))
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        if not _NAME.fullmatch(name):
            raise
        return MissingZone(name)
