"""Going through all keys of all masters, page by page.

A cursor means something to the process that gave it, and as long as that has the same data: another one, or
one that has been a replica meanwhile, takes it and leaves out keys. So each page says whose it is, and where
that has changed everything is gone through anew.
"""

from collections.abc import Iterator
from typing import NamedTuple

from redis.exceptions import ReadOnlyError

from canister.errors import StoreUnavailableError
from canister.store.redis.asking import run_on, spread_of
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command
from canister.store.redis.links import Pool, explain
from canister.store.redis.servers import Servers, Spread
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


def walk(servers: Servers, pattern: bytes, patience: float, position: bytes = b"") -> Iterator[Found]:
    """Yield all keys like *pattern*, going on after *position*.

    What fails is tried again for *patience* seconds.

    Raises:
        StoreError: a server cannot be asked.
    """
    before: Spread | None = None
    patient: Deadline | None = None
    while True:
        try:
            spread = spread_of(servers, Deadline(patience))
            before = before or spread
            for found in _walk_all(servers, spread, pattern, patience, position):
                position, patient = found.position, None
                yield found
            # A slot that has moved was maybe in neither of its masters when that was gone through.
            if spread_of(servers, Deadline(patience)).slots != before.slots:
                raise _Changed
        except _Changed:
            before, position = None, b""
            yield Found(position, 0.0, [], anew=True)
        except StoreUnavailableError:
            patient = patient or Deadline(patience)
            if not patient.pause():
                raise
        else:
            return


def info(reply: bytes, name: str) -> str | None:
    """Return a field of a reply to INFO."""
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return next((value for found, _, value in lines if found == name), None)


def _walk_all(
    servers: Servers, spread: Spread, pattern: bytes, patience: float, position: bytes
) -> Iterator[Found]:
    pools = {show(pool.address).encode(): pool for pool in spread.masters}
    place, life, passed = (*position.split(b" "), b"", b"")[:3]
    if place and place not in pools:  # nothing is known of how far it was
        raise _Changed
    for number, name in enumerate(sorted(pools)):
        if name < place or (name == place and passed == b"0"):
            continue
        begin = (life, passed) if name == place else (b"", b"0")
        for where, share, keys in _walk_one(servers, pools[name], pattern, patience, *begin):
            yield Found(name + b" " + where, (number + share) / len(pools), keys)


def _walk_one(
    servers: Servers, pool: Pool, pattern: bytes, patience: float, life: bytes, cursor: bytes
) -> Iterator[tuple[bytes, float, list[bytes]]]:
    """Yield the rest of a server's keys: the cursor and whose it is, which share is passed, some keys."""
    (size,) = run_on(servers, pool, [(b"DBSIZE",)], Deadline(patience))
    scan = (b"MATCH", pattern, b"COUNT", PAGE)
    while True:
        # Down one connection, so the first two speak of the server that answers the third.
        asked: list[Command] = [(b"INFO", b"server"), (b"INFO", b"replication"), (b"SCAN", cursor, *scan)]
        server, replication, (cursor, keys) = run_on(servers, pool, asked, Deadline(patience))
        if info(replication, "role") != "master":
            pool.close()  # its name may lead to another one by now
            demoted = ReadOnlyError("it is a replica now")
            servers.look_again(demoted)
            raise explain(demoted, pool.address)
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
