"""A Redis of one's own: on a free port, with its files in a temporary folder, ended with the run."""

import socket
import subprocess
import time
from pathlib import Path


class RedisServer:
    """A running server that appends to its file and syncs it every second.

    Args:
        folder: where its files go.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "daemonize": "no",
            "logfile": str(folder / "redis.log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *words], stdin=subprocess.DEVNULL)
        self._await_answer()

    def close(self) -> None:
        """End it and wait until it has."""
        self._process.terminate()
        self._process.wait(timeout=20)

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
