"""The one limit to all that a call does: attempts, pauses between them, and waiting for replicas."""

import random
import time

from canister.store.redis.waiting import pause

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25


class Deadline:
    """An instant until which a call may take.

    Args:
        seconds: how long from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._pause = 0.0

    @property
    def left(self) -> float:
        """The seconds left, at least a millisecond."""
        return max(0.001, self._end - time.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._end

    @property
    def is_first_retry(self) -> bool:
        """Whether `pause` has nothing to wait for yet."""
        return self._pause == 0

    def share(self, parts: int) -> "Deadline":
        """Return the deadline of the first of so many attempts that are to have the same time each."""
        return Deadline(self.left / parts)

    def pause(self) -> bool:
        """Wait before the next attempt, longer each time; False if there is no time for another one.

        The first retry comes at once: a connection that was idle may just have been closed.
        """
        if time.monotonic() + self._pause >= self._end:
            return False
        # Chance keeps the processes that lost the same server from coming back together.
        pause(self._pause * random.uniform(0.5, 1))
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return True
