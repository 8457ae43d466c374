"""What the processes and the command know of each other: one hash on the servers, which all can reach.

::

    {cluster}:migration    a hash of
        step, source, target, to_servers    the move
        settled     the servers' time (ms) at which all had taken the step "switched"
        position    where the copy goes on
        copied      how many sessions it has carried over
        p:<name>    of each process: its step, until when (ms) it goes by that, its node in the mesh

A process goes by a step for as long as its lease, which it takes as it is told the step, in one script: so
whoever has set a step knows who may still go by the one before, and until when.
"""

import contextlib
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from canister.errors import CorruptDatabaseError
from canister.migration.marks import Mark, Step
from canister.store.redis.asking import run
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command
from canister.store.redis.servers import open_servers
from canister.store.redis.url import parse_url

_PROCESS = b"p:"

_REGISTER = b"""
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]
local step = redis.call('HGET', KEYS[1], 'step') or '0'
redis.call('HSET', KEYS[1], 'p:' .. ARGV[1], step .. ' ' .. string.format('%.0f', ends) .. ' ' .. ARGV[3])
return redis.call('HMGET', KEYS[1], 'source', 'target', 'to_servers', 'step')
"""


class Holder(NamedTuple):
    """A process: the step it goes by, until when (ms) it does, and its node in the mesh, in hex."""

    step: Step
    until: int
    node: str


class State(NamedTuple):
    """All that is on the board; *now* is the servers' time in ms."""

    mark: Mark | None
    now: int
    settled: int
    position: bytes
    copied: int
    holders: list[Holder]

    @property
    def step(self) -> Step:
        """The step in force."""
        return Step.NONE if self.mark is None else self.mark.step

    def behind(self, step: Step) -> int:
        """Return how many processes may still go by an earlier step."""
        return sum(holder.step < step and holder.until > self.now for holder in self.holders)


class Board:
    """The board of one cluster's sessions.

    Args:
        url: the servers.
        cluster: the cluster's name.
        patience: how long (seconds) a call may take.
    """

    def __init__(self, url: str, cluster: str, patience: float) -> None:
        self._servers = open_servers(parse_url(url))
        self._key = f"{quote(cluster, safe='')}:migration".encode()
        self._patience = patience

    def register(self, name: str, lease: float, node: bytes) -> Mark | None:
        """Take a lease on the step in force, and return the move; None if there is none.

        Args:
            name: the process.
            lease: for how many seconds it is going to go by the step.
            node: the process's node in the mesh.

        Raises:
            CorruptDatabaseError: what is on the board is no move that is known here.
        """
        words = (name, int(lease * 1000), node.hex())
        fields = self._ask((b"EVAL", _REGISTER, 1, self._key, *words))
        with _known(self._key):
            return _mark(fields)

    def read(self) -> State:
        """Return all that is on the board.

        Raises:
            CorruptDatabaseError: it is none that is known here.
        """
        found = self._ask((b"HGETALL", self._key))
        seconds, micros = self._ask((b"TIME",))
        fields: dict[bytes, bytes] = dict(zip(found[::2], found[1::2], strict=True))
        with _known(self._key):
            return State(
                _mark([fields.get(name) for name in (b"source", b"target", b"to_servers", b"step")]),
                int(seconds) * 1000 + int(micros) // 1000,
                int(fields.get(b"settled", 0)),
                fields.get(b"position", b""),
                int(fields.get(b"copied", 0)),
                [_holder(value) for name, value in fields.items() if name.startswith(_PROCESS)],
            )

    def write(self, fields: Mapping[str, str | int | bytes]) -> None:
        """Set fields."""
        self._ask((b"HSET", self._key, *(word for field in fields.items() for word in field)))

    def put_up(self, mark: Mark) -> None:
        """Set the move and its step."""
        self.write(
            {
                "source": mark.source,
                "target": mark.target,
                "to_servers": int(mark.to_servers),
                "step": int(mark.step),
            }
        )

    def wipe(self) -> None:
        """Forget the move and who takes part in it."""
        self._ask((b"DEL", self._key))

    def close(self) -> None:
        """Close all connections."""
        self._servers.close()

    def _ask(self, command: Command) -> Any:
        (reply,) = run(self._servers, self._key, [command], Deadline(self._patience))
        return reply


@contextlib.contextmanager
def _known(key: bytes) -> Generator[None]:
    """Say of what cannot be read where it is."""
    try:
        yield
    except ValueError as error:
        raise CorruptDatabaseError(
            f"{key.decode()} on the servers holds no move of sessions that this release knows ({error}); "
            "use the release that began it, or delete the key if there is none"
        ) from error


def _mark(fields: list[bytes | None]) -> Mark | None:
    source, target, to_servers, step = (field or b"" for field in fields)
    if not step:
        return None
    return Mark(source.decode(), target.decode(), to_servers == b"1", Step(int(step)))


def _holder(value: bytes) -> Holder:
    step, until, node = value.decode().split(" ")
    return Holder(Step(int(step)), int(until), node)
