"""Which step a process goes by: what the board last said, for as long as the lease on that lasts."""

import secrets
import threading
import time
from typing import Protocol

from canister.errors import MigrationError
from canister.forks import notice_fork, watch_forks
from canister.migration.marks import Mark, Step

LEASE = 6.0
"""Seconds for which a process goes by a step it was told; so long the next step may have to wait."""
_RENEWAL = LEASE / 3


class Registry(Protocol):
    """Where leases are taken."""

    def register(self, name: str, lease: float, node: bytes) -> Mark | None:
        """Take a lease on the step in force, and return the move; None if there is none."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Leases:
    """The lease of this process, renewed by whoever needs it. Safe to share between threads and forks.

    A process that does nothing holds none, and so keeps nobody waiting; it asks before it does anything.

    Args:
        registry: where leases are taken.
        node: the process's node in the mesh.
        to_servers: which way the process believes that the sessions move.
    """

    def __init__(self, registry: Registry, node: bytes, *, to_servers: bool) -> None:
        self._registry = registry
        self._node = node
        self._to_servers = to_servers
        self._step = Step.NONE
        self._begin()
        watch_forks(self)

    def step(self) -> Step:
        """Return the step to go by; it is in force as this is called.

        Raises:
            MigrationError: no move has begun, or one the other way.
            StoreError: the servers cannot be asked.
        """
        notice_fork()
        now = time.monotonic()
        is_due = now >= self._due and self._step is not Step.FINISHED
        # While the lease lasts one thread renews it and the others go on.
        if is_due and self._lock.acquire(blocking=now >= self._ends):
            try:
                self._renew()
            finally:
                self._lock.release()
        return self._step

    @property
    def last(self) -> Step:
        """The step that was told last. It asks nobody, so a later one may be in force."""
        return self._step

    def close(self) -> None:
        """Close all connections."""
        self._registry.close()

    def before_fork(self) -> None:
        """Nothing to do: the parent keeps its lease."""

    def after_fork(self, *, child: bool) -> None:
        """Let the child take a lease of its own: the parent's may end first."""
        if child:
            self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._name = secrets.token_hex(8)
        self._ends = self._due = time.monotonic()

    def _renew(self) -> None:
        asked = time.monotonic()
        if asked < self._due:
            return  # another thread has just done so
        move = self._registry.register(self._name, LEASE, self._node)
        if move is None:
            raise MigrationError(
                "migrate_to is set and no move has begun; run `canister migrate FROM TO begin` first"
            )
        if move.to_servers != self._to_servers:
            raise MigrationError(
                f"the sessions move from {move.source} to {move.target}; open them that way round, or "
                f"{move.target} alone if the move has finished"
            )
        self._step = move.step
        self._ends, self._due = asked + LEASE, asked + _RENEWAL
