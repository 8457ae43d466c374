"""Going through all keys of all masters, page by page.

A cursor means something to the process that gave it, and as long as that has the same data: another one, or
one that has been a replica meanwhile, takes it and leaves out keys. So each page says whose it is, and where
that has changed everything is gone through anew.
"""

from collections.abc import Iterator
from typing import NamedTuple

from redis.exceptions import ConnectionError

from canister.errors import StoreUnavailableError
from canister.store.redis.asking import masters_of, run_on
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command
from canister.store.redis.links import Pool
from canister.store.redis.servers import Servers
from canister.store.redis.url import show

PAGE = 100
"""How many keys are asked for at once."""


class Found(NamedTuple):
    """Some keys: where to go on after them, which share is passed, whether all come anew from here on."""

    position: bytes
    share: float
    keys: list[bytes]
    anew: bool = False


class _Changed(Exception):
    """A server is not the one that gave the cursor."""


class _Demoted(_Changed):
    """A server is no master any more."""


def walk(servers: Servers, pattern: bytes, patience: float, position: bytes = b"") -> Iterator[Found]:
    """Yield all keys like *pattern*, going on after *position*; each question may take *patience* seconds.

    Raises:
        StoreError: a server cannot be asked.
    """
    patient: Deadline | None = None
    while True:
        try:
            yield from _walk_all(servers, pattern, patience, position)
        except _Changed as change:
            if isinstance(change, _Demoted):
                servers.look_again(ConnectionError(str(change)))
                patient = patient or Deadline(patience)
                if not patient.pause():
                    raise StoreUnavailableError(f"{change}; try again") from change
            position = b""
            yield Found(position, 0.0, [], anew=True)
        else:
            return


def info(reply: bytes, name: str) -> str | None:
    """Return a field of a reply to INFO."""
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return next((value for found, _, value in lines if found == name), None)


def _walk_all(servers: Servers, pattern: bytes, patience: float, position: bytes) -> Iterator[Found]:
    pools = {show(pool.address).encode(): pool for pool in masters_of(servers, Deadline(patience))}
    place, life, passed = (*position.split(b" "), b"", b"")[:3]
    if place not in pools:  # nothing is known of how far it was
        place = b""
    for number, name in enumerate(sorted(pools)):
        if name < place or (name == place and passed == b"0"):
            continue
        begin = (life, passed) if name == place else (b"", b"0")
        for where, share, keys in _walk_one(pools[name], pattern, patience, *begin):
            yield Found(name + b" " + where, (number + share) / len(pools), keys)


def _walk_one(
    pool: Pool, pattern: bytes, patience: float, life: bytes, cursor: bytes
) -> Iterator[tuple[bytes, float, list[bytes]]]:
    """Yield the rest of a server's keys: the cursor and whose it is, which share is passed, some keys."""
    (size,) = run_on(pool, [(b"DBSIZE",)], Deadline(patience))
    scan = (b"MATCH", pattern, b"COUNT", PAGE)
    while True:
        # Down one connection, so the first two speak of the server that answers the third.
        asked: list[Command] = [(b"INFO", b"server"), (b"INFO", b"replication"), (b"SCAN", cursor, *scan)]
        server, replication, (cursor, keys) = run_on(pool, asked, Deadline(patience))
        if info(replication, "role") != "master":
            pool.close()  # its name may lead to another one by now
            raise _Demoted(f"Redis at {show(pool.address)} is a replica now")
        found = f"{info(server, 'run_id')}.{info(replication, 'master_replid')}".encode()
        if found != life:
            if life:
                raise _Changed
            life = found
        yield life + b" " + cursor, _passed(int(cursor), size), list(dict.fromkeys(keys))
        if cursor == b"0":
            return


def _passed(cursor: int, size: int) -> float:
    """Return which share of *size* keys a scan has passed: its cursor counts from the highest bit down."""
    bits = max(size.bit_length(), cursor.bit_length(), 1)
    return int(f"{cursor:0{bits}b}"[::-1], 2) / 2**bits if cursor else 1.0
