"""The lists of users' sessions: what is listed for nothing is dropped as it is found."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from canister.errors import StoreError
from canister.record import Record, user_of
from canister.store.redis.asking import run
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command, Layout, Versioned
from canister.store.redis.servers import Servers
from canister.store.redis.wire import Replies

_PAGE = 1000
"""How many sessions of a list are read at once."""

_MANY = 100
"""How many sessions may be listed before some are looked at with each log-in."""

_SOME = 20
"""How many these are. Where each log-in adds one that ends, one in so many is listed for nothing."""

_UNDER_WAY = 60_000_000
"""Microseconds for which a session that is listed as a user's may not be written yet."""

Fetch = Callable[[Sequence[bytes], Deadline], Iterator[tuple[bytes, Versioned]]]


class UserLists:
    """The lists of one cluster's sessions.

    Args:
        servers: where they are.
        layout: their keys.
        fetch: reads sessions.
        patience: how long (seconds) a page of a list may take.
    """

    def __init__(self, servers: Servers, layout: Layout, fetch: Fetch, patience: float) -> None:
        self._servers = servers
        self._layout = layout
        self._fetch = fetch
        self._patience = patience

    def add(
        self, user: bytes, session: bytes, now: int, behind: Sequence[Command], deadline: Deadline
    ) -> Replies:
        """List a session as a user's, from *now* on.

        Returns:
            The replies to the commands that go *behind*, down the same connection.
        """
        key, listing = self._layout.user(user), self._layout.list_for(user, session, now)
        replies = run(self._servers, key, [*listing, *behind], deadline)
        count = replies[len(listing) - 1]
        if count > _MANY:
            with contextlib.suppress(StoreError):  # they are looked at another time
                # By chance: the oldest may all be in use.
                asked = (b"ZRANDMEMBER", key, _SOME, b"WITHSCORES")
                (some,) = run(self._servers, key, [asked], deadline)
                self._settle(user, some, now, deadline)
        return replies[len(listing) :]

    def of(self, user: bytes, now: int) -> list[tuple[bytes, Record]]:
        """Return the sessions of a user."""
        key, found = self._layout.user(user), dict[bytes, Record]()
        begin, most = b"-inf", _PAGE
        while True:
            deadline = Deadline(self._patience)
            # By the time of listing: others take out sessions meanwhile, so places shift.
            asked = (b"ZRANGEBYSCORE", key, begin, b"+inf", b"WITHSCORES", b"LIMIT", 0, most)
            (listed,) = run(self._servers, key, [asked], deadline)
            found |= self._settle(user, listed, now, deadline)
            if len(listed) < 2 * most:
                return sorted(found.items())
            if listed[-1] == begin:  # so many at one instant
                most *= 2
            begin = listed[-1]

    def _settle(
        self, user: bytes, listed: Sequence[Any], now: int, deadline: Deadline
    ) -> dict[bytes, Record]:
        """Return those of the listed sessions that are the user's; take out the others."""
        since = dict(zip(listed[::2], map(float, listed[1::2]), strict=True))
        found: dict[bytes, Record] = {}
        stale: list[bytes] = []
        for session, there in self._fetch(list(since), deadline):
            if there.record is not None and user_of(there.record) == user:
                found[session] = there.record
            elif since[session] < now - _UNDER_WAY:
                stale.append(session)
        if stale:
            key = self._layout.user(user)
            run(self._servers, key, [(b"ZREM", key, *stale)], deadline)
        return found
