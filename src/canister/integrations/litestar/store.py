"""A Litestar store of opaque bytes: for the rate limiter, the response cache and whatever else keeps them."""

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from typing import Self

from litestar.stores.base import NamespacedStore

from canister import entries
from canister.canister import Canister
from canister.clock import SECOND
from canister.codec import entry_id, entry_prefix
from canister.entries import Entry
from canister.store.base import Edit

_PAGE = 200
_LONGEST = 401 * 24 * 3600
"""Seconds beyond which it is all the same how many there are: an entry lasts for 400 days at the most."""


class CanisterStore(NamespacedStore):
    """A store whose values every node of the cluster holds.

    On a data directory it reads what this node has heard of and asks no other: what was set elsewhere
    shows within moments, and after a split once it is healed. Of two sets of one key the later one wins.
    Sessions belong to `CanisterSessionConfig`, which knows when it cannot tell.

    Args:
        canister: where the values are stored; closing it is the application's.
        namespace: the names of the namespace, the outermost first. `with_namespace` gives one inside it.
    """

    __slots__ = ("_canister", "_engine", "_prefix")

    def __init__(self, canister: Canister, namespace: Sequence[str] = ("litestar",)) -> None:
        self._canister = canister
        self._engine = canister.engine
        self.namespace = tuple(namespace)
        self._prefix = entry_prefix(self.namespace)

    def with_namespace(self, namespace: str) -> Self:
        """Return the store of a namespace inside this one.

        Raises:
            InvalidIdError: *namespace* is empty or holds a NUL.
        """
        return type(self)(self._canister, (*self.namespace, namespace))

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        """Set a value.

        Args:
            key: the key, of any length.
            value: text is stored as UTF-8.
            expires_in: seconds until it ends; without, or beyond that, 400 days.

        Raises:
            TooLargeError: the value is larger than the setting ``max_value``.
            StoreError: the database cannot be written.
        """
        data = value.encode() if isinstance(value, str) else value
        lifetime = None if expires_in is None else _span(expires_in)
        if lifetime is not None and lifetime <= timedelta(0):
            await self.delete(key)
            return
        grace, most = self._engine.policy.grace, self._engine.config.max_value
        await self._commit([(self._id(key), lambda _, m: entries.put(m, data, lifetime, grace, most))])

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return a value, None if there is none or it has ended.

        Args:
            key: the key.
            renew_for: let it last for so many seconds from now on, if it was set with an end.
        """
        entry = await self._read(key)
        if entry is not None and entry.until is not None and renew_for:
            lifetime, grace = _span(renew_for), self._engine.policy.grace
            await self._commit([(self._id(key), lambda r, m: entries.renew(r, m, lifetime, grace))])
        return None if entry is None else entry.value

    async def delete(self, key: str) -> None:
        """Remove a value; nothing happens if there is none."""
        await self._commit([(self._id(key), entries.drop)])

    async def delete_all(self) -> None:
        """Remove all values of this namespace, and of those in it, that this node has heard of."""
        await asyncio.to_thread(self._delete_all)

    async def exists(self, key: str) -> bool:
        """Tell whether there is a value."""
        return await self._read(key) is not None

    async def expires_in(self, key: str) -> int | None:
        """Return in how many seconds a value ends, -1 if it was set without an end, None if there is none."""
        entry = await self._read(key)
        if entry is None:
            return None
        return -1 if entry.until is None else math.ceil((entry.until - self._engine.clock.now()) / SECOND)

    def _id(self, key: str) -> bytes:
        return entry_id(self.namespace, key)

    async def _read(self, key: str) -> Entry | None:
        def read() -> Entry | None:
            return entries.read(self._engine.store.load(self._id(key)).record, self._engine.clock.now())

        return await self._engine.beside(read) if self._engine.waits else read()

    async def _commit(self, edits: list[tuple[bytes, Edit]]) -> None:
        if self._engine.waits or self._engine.config.durability == "full":
            await self._engine.beside(self._engine.commit, edits)
        else:
            self._engine.commit(edits)  # some 50 us; a hop to a thread costs more

    def _delete_all(self) -> None:
        found = (id for id, _ in self._engine.store.scan() if id.startswith(self._prefix))
        while page := list(islice(found, _PAGE)):
            self._engine.commit([(id, entries.drop) for id in page])


def _span(seconds: int | timedelta) -> timedelta:
    if isinstance(seconds, timedelta):
        return seconds
    return timedelta(seconds=max(-1, min(seconds, _LONGEST)))
