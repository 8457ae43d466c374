"""Whether a node has an agent that hears its peers.

Told by a lock, which the kernel frees when it is killed, and by when the lock's file was last touched: one
that hangs, or was stopped, touches it no more.

It is a lock of an open file description (Linux, fcntl(2)), for such a one can be looked at without being
taken: a look that took it could keep a candidate from becoming the agent, and so could a child that was
forked meanwhile, for as long as it lives.
"""

import fcntl
import os
import struct
import time
from pathlib import Path

from canister.errors import StoreError

_BELIEVED = 0.2
"""Seconds for which an agent that was there is taken to be there still."""
_LEAST_PATIENCE = 2.0
"""Seconds: on a busy machine an agent that is well may get no processor for a while."""
_LOCK = struct.Struct("hhqqi4x")
"""Kind of lock, from where its bytes are counted, the first of them, how many, and a process."""
_CAN_LOOK = hasattr(fcntl, "F_OFD_GETLK")


def announce(file: int) -> None:
    """Tell that the agent, whose lock file this is, has told its store whom it has not heard of yet."""
    os.utime(file)
    _set(file, fcntl.F_WRLCK)


def stay(lock: Path) -> None:
    """Tell that the agent is at work still.

    Raises:
        StoreError: the file of its lock cannot be touched.
    """
    try:
        os.utime(lock)
    except OSError as error:
        raise StoreError(f"{lock} cannot be touched: {error.strerror}") from error


def withdraw(file: int) -> None:
    """Tell that the agent is not there any more."""
    _set(file, fcntl.F_UNLCK)


def _set(file: int, kind: int) -> None:
    if _CAN_LOOK:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock(kind))


def _lock(kind: int) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, 0, 1, 0)


class AgentPresence:
    """Tells whether any process runs the agent of a node; where that cannot be seen, it is taken to be so.

    Args:
        lock: the file of the agent's lock.
        patience: seconds for which an agent that shows no sign of life is taken to be at work.
    """

    def __init__(self, lock: Path, patience: float) -> None:
        self._lock = lock
        self._patience = max(patience, _LEAST_PATIENCE)
        self._until = 0.0

    def is_there(self) -> bool:
        """Tell whether there is an agent, or was one a moment ago.

        Raises:
            StoreError: that cannot be found out.
        """
        now = time.monotonic()
        if now < self._until:
            return True
        if not _CAN_LOOK or self._is_announced():
            self._until = now + _BELIEVED
            return True
        return False

    def _is_announced(self) -> bool:
        try:
            file = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{self._lock} cannot be opened: {error.strerror}") from error
        try:
            found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK))
            quiet = time.time() - os.fstat(file).st_mtime
        finally:
            os.close(file)
        kind: int = _LOCK.unpack(found)[0]
        return kind != fcntl.F_UNLCK and quiet < self._patience
