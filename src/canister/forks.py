"""Forking: everything that holds a file, a lock or a socket is told before and after.

SQLite must not be carried over a fork: the child would inherit its record of locks but not the locks.
So owners close what they hold before the fork and open it anew, on demand, on either side of it.
"""

import os
import threading
from collections.abc import Callable
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
_lock = threading.RLock()
"""Held by a thread that forks, from before to after: nobody else forks meanwhile, or begins to be told."""
_forking = 0
"""The thread that holds it."""
_resting: list[ForkAware] = []


def watch_forks(owner: ForkAware) -> None:
    """Tell *owner* of every fork from now on, as long as it lives."""
    with _lock:
        _aware[owner] = None


def _before() -> None:
    global _forking
    _lock.acquire()
    _forking = threading.get_ident()
    # The last comer first: it may be using those that were there before it.
    _resting[:] = reversed(list(_aware))
    _tell(_resting, lambda owner: owner.before_fork())


def _after_in_parent() -> None:
    global _forking
    if _forking == threading.get_ident():  # else a signal handler raised while this thread waited for another
        owners = _resting[::-1]
        try:
            _tell(owners, lambda owner: owner.after_fork(child=False))
        finally:
            _resting.clear()
            _forking = 0
            _lock.release()


def _after_in_child() -> None:
    global _lock, _forking
    _lock, _forking = threading.RLock(), 0
    _resting.clear()
    _tell(list(_aware), lambda owner: owner.after_fork(child=True))


def _tell(owners: list[ForkAware], act: Callable[[ForkAware], None]) -> None:
    """Tell all owners, whatever one of them raises: Python prints it, and goes on with the fork."""
    errors: list[BaseException] = []
    for owner in owners:
        try:
            act(owner)
        except BaseException as error:  # noqa: BLE001 - also what a signal handler raises
            errors.append(error)
    if errors:
        raise BaseExceptionGroup("not all owners are ready for the fork, or over it", errors)


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
