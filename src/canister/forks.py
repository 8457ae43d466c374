"""Forking: everything that holds a file, a lock or a socket is told before and after.

SQLite must not be carried over a fork: the child would inherit its record of locks but not the locks.
So owners close what they hold before the fork and open it anew, on demand, on either side of it.

C code may fork without a word to Python, as uWSGI does once it has loaded the application. Then nobody is
told before, and the child is told as soon as it uses what must not be shared: see `notice_fork`.
"""

import os
import sys
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
        """Go on; called in the parent and in the child, there also where nobody was told before."""
        ...


_aware: "WeakKeyDictionary[ForkAware, None]" = WeakKeyDictionary()
_lock = threading.RLock()
"""Held by a thread that forks, from before to after: nobody else forks meanwhile, or begins to be told."""
_forking = 0
"""The thread that holds it."""
_resting: list[ForkAware] = []
_told_in = os.getpid()
"""The process whose owners have been told that it is one of its own."""


def watch_forks(owner: ForkAware) -> None:
    """Tell *owner* of every fork from now on, as long as it lives."""
    with _lock:
        _aware[owner] = None


class Mutex:
    """A lock that a forked child gets free, whatever thread of its parent held it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        watch_forks(self)

    def __enter__(self) -> None:
        notice_fork()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Nothing to do: who holds it in the parent lets it go there."""

    def after_fork(self, *, child: bool) -> None:
        """Begin with a free lock in the child, which has none of the threads that could let it go."""
        if child:
            self._lock = threading.Lock()


def is_only_forked() -> bool:
    """Tell whether this process is uWSGI's master: it loads the application, and only its workers run it.

    They are forked by C code. So no thread may use the store here meanwhile: a worker could not go on with
    what that thread was in the middle of.
    """
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is not None and uwsgi.masterpid() == os.getpid()


def notice_fork() -> None:
    """Tell all owners, in a child in which none was told; to be called before what they hold is used."""
    if os.getpid() != _told_in:
        _tell_late()


def _tell_late() -> None:
    this = os.getpid()
    # A lock of this child's own, the same one for all its threads: one that tells is not told by itself.
    late = _late.setdefault(this, _Late())
    with late.lock:
        if this != _told_in and not late.telling:
            late.telling = True
            _after_in_child()


class _Late:
    """A child that was not told in time: one of its threads tells, the others wait for it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.telling = False


_late: dict[int, _Late] = {}
"""By process."""


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
    global _lock, _forking, _told_in
    _lock, _forking = threading.RLock(), 0
    _resting.clear()
    try:
        _tell(list(_aware), lambda owner: owner.after_fork(child=True))
    finally:
        _told_in = os.getpid()


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
