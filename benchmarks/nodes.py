"""Clusters of real nodes: each has a process that runs its agent, and as many beside it as are asked for."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.redis_server import free_port
from benchmarks.side import Side

_PATIENCE = 300.0
"""Seconds after which what does not come is given up."""


class Node:
    """A data directory, its address, and the process that runs its agent."""

    def __init__(self, bench: Bench, seeds: Sequence["Node"] = (), **settings: Any) -> None:
        self.path: Path = bench.fresh("node")
        self.address = f"127.0.0.1:{free_port()}"
        self._bench = bench
        self._settings = {"listen": self.address, "seeds": [seed.address for seed in seeds], **settings}
        self.agent = self.start()

    def start(self) -> Side:
        """Start the process that runs the agent."""
        self.agent = self._bench.canister(self.path, sessions=0, **self._settings)
        return self.agent

    def worker(self, sessions: int = 0) -> Side:
        """Start a process of the node beside its agent."""
        return self._bench.canister(self.path, sessions=sessions, agent=False, **self._settings)


def cluster(bench: Bench, count: int) -> list[Node]:
    """Start nodes and wait until every one has compared itself with every other one."""
    nodes: list[Node] = []
    for _ in range(count):
        nodes.append(Node(bench, nodes[:1]))
    for node in nodes:
        wait_for(lambda node=node: node.agent.do("is_linked", peers=count - 1))
    return nodes


def await_equal(nodes: Sequence[Node]) -> float:
    """Wait until all nodes print the same digest; return the seconds it took."""

    def equal() -> bool:
        at = time.time_ns() // 1000
        return len({node.agent.do("digest", at=at) for node in nodes}) == 1

    return wait_for(equal)


def wait_for(condition: Callable[[], bool]) -> float:
    """Wait until something is so; return the seconds it took.

    Raises:
        TimeoutError: it did not come.
    """
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > _PATIENCE:
            raise TimeoutError(f"not within {_PATIENCE} s")
        time.sleep(0.005)
    return time.monotonic() - begun
