"""Forking: everything that holds a file, a lock or a socket is told before and after.

SQLite must not be carried over a fork: the child would inherit its record of locks but not the locks.
So owners close what they hold before the fork and open it anew, on demand, on either side of it.
"""

import os
from typing import Protocol
from weakref import WeakKeyDictionary


class ForkAware(Protocol):
    """Holds something that a forked child must not share."""

    def before_fork(self) -> None:
        """Come to rest; called in the parent."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """Go on; called in the parent and in the child."""
        ...


_aware: "WeakKeyDictionary[ForkAware, None]" = WeakKeyDictionary()
_resting: list[ForkAware] = []


def watch_forks(owner: ForkAware) -> None:
    """Tell *owner* of every fork from now on, as long as it lives."""
    _aware[owner] = None


def _before() -> None:
    # The last comer first: it may be using those that were there before it.
    _resting[:] = reversed(list(_aware))
    for owner in _resting:
        owner.before_fork()


def _after(*, child: bool) -> None:
    for owner in reversed(_resting):
        owner.after_fork(child=child)
    _resting.clear()


os.register_at_fork(
    before=_before,
    after_in_parent=lambda: _after(child=False),
    after_in_child=lambda: _after(child=True),
)
