"""A Redis of one's own, or a cluster: on free ports, files in a temporary folder, ended with the run."""

import socket
import subprocess
import time
from pathlib import Path


class RedisServer:
    """A running server that appends to its file and syncs it every second.

    Args:
        folder: where its files go.
        more: further options.
    """

    def __init__(self, folder: Path, **more: str) -> None:
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
            **more,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(["redis-server", *words], stdin=subprocess.DEVNULL)
        self.pid = self._process.pid
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


class RedisCluster:
    """Three masters with one replica each.

    Args:
        folder: where their files go.
    """

    def __init__(self, folder: Path) -> None:
        self.servers: list[RedisServer] = []
        addresses: list[str] = []
        for number in range(6):
            path, bus = folder / str(number), str(free_port())
            path.mkdir(parents=True)
            server = RedisServer(path, **{"cluster-enabled": "yes", "cluster-port": bus})
            self.servers.append(server)
            addresses.append(f"127.0.0.1:{server.port}@{bus}")
        command = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
        self.masters = self.servers[:3]
        for master in self.masters:
            self._await_replica(master)
        self.url = f"redis+cluster://127.0.0.1:{self.servers[0].port}"

    def _await_replica(self, master: RedisServer) -> None:
        command = ["redis-cli", "-p", str(master.port), "info", "replication"]
        deadline = time.monotonic() + 60
        while b"state=online" not in subprocess.run(command, check=True, capture_output=True).stdout:
            if time.monotonic() > deadline:
                raise TimeoutError("a master has no replica")
            time.sleep(0.1)

    def close(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.close()


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
