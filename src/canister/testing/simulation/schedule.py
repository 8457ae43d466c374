"""Virtual time."""

import heapq
from collections.abc import Callable

from canister.clock import SECOND

START = 1_700_000_000 * SECOND
"""Where virtual time begins; any instant would do."""


class Schedule:
    """Events in the order of virtual time."""

    def __init__(self) -> None:
        self.now = START
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def steady(self) -> int:
        """Return the time by a clock that nobody sets: all nodes' `canister.clock.Steady`."""
        return self.now

    def after(self, delay: int, act: Callable[[], None]) -> None:
        """Run *act* when *delay* microseconds have passed."""
        self._count += 1
        heapq.heappush(self._events, (self.now + max(0, delay), self._count, act))

    def run(self, duration: int) -> None:
        """Let *duration* microseconds pass."""
        end = self.now + duration
        while self._events and self._events[0][0] <= end:
            self.now, _, act = heapq.heappop(self._events)
            act()
        self.now = end

    def leap(self, duration: int) -> None:
        """Let *duration* microseconds pass in which nothing happens; what was due comes later by as much."""
        self.now += duration
        self._events = [(at + duration, number, act) for at, number, act in self._events]
