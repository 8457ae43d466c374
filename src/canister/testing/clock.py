"""A clock that moves only when told to."""

from datetime import timedelta

from canister.clock import micros


class ManualClock:
    """A `canister.clock.Clock` that stands still between calls of `advance` and `set`.

    Args:
        at: the time to begin with, in microseconds since 1970 UTC.
    """

    def __init__(self, at: int = 1_800_000_000_000_000) -> None:
        self._at = at

    def now(self) -> int:
        """Return the time in microseconds since 1970 UTC."""
        return self._at

    def advance(self, by: timedelta | int) -> int:
        """Move the clock by a duration or by microseconds, back if negative; return the new time."""
        self._at += micros(by) if isinstance(by, timedelta) else by
        return self._at

    def set(self, at: int) -> None:
        """Move the clock to an instant."""
        self._at = at
