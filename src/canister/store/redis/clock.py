"""The servers' time, so that all processes agree on when a session ends."""

import time

_FRESH = 10_000_000
"""How long (microseconds) the clock goes on by itself before it is compared again."""


class ServerClock:
    """A `canister.clock.Clock` that shows the time of the servers.

    It goes on with this machine's monotonic clock, so nothing happens when the wall clock here steps.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._compared: int | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is time to compare it with a server's."""
        return self._compared is None or _monotonic() - self._compared > _FRESH

    def now(self) -> int:
        """Return the servers' time in microseconds since 1970 UTC."""
        return _monotonic() + self._offset

    def compare(self, time_there: int) -> None:
        """Set it by a server's time as it has just arrived."""
        here = _monotonic()
        self._offset, self._compared = time_there - here, here


def _monotonic() -> int:
    return time.monotonic_ns() // 1000
