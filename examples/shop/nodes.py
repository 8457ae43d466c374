"""The nodes of the demo as processes, their ports and what is kept beside their data."""

import contextlib
import http.client
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
NODES = 3
FIRST_PORT = 8001
WEB_RANGE, MESH_RANGE = range(20000, 26000), range(26000, 32000)
"""Where free ports are looked for: below those the system hands out to clients, which come and go."""


class DemoError(Exception):
    """The demo cannot go on; the message is for whoever started it."""


class Node:
    """One node: its two addresses, its data directory and, while it runs, its process."""

    def __init__(self, number: int, port: int, mesh: str, data: Path) -> None:
        self.number = number
        self.port = port
        self.mesh = mesh
        self.data = data
        self.url = f"http://{HOST}:{port}/"
        self.log = data.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of its process, None if it has none."""
        return self._process.pid if self._process else None

    def start(self, environ: dict[str, str]) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("run.py"), "--serve"],
                env=os.environ | environ,
                stdin=subprocess.PIPE,  # its end tells the node that the demo is gone, however it went
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the demo only, which then ends the nodes
            )

    def end(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Wait until its process has ended, at last with force."""
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def collect(self) -> int | None:
        """Return the exit code of a process that has ended, once; None if there is none."""
        code = self._process.poll() if self._process else None
        if code is not None and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process = None
        return code

    def where(self) -> dict[str, Any] | None:
        """Return what the node says about itself, None if it does not answer."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
        try:
            connection.request("GET", "/where")
            response = connection.getresponse()
            return json.loads(response.read()) if response.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def peers_up(self) -> int:
        where = self.where()
        return sum(member["state"] == "up" for member in where["members"]) if where else 0

    def last_words(self) -> str:
        """Return the end of its log."""
        return "\n".join("  " + line for line in self.log.read_text("utf-8", "replace").splitlines()[-8:])


def choose_ports(first: int | None) -> list[int]:
    """Return the ports of the web servers: from *first* on, 0 for any free ones, None for the usual."""
    if first == 0:
        return free_ports(WEB_RANGE)
    if first is not None and not 0 < first <= 65536 - NODES:
        raise DemoError(f"--port is 0 to {65536 - NODES}, so that {NODES} ports are there, not {first}.")
    wanted = range(first or FIRST_PORT, (first or FIRST_PORT) + NODES)
    taken = [port for port in wanted if not is_free(port)]
    if not taken:
        return list(wanted)
    if first is not None:
        raise DemoError(f"Port {taken[0]} is in use. Choose others, or --port 0 for any.")
    print(f"Port {taken[0]} is in use (does another demo run?); other ports are taken instead.\n")
    return free_ports(WEB_RANGE)


def free_ports(among: range) -> list[int]:
    free = (port for port in random.sample(among, len(among)) if is_free(port))
    return sorted(next(free) for _ in range(NODES))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return True
    return False


def prepare(data: Path) -> tuple[str, list[str]]:
    """Return the secret key and the mesh addresses that belong to *data*; made at the first run.

    They are kept beside the data: with another key all log-ins would be void, and under other
    addresses the nodes would be new members while the old ones stay in the list as down.
    """
    file = data / "demo.json"
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            mesh = [f"{HOST}:{port}" for port in free_ports(MESH_RANGE)]
            text = json.dumps({"key": secrets.token_urlsafe(48), "mesh": mesh})
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(text)
        kept = json.loads(file.read_text("utf-8"))
        return kept["key"], kept["mesh"]
    except (OSError, ValueError, LookupError) as error:
        raise DemoError(f"{data} cannot be used for the demo's data: {error}") from error


def await_answer(node: Node, seconds: float) -> None:
    """Wait until a node answers.

    Raises:
        DemoError: it has ended, or *seconds* are over.
    """
    deadline = time.monotonic() + seconds
    while node.where() is None:
        if node.collect() is not None:
            raise DemoError(f"Node {node.number} did not start. In {node.log}:\n{node.last_words()}")
        if time.monotonic() > deadline:
            raise DemoError(f"Node {node.number} does not answer on {node.url}; see {node.log}")
        time.sleep(0.05)
