"""Waking the agent after a commit: a shared byte, and one datagram where the agent is asleep."""

import contextlib
import socket
from pathlib import Path

from canister.agent.sockets import socket_path
from canister.forks import watch_forks
from canister.store.shared import make_room, shared_memory

_ASLEEP, _AWAKE = 0, 1
_CLOSED = memoryview(bytes([_AWAKE]))
"""What a flag is once it is closed: nobody is roused."""


class WakeFlag:
    """A byte shared by all processes of a node: whether the agent waits to be woken.

    The agent lowers it before it reads the log, so whoever finds it raised afterwards knows that
    what was just committed is going to be read.

    Raises:
        StoreError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        make_room(path, 1)
        self._state = memoryview(shared_memory(path, 1))

    def sleep(self) -> None:
        """Ask to be woken."""
        self._state[0] = _ASLEEP

    def rouse(self) -> bool:
        """Return whether the agent was asleep; it counts as awake from now on."""
        if self._state[0] == _AWAKE:
            return False
        self._state[0] = _AWAKE
        return True

    def close(self) -> None:
        """Release the file, as soon as the last one who looks at it is through."""
        self._state = _CLOSED


class Waker:
    """Wakes the agent of a node, if there is one.

    Args:
        path: the agent's wake socket.
        flag: the path of the node's wake flag.
    """

    def __init__(self, path: Path, flag: Path) -> None:
        self._path = path
        self._flag = WakeFlag(flag)
        self._socket = self._open()
        watch_forks(self)

    def wake(self) -> None:
        """Tell the agent that the log has grown; what was committed stands, whether that succeeds or not."""
        # No agent: the next one reads the log when it starts. A full queue: it is about to. No descriptor is
        # left for the way to the socket: it looks at the log from time to time by itself.
        if self._flag.rouse():
            with contextlib.suppress(OSError), socket_path(self._path) as name:
                self._socket.sendto(b"", name)

    def close(self) -> None:
        """Release the socket and the flag."""
        self._socket.close()
        self._flag.close()

    def before_fork(self) -> None:
        """Nothing to do: a datagram socket holds no state."""

    def after_fork(self, *, child: bool) -> None:
        """Give the child a socket of its own."""
        if child:
            self._socket.close()
            self._socket = self._open()

    @staticmethod
    def _open() -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.setblocking(False)
        return channel
