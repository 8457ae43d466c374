"""What a site needs on the mesh and on a Redis Cluster: a small model, and what was measured for it."""

from collections.abc import Mapping
from math import ceil
from typing import Literal, NamedTuple

from canister.replication.messages import MOST_MEMBERS

Engine = Literal["mesh", "redis"]


class Constant(NamedTuple):
    """A measured number, its unit, and the part of ``python -m benchmarks.limits`` that measured it."""

    value: float
    unit: str
    only: Literal["mesh", "simulated", "redis"]


MEASURED: Mapping[str, Constant] = {
    "mesh.memory": Constant(37, "MB, an agent", "mesh"),
    "mesh.memory.link": Constant(0.7, "MB of an agent, each other node", "mesh"),
    "mesh.memory.session": Constant(27, "bytes of an agent, a session", "mesh"),
    "mesh.disk": Constant(6.3, "MB, a node without sessions", "mesh"),
    "mesh.disk.row": Constant(170, "bytes, a session in its page without its value", "mesh"),
    "mesh.disk.index": Constant(20, "bytes, a session in the index", "mesh"),
    "mesh.disk.filled": Constant(0.88, "the part of the pages that holds rows", "mesh"),
    "mesh.disk.long": Constant(800, "bytes, a session without its value where that fills pages", "mesh"),
    "mesh.join.session": Constant(15, "us, a session that a new node takes over", "mesh"),
    "mesh.write.process": Constant(300, "us, the process that writes", "mesh"),
    "mesh.write.agent": Constant(180, "us, the agent of its node", "mesh"),
    "mesh.write.apply": Constant(230, "us, each other agent", "mesh"),
    "mesh.write.network": Constant(94, "bytes to each other node, without the value", "simulated"),
    "mesh.idle.link": Constant(480, "bytes/s in and out, each other node", "simulated"),
    "mesh.idle.member": Constant(14.5, "bytes/s in and out, each other node and member", "simulated"),
    "mesh.idle.processor": Constant(2.7, "ms/s, an agent", "mesh"),
    "mesh.idle.processor.link": Constant(0.45, "ms/s of an agent, each other node", "mesh"),
    "redis.memory": Constant(13, "MB, a server", "redis"),
    "redis.memory.session": Constant(496, "bytes of a server, a session without its value", "redis"),
    "redis.memory.value": Constant(1.3, "bytes of a server, a byte of value", "redis"),
    "redis.disk.session": Constant(163, "bytes of a server, a session without its value", "redis"),
    "redis.disk.value": Constant(1.0, "bytes of a server, a byte of value", "redis"),
    "redis.write.process": Constant(315, "us, the process that writes", "redis"),
    "redis.write.servers": Constant(185, "us, master and replica together", "redis"),
    "redis.write.network": Constant(748, "bytes in and out of the process, without the value", "redis"),
    "redis.write.servers.network": Constant(1350, "bytes in and out of both, without the value", "redis"),
    "redis.idle.server": Constant(8900, "bytes/s in and out, a server", "redis"),
}
"""Everything the model knows; `docs/explanation/limits.md` tells on what machine it was measured."""

# Where the mesh is no longer the better choice. Judgement, beside what was measured.
MOST_NODES = 30
"""Nodes from which on that a session server pays: all pairs are linked, and each node holds everything."""
MOST_BUSY = 0.5
"""Of a core, for an agent or a server: each is one thread, and has to make up for what it missed too."""
LONGEST_JOIN = 900.0
"""Seconds a new node may take until it serves as the others do."""
MOST_DISK = 16e9
"""Bytes of a node: as long as they fit the page cache of a usual host, reads take microseconds."""
MOST_NETWORK = 12.5e6
"""Bytes a second of a node, in and out: a tenth of a link of a gigabit."""
MOST_MEMORY = 16e9
"""Bytes of one Redis server: more takes long to copy to a new replica."""
_PAGE = 4084
"""Bytes of rows that a page of SQLite holds; what is longer goes into pages of its own."""
MASTERS = 3
"""The least a Redis Cluster has; each has one replica."""


class Site(NamedTuple):
    """What is planned for."""

    nodes: int
    sessions: int
    writes_per_second: float
    value_size: int


class Share(NamedTuple):
    """What one machine gives: bytes, bytes a second in and out, and cores."""

    memory: float
    disk: float
    network: float
    processor: float


class MeshPlan(NamedTuple):
    """The mesh: each node, of which *agent* cores are its agent's, and how long a new one takes."""

    node: Share
    agent: float
    join: float


class RedisPlan(NamedTuple):
    """A Redis Cluster: each of its servers, a master or a replica, and each application node."""

    masters: int
    server: Share
    node: Share


class Advice(NamedTuple):
    """Which engine to choose, and why."""

    choice: Engine
    reasons: list[str]


def plan_mesh(site: Site) -> MeshPlan:
    """Return what the mesh takes."""
    others = site.nodes - 1
    own = site.writes_per_second / site.nodes
    received = own * others
    frame = _of("mesh.write.network") + site.value_size
    idle = others * (_of("mesh.idle.link") + _of("mesh.idle.member") * site.nodes)
    agent = (own * _of("mesh.write.agent") + received * _of("mesh.write.apply")) / 1e6
    agent += (_of("mesh.idle.processor") + _of("mesh.idle.processor.link") * others) / 1e3
    node = Share(
        memory=(_of("mesh.memory") + _of("mesh.memory.link") * others) * 1e6
        + _of("mesh.memory.session") * site.sessions,
        disk=_of("mesh.disk") * 1e6 + _row(site.value_size) * site.sessions,
        network=2 * received * frame + idle,
        processor=agent + own * _of("mesh.write.process") / 1e6,
    )
    return MeshPlan(node, agent, _of("mesh.join.session") * site.sessions / 1e6)


def plan_redis(site: Site) -> RedisPlan:
    """Return what a Redis Cluster takes, with as many masters as the site needs."""
    session = _of("redis.memory.session") + _of("redis.memory.value") * site.value_size
    busy = site.writes_per_second * _of("redis.write.servers") / 1e6
    masters = max(MASTERS, ceil(session * site.sessions / MOST_MEMORY), ceil(busy / MOST_BUSY))
    disk = _of("redis.disk.session") + _of("redis.disk.value") * site.value_size
    # A value comes to the master, goes on to the replica, and comes there: three times in all.
    network = _of("redis.write.servers.network") + 3 * site.value_size
    server = Share(
        memory=_of("redis.memory") * 1e6 + session * site.sessions / masters,
        disk=disk * site.sessions / masters,
        network=_of("redis.idle.server") + network * site.writes_per_second / masters / 2,
        processor=busy / masters,
    )
    own = site.writes_per_second / site.nodes
    node = Share(
        memory=0,
        disk=0,
        network=own * (_of("redis.write.network") + site.value_size),
        processor=own * _of("redis.write.process") / 1e6,
    )
    return RedisPlan(masters, server, node)


def advise(site: Site) -> Advice:
    """Return which engine to choose, and why."""
    mesh = plan_mesh(site)
    reasons: list[str] = []
    if site.nodes > MOST_MEMBERS:
        reasons.append(f"a mesh has {MOST_MEMBERS} members at most")
    elif site.nodes > MOST_NODES:
        reasons.append(f"{site.nodes} nodes are more than {MOST_NODES}, and all pairs of a mesh are linked")
    if mesh.agent > MOST_BUSY:
        reasons.append(f"an agent would take {mesh.agent:.2f} of a core, more than {MOST_BUSY}")
    if mesh.join > LONGEST_JOIN:
        reasons.append(f"a new node would take {mesh.join / 60:.0f} minutes to join")
    if mesh.node.disk > MOST_DISK:
        reasons.append(
            f"each node would hold {mesh.node.disk / 1e9:.0f} GB, more than fits a usual page cache"
        )
    if mesh.node.network > MOST_NETWORK:
        reasons.append(f"each node would send and receive {mesh.node.network / 1e6:.0f} MB/s")
    if reasons:
        return Advice("redis", reasons)
    return Advice("mesh", ["it is within every limit, reads stay local, and there is no server to run"])


def _row(value_size: int) -> float:
    """Return the bytes of disk of a session: a page holds whole rows, others most of a long value."""
    in_page = int(_PAGE // (_of("mesh.disk.row") + value_size))
    if in_page == 0:
        return _of("mesh.disk.long") + value_size
    # A page with one row is never split.
    filled = _of("mesh.disk.filled") if in_page > 1 else 1
    return _of("mesh.disk.index") + _PAGE / in_page / filled


def _of(name: str) -> float:
    return MEASURED[name].value
