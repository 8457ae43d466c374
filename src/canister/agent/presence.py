"""Whether a node has an agent: that holds a lock, which the kernel frees when it is killed."""

import fcntl
import os
import time
from pathlib import Path

from canister.errors import StoreError

_BELIEVED = 0.2
"""Seconds for which an agent that was there is taken to be there still."""


class AgentPresence:
    """Tells whether any process runs the agent of a node.

    Args:
        lock: the file that the agent has locked.
    """

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._until = 0.0

    def is_there(self) -> bool:
        """Tell whether there is an agent, or was one a moment ago.

        Raises:
            StoreError: that cannot be found out.
        """
        now = time.monotonic()
        if now < self._until:
            return True
        if self._is_locked():
            self._until = now + _BELIEVED
            return True
        return False

    def _is_locked(self) -> bool:
        try:
            file = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"{self._lock} cannot be opened: {error.strerror}") from error
        try:
            # Whoever would be the agent and finds it locked by this look tries again.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False
