"""A web site whose sessions move: hosts with several processes each, and clients that go on all the while.

A `Site` has its processes replaced one after the other, as a deployment does. Its `Client`s send every
request to any process that runs, and know what their sessions must hold: whatever else is shown, and every
error but "this node cannot tell", is written down as a failure.
"""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.cluster import SETTINGS, Process, WorkerError, eventually, free_port

WORKER = Path(__file__).with_name("moving_worker.py")
ROOT = Path(__file__).parents[2]
SPREADING = 6.0
"""Seconds after which every node of a mesh has heard of a log-out, one that has just been started too."""
WORKERS = 2
"""Processes on each host."""


class Host:
    """A machine: a data directory, an address, and processes."""

    def __init__(self, directory: Path, number: int, seeds: list[str], url: str) -> None:
        self.data = directory / f"host{number}"
        self.log = directory / f"host{number}.log"
        self.address = f"127.0.0.1:{free_port()}"
        self.mesh = {**SETTINGS, "listen": self.address, "seeds": seeds}
        self.url = url

    def start(self, place: str, migrate_to: str | None = None) -> Process:
        """Start a process; places are ``"mesh"`` and ``"redis"``."""
        places = {"mesh": str(self.data), "redis": self.url}
        settings: dict[str, Any] = (
            dict(self.mesh) if "mesh" in (place, migrate_to) else {"remote_timeout": "2s"}
        )
        if migrate_to is not None:
            settings["migrate_to"] = places[migrate_to]
        ours, theirs = socket.socketpair()
        job = {
            "place": places[place],
            "settings": settings,
            "log": str(self.log),
            "channels": [theirs.fileno()],
        }
        with self.log.with_suffix(".stderr").open("ab") as stderr:
            popen = subprocess.Popen(
                [sys.executable, "-W", "error", str(WORKER), json.dumps(job)],
                pass_fds=[theirs.fileno()],
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        theirs.close()
        process = Process(popen.pid, ours, popen)
        process.wait_ready()
        return process


class Seat:
    """A place for one process of a host; a request and a replacement take turns."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.lock = threading.Lock()
        self.process: Process | None = None

    def replace(self, place: str, migrate_to: str | None = None) -> None:
        """End the process there is, and start one with other settings."""
        with self.lock:
            if self.process is not None:
                self.process.terminate()
                self.process.close()
            self.process = self.host.start(place, migrate_to)


class Site:
    """All hosts, and what requests go through."""

    def __init__(self, directory: Path, url: str, hosts: int) -> None:
        self.hosts: list[Host] = []
        for number in range(hosts):
            seeds = [host.address for host in self.hosts[:1]]
            self.hosts.append(Host(directory, number, seeds, url))
        self.seats = [Seat(host) for host in self.hosts for _ in range(WORKERS)]

    def deploy(self, place: str, migrate_to: str | None = None) -> None:
        """Replace all processes, one after the other."""
        for seat in self.seats:
            seat.replace(place, migrate_to)

    def request(self, **arguments: Any) -> dict[str, Any]:
        """Send a request to any process; to another one where a node cannot tell."""
        end = time.monotonic() + 20
        while True:
            seat = random.choice(self.seats)
            if not seat.lock.acquire(blocking=False):
                time.sleep(0.001)
                continue
            try:
                assert seat.process is not None
                answer: dict[str, Any] = seat.process.do("request", **arguments)
                return answer
            except WorkerError as error:
                if error.kind != "CannotTellError" or time.monotonic() > end:
                    raise
            finally:
                seat.lock.release()

    def close(self) -> None:
        """End all processes."""
        for seat in self.seats:
            if seat.process is not None:
                seat.process.close()


class Client:
    """A browser: logs in, uses its session, logs out, and begins anew."""

    def __init__(self, site: Site, name: str) -> None:
        self._site = site
        self.name = name
        self.cookies: dict[str, str] = {}
        self.expected: dict[str, int] = {}
        self.count = 0
        self.logged_in = False
        self.ended: list[tuple[float, dict[str, str]]] = []
        """When each session was logged out, and its cookies."""
        self.requests = 0
        self.failures: list[str] = []

    def run(self, end: threading.Event) -> None:
        """Browse until *end*."""
        try:
            while not end.is_set() and not self.failures:
                self.step()
        except (WorkerError, AssertionError, OSError) as error:  # told by the test, not by this thread
            self.failures.append(repr(error))

    def step(self) -> None:
        """Send one request."""
        if not self.logged_in:
            self.send(login=self.name)
            self.logged_in = True
            return
        self.check()
        if random.random() < 0.1:
            cookies = dict(self.cookies)
            self.send(logout=True)
            self.ended.append((time.monotonic(), cookies))
            self.logged_in, self.expected, self.count = False, {}, 0
            self.check_ended()
        elif random.random() < 0.7:
            key = f"k{random.randrange(20)}"
            self.expected[key] = self.requests
            self.count += 1
            self.send(put=[key, self.requests])
        time.sleep(0.01)

    def check(self) -> None:
        """See that the session is as this client left it."""
        shown = self.send()
        wanted = {"user": self.name, "data": self.expected, "count": self.count}
        found = {name: shown[name] for name in wanted}
        if found != wanted:
            self.failures.append(f"{self.name} after {self.requests} requests: {found}, not {wanted}")

    def check_ended(self) -> None:
        """See that the sessions which were logged out, and of which all nodes have heard, are over."""
        now = time.monotonic()
        for since, cookies in self.ended:
            if now - since > SPREADING:
                shown = self._site.request(cookies=cookies)
                if shown["user"] is not None or shown["data"]:
                    self.failures.append(f"a session of {self.name}, logged out, is alive: {shown}")

    def send(self, **arguments: Any) -> dict[str, Any]:
        """Send a request with this client's cookies, and keep those that come."""
        shown = self._site.request(cookies=self.cookies, **arguments)
        self.requests += 1
        for cookie in shown["cookies"]:
            name, _, value = cookie.partition(";")[0].partition("=")
            if value and "Max-Age=0" not in cookie:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return shown


class Crowd:
    """Clients that browse at once."""

    def __init__(self, site: Site, count: int) -> None:
        self.clients = [Client(site, f"user{number}") for number in range(count)]
        self._end = threading.Event()
        self._threads = [threading.Thread(target=c.run, args=(self._end,)) for c in self.clients]

    def start(self) -> None:
        """Let them come."""
        for thread in self._threads:
            thread.start()

    def await_more(self, count: int = 3) -> None:
        """Wait until each has sent some more requests; fail as soon as one of them has a failure."""
        wanted = {client.name: client.requests + count for client in self.clients}
        eventually(
            lambda: self.failures() or all(c.requests >= wanted[c.name] for c in self.clients), 60, "requests"
        )
        if self.failures():
            raise AssertionError("\n".join(self.failures()))

    def stop(self) -> None:
        """Let them go."""
        self._end.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def failures(self) -> list[str]:
        """Return what went wrong."""
        return [failure for client in self.clients for failure in client.failures]


@contextlib.contextmanager
def running_site(directory: Path, url: str, hosts: int) -> Iterator[Site]:
    """Make a site; what runs on it ends with the block."""
    site = Site(directory, url, hosts)
    try:
        yield site
    finally:
        site.close()
