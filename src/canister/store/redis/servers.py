"""Which server takes the writes of a session: one, the one sentinels name, or one of a cluster."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ConnectionError, MovedError, RedisError, ResponseError

from canister.store.redis.deadline import Deadline
from canister.store.redis.links import ROLE, Pool, is_passing
from canister.store.redis.secure import Secure
from canister.store.redis.url import Address, RedisUrl, Topology, show
from canister.store.redis.wire import Access


class Server(NamedTuple):
    """A server as an operator sees it: where it listens, and what it is."""

    address: str
    state: str


class Spread(NamedTuple):
    """Where the keys are: on which masters, and if they share them who has which hash slot."""

    masters: list[Pool]
    slots: Mapping[int, Address]


class Servers(Protocol):
    """The servers of one URL."""

    def pool_of(self, key: bytes, deadline: Deadline) -> Pool:
        """Return the connections to the server that takes writes of *key*."""
        ...

    def spread(self, deadline: Deadline) -> Spread:
        """Return which servers take writes, and of what."""
        ...

    def look_again(self, error: RedisError, asked: Pool | None = None) -> Pool | None:
        """Note that what was believed may be wrong; return where the error says to ask, this once.

        Args:
            error: what came of the last attempt.
            asked: who replied with it, if it is a reply.
        """
        ...

    def listed(self, deadline: Deadline) -> list[Server]:
        """Return all servers that are known, masters first."""
        ...

    def together(self, keys: Sequence[bytes]) -> bool:
        """Tell whether one script can write all of *keys*."""
        ...

    def close(self) -> None:
        """Close all connections that nobody uses."""
        ...


class _Pools:
    """A pool for each server ever heard of."""

    def __init__(self, make: Callable[[Address], Pool]) -> None:
        self._make = make
        self._known: dict[Address, Pool] = {}

    def at(self, address: Address) -> Pool:
        pool = self._known.get(address)
        # Of two threads that make one at once the first one's stays.
        return pool or self._known.setdefault(address, self._make(address))

    def close(self) -> None:
        for pool in list(self._known.values()):
            pool.close()


class SingleServer:
    """One server, whatever replicates it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def pool_of(self, key: bytes, deadline: Deadline) -> Pool:
        """Return the connections to the server."""
        return self._pool

    def spread(self, deadline: Deadline) -> Spread:
        """Return the server, which has all keys."""
        return Spread([self._pool], {})

    def look_again(self, error: RedisError, asked: Pool | None = None) -> Pool | None:
        """Do nothing: there is no other server to turn to."""
        return None

    def listed(self, deadline: Deadline) -> list[Server]:
        """Return the server and the replicas it has now."""
        return _with_replicas(self._pool, deadline)

    def together(self, keys: Sequence[bytes]) -> bool:
        """Tell that one script can write all of *keys*."""
        return True

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._pool.close()


class SentinelServers:
    """The server that a group of sentinels calls the master of a service.

    Args:
        service: the name by which they know it.
        sentinels: connections to each of them.
        make: makes the connections to a server.
    """

    def __init__(self, service: str, sentinels: Sequence[Pool], make: Callable[[Address], Pool]) -> None:
        self._service = service
        self._sentinels = list(sentinels)
        self._pools = _Pools(make)
        self._master: Address | None = None

    def pool_of(self, key: bytes, deadline: Deadline) -> Pool:
        """Return the connections to the present master."""
        master = self._master
        if master is None:
            self._master = master = self._ask(deadline)
        return self._pools.at(master)

    def spread(self, deadline: Deadline) -> Spread:
        """Return the present master, which has all keys."""
        return Spread([self.pool_of(b"", deadline)], {})

    def look_again(self, error: RedisError, asked: Pool | None = None) -> Pool | None:
        """Ask the sentinels before the next attempt."""
        self._master = None
        return None

    def listed(self, deadline: Deadline) -> list[Server]:
        """Return the master and the replicas it has now."""
        return _with_replicas(self.pool_of(b"", deadline), deadline)

    def together(self, keys: Sequence[bytes]) -> bool:
        """Tell that one script can write all of *keys*."""
        return True

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._pools.close()
        for sentinel in self._sentinels:
            sentinel.close()

    def _ask(self, deadline: Deadline) -> Address:
        asked = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._service)
        for number, sentinel in enumerate(list(self._sentinels)):
            # One that hangs must not use up the others' time.
            share = deadline.share(len(self._sentinels) - number)
            try:
                (reply,) = sentinel.exchange([asked], share)
            except ConnectionError:
                continue
            except RedisError as error:
                if not is_passing(error):
                    raise
                continue
            if isinstance(reply, ResponseError):
                raise reply
            if reply:
                self._sentinels.sort(key=lambda one: one is not sentinel)
                return reply[0].decode(), int(reply[1])
        places = ", ".join(show(sentinel.address) for sentinel in self._sentinels)
        raise ConnectionError(f"no sentinel of {places} knows a master of {self._service!r}")


class ClusterServers:
    """The masters of a cluster, each with its share of the hash slots.

    Args:
        seeds: nodes to ask first.
        make: makes the connections to a node.
    """

    def __init__(self, seeds: Sequence[Address], make: Callable[[Address], Pool]) -> None:
        self._seeds = list(seeds)
        self._pools = _Pools(make)
        self._slots: dict[int, Address] = {}
        self._nodes: list[Server] = []

    def pool_of(self, key: bytes, deadline: Deadline) -> Pool:
        """Return the connections to the master of the key's slot."""
        slot = key_slot(key)
        address = (self._slots or self._ask(deadline)).get(slot)
        if address is None:
            self._slots = {}
            raise ConnectionError(f"no node of the cluster serves slot {slot}")
        return self._pools.at(address)

    def spread(self, deadline: Deadline) -> Spread:
        """Return the masters, as a node knows them now: of one that was added no key tells."""
        slots = self._ask(deadline)
        return Spread([self._pools.at(address) for address in dict.fromkeys(slots.values())], slots)

    def look_again(self, error: RedisError, asked: Pool | None = None) -> Pool | None:
        """Follow a redirection; after anything else ask for the slots before the next attempt."""
        if isinstance(error, MovedError) and asked is not None:
            self._slots = {**self._slots, error.slot_id: _target(error, asked)}
            return None
        if isinstance(error, AskError) and asked is not None:
            return self._pools.at(_target(error, asked))
        self._slots = {}
        return None

    def listed(self, deadline: Deadline) -> list[Server]:
        """Return the masters and their replicas."""
        self._ask(deadline)
        return self._nodes

    def together(self, keys: Sequence[bytes]) -> bool:
        """Tell whether one script can write all of *keys*: only one slot's."""
        return len({key_slot(key) for key in keys}) == 1

    def close(self) -> None:
        """Close all connections that nobody uses."""
        self._pools.close()

    def _ask(self, deadline: Deadline) -> dict[int, Address]:
        """Return the master of each slot, as any node knows it that knows all, else the one that knows most.

        A node that was reset, or has not met the others yet, knows none.
        """
        best: tuple[Any, Address] | None = None
        known = [*dict.fromkeys(self._slots.values()), *self._seeds]
        candidates = list(dict.fromkeys(known))
        random.shuffle(candidates)
        for number, address in enumerate(candidates):
            share = deadline.share(len(candidates) - number)
            try:
                (reply,) = self._pools.at(address).exchange([(b"CLUSTER", b"SLOTS")], share)
            except RedisError as error:
                if not is_passing(error):
                    raise
                continue
            if isinstance(reply, ResponseError):
                raise reply
            if best is None or _covered(reply) > _covered(best[0]):
                best = reply, address
            if _covered(reply) == REDIS_CLUSTER_HASH_SLOTS:
                break
        if best is not None and best[0]:
            return self._take(*best)
        raise ConnectionError(f"no node knows the cluster: {', '.join(map(show, candidates))}")

    def _take(self, reply: Any, asked: Address) -> dict[int, Address]:
        slots: dict[int, Address] = {}
        masters: dict[Server, None] = {}
        replicas: dict[Server, None] = {}
        for first, last, *nodes in reply:
            places = [(_host((host or b"").decode(), asked), int(port)) for host, port, *_ in nodes]
            slots.update(dict.fromkeys(range(first, last + 1), places[0]))
            masters[Server(show(places[0]), "master")] = None
            replicas.update(dict.fromkeys(Server(show(place), "replica") for place in places[1:]))
            self._seeds = list(dict.fromkeys([*self._seeds, *places]))
        self._slots = slots
        self._nodes = [*masters, *replicas]
        return slots


def _covered(slots: Any) -> int:
    """Return how many slots a reply to CLUSTER SLOTS has a master for."""
    return sum(last - first + 1 for first, last, *_ in slots)


def _target(error: AskError, asked: Pool) -> Address:
    """Return where a redirection points to."""
    found = cast("Any", error)
    return _host(str(found.host), asked.address), int(found.port)


def _host(named: str, asked: Address) -> str:
    """Return the host of a node as another one names it: if that does not know it, its own is meant."""
    return asked[0] if named in ("", "?") else named


def open_servers(url: RedisUrl) -> Servers:
    """Return the servers that a URL names; nothing is connected yet.

    Raises:
        ConfigError: a file for TLS is none.
    """
    secure = Secure(url.files) if url.tls else None
    access = Access(url.login, secure, url.database)

    def make(address: Address) -> Pool:
        return Pool(address, access, only_master=url.topology is not Topology.CLUSTER)

    if url.topology is Topology.CLUSTER:
        return ClusterServers(url.addresses, make)
    if url.topology is Topology.SENTINEL:
        sentinels = [Pool(address, Access(url.sentinel_login, secure)) for address in url.addresses]
        return SentinelServers(url.service, sentinels, make)
    return SingleServer(make(url.addresses[0]))


def _with_replicas(pool: Pool, deadline: Deadline) -> list[Server]:
    ((_, _, replicas),) = pool.exchange([ROLE], deadline)
    found = [Server(show((host.decode(), int(port))), "replica") for host, port, _ in replicas]
    return [Server(show(pool.address), "master"), *found]
