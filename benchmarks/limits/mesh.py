"""The mesh, as far as one machine goes: real nodes on the loopback."""

import time
from collections.abc import Collection, Sequence

from benchmarks.bench import Bench
from benchmarks.limits.points import VALUE, Point
from benchmarks.limits.processes import Used, moved, seconds, used
from benchmarks.nodes import Node, await_equal, cluster, wait_for
from benchmarks.side import Side

_RATE = 200
"""Writes a second where their cost is measured: one by one, as in a site that is not busy."""
_SESSIONS = 500
"""Sessions that a writer changes in turn."""
_TRIMMED = 8.0
"""Seconds until the agent has dropped what the log holds for peers and moved it all into the database."""
_MOST_JOINED = 20_000
"""Sessions up to which a join is measured; it is linear, and `make bench ONLY=join` has more."""
LONG_VALUE = 1000


def by_nodes(bench: Bench, count: int, window: float, writes: int) -> list[Point]:
    """Measure a cluster: idle, at a low rate from one node, and at full speed from all."""
    nodes = cluster(bench, count)
    writers = [node.worker(_SESSIONS + number) for number, node in enumerate(nodes)]
    for writer in writers:
        writer.do("fill")
    await_equal(nodes)
    idle, points = _idle(nodes, window)
    points += _paced(nodes, writers[0], idle, writes)
    points += _full(nodes, writers, writes)
    for side in (*writers, *(node.agent for node in nodes)):
        side.close()
    return points


def by_sessions(bench: Bench, sessions: int, size: int = VALUE) -> list[Point]:
    """Measure a node that holds so many sessions, and another one that joins it."""
    node = Node(bench)
    writer = node.worker()
    writer.do("fill", prefix="ffffffff", count=sessions, size=size)
    writer.close()
    time.sleep(_TRIMMED)
    points = [Point("mesh", "memory", "MB", node.agent.memory(), 1, sessions, size)]
    node.agent.close()
    disk = sum(file.stat().st_size for file in node.path.iterdir() if file.is_file())
    points.append(Point("mesh", "disk", "MB", disk / 1e6, 1, sessions, size))
    if sessions <= _MOST_JOINED:
        points += _join(bench, node, sessions, size)
    return points


def _join(bench: Bench, node: Node, sessions: int, size: int) -> list[Point]:
    node.start()
    second = Node(bench, [node])
    look = Look([node.agent, second.agent])
    wait_for(lambda: second.agent.do("is_linked", peers=1))
    await_equal([node, second])
    look.end()
    points = [
        Point("mesh", "join", "s", look.elapsed, 2, sessions, size),
        Point(
            "mesh", "join, processor of the new node", "s", look.seconds([second.agent]), 2, sessions, size
        ),
        Point("mesh", "join, processor of its peer", "s", look.seconds([node.agent]), 2, sessions, size),
        Point("mesh", "memory at a join", "MB", second.agent.memory(), 2, sessions, size),
    ]
    for side in (node.agent, second.agent):
        side.close()
    return points


class Look:
    """What some processes use from now on."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._pids = [side.pid for side in sides]
        self._begun = time.monotonic()
        self._before = used(self._pids)
        self._after: dict[int, Used] = {}
        self.elapsed = 0.0

    def end(self) -> None:
        self._after = used(self._pids)
        self.elapsed = time.monotonic() - self._begun

    def seconds(self, sides: Collection[Side]) -> float:
        return seconds(self._before, self._after, [side.pid for side in sides])

    def moved(self, sides: Collection[Side]) -> int:
        return moved(self._before, self._after, [side.pid for side in sides])


class _Idle:
    """What a node uses a second when nothing happens."""

    def __init__(self, look: Look, agents: Sequence[Side]) -> None:
        self.seconds = look.seconds(agents) / look.elapsed / len(agents)
        self.bytes = look.moved(agents) / look.elapsed / len(agents)


def _idle(nodes: Sequence[Node], window: float) -> tuple[_Idle, list[Point]]:
    agents = [node.agent for node in nodes]
    look = Look(agents)
    time.sleep(window)
    look.end()
    idle = _Idle(look, agents)
    count = len(nodes)
    return idle, [
        Point("mesh", "idle, network of a node", "B/s", idle.bytes, count),
        Point("mesh", "idle, processor of a node", "ms/s", idle.seconds * 1000, count),
        Point("mesh", "memory by nodes", "MB", max(agent.memory() for agent in agents), count),
    ]


def _paced(nodes: Sequence[Node], writer: Side, idle: _Idle, writes: int) -> list[Point]:
    agents = [node.agent for node in nodes]
    look = Look([writer, *agents])
    writer.do("put_paced", count=writes, rate=_RATE)
    await_equal(nodes)
    look.end()
    own, others, count = agents[:1], agents[1:], len(nodes)
    idle_seconds = idle.seconds * look.elapsed
    points = [
        Point("mesh", "a write, its process", "us", look.seconds([writer]) / writes * 1e6, count),
        Point("mesh", "a write, its agent", "us", (look.seconds(own) - idle_seconds) / writes * 1e6, count),
    ]
    if others:
        applied = look.seconds(others) / len(others) - idle_seconds
        # Each byte is sent once and received once.
        sent = (look.moved(agents) - idle.bytes * look.elapsed * count) / 2 / len(others)
        points += [
            Point("mesh", "a write, each other agent", "us", applied / writes * 1e6, count),
            Point("mesh", "a write, network to each other node", "B", sent / writes, count),
        ]
    return points


def _full(nodes: Sequence[Node], writers: Sequence[Side], writes: int) -> list[Point]:
    sides = [*writers, *(node.agent for node in nodes)]
    each = writes // len(writers)
    look = Look(sides)
    for writer in writers:
        writer.begin("put", count=each)
    for writer in writers:
        writer.end()
    await_equal(nodes)
    look.end()
    total, count = each * len(writers), len(nodes)
    return [
        Point("mesh", "writes at full speed", "1/s", total / look.elapsed, count),
        Point("mesh", "a write at full speed, all nodes", "us", look.seconds(sides) / total * 1e6, count),
    ]
