"""Web sites of two nodes: real servers with several worker processes, on data directories of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from tests.integration.cluster import Node, await_equal, await_linked, eventually, free_port
from tests.web.relay import Relay, running_relay

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).with_name("apps")
WORKERS = 4

GUNICORN = ["gunicorn", "--workers={workers}", "--no-control-socket", "--log-level=warning", "--bind"]
UVICORN = ["uvicorn", "--workers={workers}", "--no-access-log", "--log-level=warning", "--port"]
SERVERS: dict[str, list[str]] = {
    "gunicorn": [*GUNICORN, "127.0.0.1:{port}", "{app}"],
    "gunicorn-preload": [*GUNICORN, "127.0.0.1:{port}", "--preload", "{app}"],
    "gunicorn-aiohttp": [*GUNICORN, "127.0.0.1:{port}", "--worker-class=aiohttp.GunicornWebWorker", "{app}"],
    "gunicorn-aiohttp-preload": [
        *GUNICORN,
        "127.0.0.1:{port}",
        "--preload",
        "--worker-class=aiohttp.GunicornWebWorker",
        "{app}",
    ],
    "uvicorn": [*UVICORN, "{port}", "{app}"],
}
"""What follows ``python -m``, by kind of server."""

RUNS_ON: dict[str, list[str]] = {
    "wsgi_app": ["gunicorn", "gunicorn-preload"],
    "asgi_app": ["uvicorn"],
    "fastapi_app": ["uvicorn"],
    "django_app": ["gunicorn", "gunicorn-preload"],
    "django_asgi_app": ["uvicorn"],
    "flask_app": ["gunicorn", "gunicorn-preload"],
    "quart_app": ["uvicorn"],
    "litestar_app": ["uvicorn"],
    "aiohttp_app": ["gunicorn-aiohttp", "gunicorn-aiohttp-preload"],
    "pyramid_app": ["gunicorn", "gunicorn-preload"],
}
"""Which servers each module of ``apps`` is run on."""

SETTINGS = {
    "node_interval": "3s",
    "digest_interval": "30s",
    "remote_timeout": "5s",
    "durability": "normal",
}
SECRET = "tests-web-0123456789-abcdefghijklmnop"


def modules() -> list[str]:
    """Return the names of all modules of ``apps``."""
    return sorted(file.stem for file in APPS.glob("*_app.py"))


class Server:
    """One node of a site: a web server and its workers, on one data directory."""

    def __init__(self, node: Node, module: str, kind: str, workers: int) -> None:
        self.node = node
        self.port = free_port()
        self._log = node.path.with_suffix(".server.log")
        values = {"port": self.port, "app": f"{module}:app", "workers": workers}
        given = [part.format_map(values) for part in SERVERS[kind]]
        settings = {name: str(value) for name, value in node.settings.items() if name != "seeds"}
        settings |= {"path": str(node.path), "seeds": ",".join(node.settings["seeds"]), "secret_keys": SECRET}
        environ = os.environ | {f"CANISTER_{name.upper()}": value for name, value in settings.items()}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *given], stdout=log, stderr=log, env=environ, cwd=ROOT
            )

    @property
    def log(self) -> str:
        """What the server and its workers have printed."""
        return self._log.read_text()

    def wait_ready(self, path: str) -> None:
        """Wait until it answers a request for *path*."""

        def answers() -> bool:
            assert self._process.poll() is None, f"the server ended: {self.log}"
            try:
                return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False).is_success
            except httpx.TransportError:
                return False

        eventually(answers, 60.0, f"a server on {self.port}: {self.log}")

    def stop(self) -> None:
        """End it and its workers, and wait until they are gone."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


class Site:
    """Two servers that are nodes of one cluster.

    Args:
        servers: the servers.
        relays: what stands between them.
    """

    def __init__(self, servers: list[Server], relays: list[Relay]) -> None:
        self._relays = relays
        self._servers = servers
        self.nodes = [server.node for server in servers]
        self.ports = [server.port for server in servers]

    def cut(self) -> None:
        """Cut the nodes off from each other, and wait until both have noticed."""
        self._isolate(on=True)
        for node in self.nodes:
            eventually(lambda node=node: set(node.states().values()) == {"self", "down"}, message="the split")

    def heal(self) -> None:
        """Let the nodes back to each other, and wait until they agree."""
        self._isolate(on=False)
        await_linked(self.nodes)
        self.await_equal()

    @contextmanager
    def slow_link(self, delay: float) -> Iterator[None]:
        """Have everything between the nodes take *delay* seconds longer, each way."""
        for relay in self._relays:
            relay.delay = delay
        yield
        for relay in self._relays:
            relay.delay = 0.0

    def await_equal(self) -> None:
        """Wait until both nodes hold the same."""
        await_equal(self.nodes)

    def sessions(self) -> set[str]:
        """Return the handles of all sessions that live on either node."""
        return {
            id.hex() if isinstance(id, bytes) else id
            for node in self.nodes
            for id in node.store.all_sessions()
        }

    def logs(self) -> str:
        """Return what the servers and their workers have printed."""
        return "".join(server.log for server in self._servers)

    def _isolate(self, *, on: bool) -> None:
        for node in self.nodes:
            node.store.node.isolate(on=on)


@contextmanager
def running_site(
    directory: Path, module: str, kind: str, *, workers: int = WORKERS, probe: str = "/plain"
) -> Iterator[Site]:
    """Yield a site of two linked nodes, and end it.

    Args:
        directory: where the nodes keep their data.
        module: has the application, by the name ``app``.
        kind: one of `SERVERS`.
        workers: how many processes each server has.
        probe: a path that the application answers without further ado.
    """
    listen = [free_port() for _ in range(2)]
    with ExitStack() as stack:
        relays = [stack.enter_context(running_relay(port)) for port in listen]
        addresses = [f"127.0.0.1:{relay.port}" for relay in relays]
        servers: list[Server] = []
        for name, port, address in zip("ab", listen, addresses, strict=True):
            settings = {**SETTINGS, "listen": f"127.0.0.1:{port}", "advertise": address}
            seeds = [other for other in addresses if other != address]
            node = Node(name, directory / name, {**settings, "seeds": seeds})
            node.address = address
            servers.append(Server(node, module, kind, workers))
            stack.callback(servers[-1].stop)
            stack.callback(node.release)
        for server in servers:
            server.wait_ready(probe)
        site = Site(servers, relays)
        await_linked(site.nodes, 30.0)
        yield site
