"""A link that is slow carries everything: what takes long to arrive is not taken for silence."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.integration.cluster import Cluster, Node, await_linked, eventually

pytestmark = pytest.mark.integration

SLOW = 100_000
"""Bytes a second each way: a frame takes longer than the silence after which a link is doubted."""


class SlowProxy:
    """Stands before a node and passes on so many bytes a second in each direction."""

    def __init__(self, node: Node) -> None:
        self._target = node.address
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)  # little waits on the way
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self._sockets = [self._listening]
        node.settings["advertise"] = node.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._run(self._accept)

    def close(self) -> None:
        """End all connections."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        host, _, port = self._target.rpartition(":")
        while True:
            near, _ = self._listening.accept()
            far = socket.socket()
            self._sockets += [near, far]
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            far.connect((host, int(port)))
            self._run(lambda near=near, far=far: self._pass(near, far))
            self._run(lambda near=near, far=far: self._pass(far, near))

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        due = time.monotonic()
        while data := source.recv(2048):
            due = max(due, time.monotonic()) + len(data) / SLOW
            time.sleep(max(0.0, due - time.monotonic()))
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)

    def _run(self, act: Callable[[], None]) -> None:
        def run() -> None:
            with contextlib.suppress(OSError):
                act()

        threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def proxies() -> Iterator[list[SlowProxy]]:
    """Return a list; the proxies put into it end after the test."""
    proxies: list[SlowProxy] = []
    yield proxies
    for proxy in proxies:
        proxy.close()


def test_a_join_over_a_slow_link_ends(cluster: Cluster, proxies: list[SlowProxy]) -> None:
    """Sessions of some kB and one of 300 kB come over one link, while commits flow; no clock seems off.

    The link that came up first stays: a comparison that began anew would never end.
    """
    first = cluster.add(max_clock_drift="5s")
    proxies.append(SlowProxy(first))
    first.start()
    for number in range(40):
        first.store.put(f"s{number}", "k", b"x" * 5_000)
    for key in ("one", "other"):
        first.store.put("great", key, b"x" * 150_000)
    second = cluster.add(seeds=[first], max_clock_drift="5s")
    proxies.append(SlowProxy(second))
    second.start()
    begun = time.monotonic()
    eventually(lambda: second.store.num_local_sessions() == 41, 12)
    assert time.monotonic() - begun > 3, "the link is not slow"
    await_linked([first, second])
    second.store.put("s0", "back", "and forth")
    eventually(lambda: first.store.get_data("s0", local=True).get("back"), 5)
    for node in (first, second):
        assert not node.logged("link ", "closed"), node.log()
        assert not node.logged("clock"), node.log()
