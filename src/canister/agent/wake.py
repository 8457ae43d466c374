"""Waking the agent after a commit: one datagram, sent without waiting."""

import socket
from pathlib import Path

from canister.agent.sockets import socket_path
from canister.forks import watch_forks


class Waker:
    """Wakes the agent of a node, if there is one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = self._open()
        watch_forks(self)

    def wake(self) -> None:
        """Tell the agent that the log has grown."""
        try:
            with socket_path(self._path) as name:
                self._socket.sendto(b"", name)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            # No agent: the next one reads the log when it starts. A full queue: it is about to.
            return

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

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
