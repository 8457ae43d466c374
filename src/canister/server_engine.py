"""Sessions on Redis or Valkey: one copy that all processes share, instead of a copy on every node."""

import atexit
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import TypeVar, TypeVarTuple

from canister.agent.control import MemberState
from canister.clock import Clock
from canister.config import Config, Policy
from canister.engine import Changes, Loaded, check_acks
from canister.errors import ConfigError
from canister.freshness import Seen
from canister.life import NEVER
from canister.record import Record, Version
from canister.store.base import Change, Edit, Known, Mark, Needed
from canister.store.redis import Alone, RedisStore, beside

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MESH_ONLY = ("listen", "advertise", "seeds", "tls_ca", "tls_cert", "tls_key")


class ServerEngine:
    """A `canister.engine.Engine` whose sessions are on servers.

    Args:
        url: the servers; see `canister.store.redis.url`.
        config: the settings.
        clock: where the time comes from; the servers by default.

    Raises:
        ConfigError: a setting is for data directories only, or the servers cannot be used as they are.
        StoreError: the servers cannot be reached.
    """

    waits = True
    is_clustered = False
    key_directory: Path | None = None

    def __init__(self, url: str, config: Config, clock: Clock | None) -> None:
        _check(config)
        self.config = config
        self.closing = Event()
        self.policy = Policy.of(config)
        self.store = RedisStore(url, config, clock)
        self.clock = self.store.clock
        atexit.register(self.close)

    def announce_keys(self, ring: list[str]) -> None:
        """Do nothing: there are no peers that could compare them."""

    def last_stamp(self) -> int:
        """Return the number of what was heard last."""
        return self.store.listener.last

    def changes_since(self, stamp: int) -> Changes:
        """Return which sessions others have ended since; of what only changes them nothing is told.

        Raises:
            StoreError: no server can be listened to.
        """
        heard = self.store.listener.since(stamp)
        # How a session was and is now is not told; that it is still kept is.
        changes = [Change(session, None, Mark(b"", NEVER), None) for session in heard.sessions]
        return Changes(changes, heard.upto, heard.missed)

    def load(self, session: bytes, *, after: Seen = (), local: bool = False, ask: bool = False) -> Loaded:
        """Return a session; there is nowhere else to ask."""
        return Loaded(self.store.load(session), True, everyone=True)

    def commit(
        self, edits: Sequence[tuple[bytes, Edit]], acks: Needed = 1, known: Known | None = None
    ) -> Version | None:
        """Run edits in one commit; None if nothing was written.

        Args:
            edits: what to run, by encoded session id.
            acks: how many servers, the master included, must hold the commit before this returns: a
                number, or ``"majority"`` or ``"all"`` of the master and the replicas linked to it now.
            known: sessions as the caller has just loaded them.

        Raises:
            AcknowledgementError: fewer hold it within ``remote_timeout``; on the master it stands.
        """
        check_acks(acks)
        return self.store.commit(edits, known, acks)

    def alone(self) -> AbstractContextManager[object]:
        """Return what lets in one thread, or one task of an event loop, at a time."""
        return Alone()

    async def beside(self, act: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run what may wait for a server; the event loop goes on meanwhile."""
        return await beside(act, *args)

    def take(self, batch: Sequence[tuple[bytes, Record]]) -> None:
        """Merge sessions of another engine into what is here."""
        self.store.take(batch)

    def forget(self, session: bytes) -> bool:
        """Refuse: there is no copy that is this process's own."""
        raise ConfigError(f"{self.store} holds the only copy of the session; to end it, call destroy(id)")

    def sweep(self, *, destroyed: bool) -> int:
        """Do nothing: the servers drop what is past its time by themselves."""
        return 0

    def members(self) -> list[MemberState]:
        """Return the servers, masters first; *state* is ``master`` or ``replica``."""
        return [MemberState(address, state, "") for address, state in self.store.servers()]

    def resync(self, sessions: list[bytes] | None) -> None:
        """Refuse: there are no copies to compare."""
        raise ConfigError(f"{self.store} holds the only copy of each session; there is nothing to compare")

    def num_queued(self) -> int:
        """Return 0: there is nothing to exchange."""
        return 0

    def close(self) -> None:
        """Close all connections."""
        atexit.unregister(self.close)
        self.closing.set()
        self.store.close()


def _check(config: Config) -> None:
    given = [name for name in _MESH_ONLY if getattr(config, name)]
    if given:
        raise ConfigError(
            f"{', '.join(given)} cannot be used with a URL of Redis: the nodes do not talk to each other"
        )
    if config.durability != "normal":
        raise ConfigError(
            "durability cannot be used with a URL of Redis: there it is the servers' appendfsync, and acks="
        )
