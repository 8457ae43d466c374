"""Waking the agent after a commit: a shared byte, and one datagram where the agent is asleep."""

import contextlib
import os
import socket
from pathlib import Path

from canister.agent.sockets import socket_path
from canister.errors import StoreError
from canister.forks import watch_forks

_ASLEEP, _AWAKE = b"0", b"1"


class WakeFlag:
    """A byte shared by all processes of a node: whether the agent waits to be woken.

    The agent lowers it before it reads the log, so whoever finds it raised afterwards knows that
    what was just committed is going to be read. Read and written, not mapped: on a full disk a
    write to a map can kill the process.

    Raises:
        StoreError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}") from error
        self._file = open(handle, "r+b", buffering=0)  # noqa: SIM115 - lives as long as this object

    def sleep(self) -> None:
        """Ask to be woken."""
        self._write(_ASLEEP)

    def rouse(self) -> bool:
        """Return whether the agent was asleep; it counts as awake from now on."""
        if os.pread(self._file.fileno(), 1, 0) == _AWAKE:
            return False
        self._write(_AWAKE)
        return True

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _write(self, state: bytes) -> None:
        # A byte that cannot be written leaves a file without one: the agent is woken each time.
        with contextlib.suppress(OSError):
            os.pwrite(self._file.fileno(), state, 0)


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
        """Tell the agent that the log has grown."""
        if not self._flag.rouse():
            return
        try:
            with socket_path(self._path) as name:
                self._socket.sendto(b"", name)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            # No agent: the next one reads the log when it starts. A full queue: it is about to.
            return

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
