"""Hearing what other processes end, as they say it: one connection of a process that only listens.

Each script that ends something says so on a channel, in the step in which it writes. What is said while
nobody is connected is lost, so a connection that is new tells that something may have been missed: whoever
watches a session then has to look at it.
"""

import random
import threading
import time
from collections import deque
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError, RedisError, ResponseError

from canister.errors import StoreError
from canister.forks import notice_fork, watch_forks
from canister.store.redis.asking import explained, spread_of
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Layout
from canister.store.redis.links import Pool
from canister.store.redis.servers import Servers
from canister.store.redis.wire import Link

_QUIET = 1.0
"""Seconds without a word after which a server is asked whether it is there."""

_REMEMBERED = 10_000


class Heard(NamedTuple):
    """What was said since a number.

    Attributes:
        sessions: which sessions were ended, or what else ends sessions changed; some more than once.
        upto: the number of the last one.
        missed: whether there may have been others.
    """

    sessions: list[bytes]
    upto: int
    missed: bool


class Listener:
    """Listens on one server for all that watch in this process. Safe to share between threads.

    In a cluster any master will do: what is said on one is said on all.

    Args:
        servers: the servers.
        layout: which channel it is, and which session a message names.
        patience: how long (seconds) a server may take to answer.
    """

    def __init__(self, servers: Servers, layout: Layout, patience: float) -> None:
        self._servers = servers
        self._layout = layout
        self._patience = patience
        self._link: Link | None = None
        self._closed = False
        self._begin()
        watch_forks(self)

    @property
    def last(self) -> int:
        """The number of what was heard last."""
        return self._last

    def since(self, number: int) -> Heard:
        """Return what was said after *number*; connects if need be, and otherwise never waits.

        Raises:
            StoreError: nobody can be listened to.
        """
        notice_fork()
        with self._lock:
            if self._closed:
                raise StoreError("nobody listens any more: the store is closed")
            if self._link is None:
                self._connect()
            else:
                self._listen(self._link)
            heard = [session for at, session in self._heard if at > number]
            return Heard(heard, self._last, missed=number < self._gap)

    def close(self) -> None:
        """Stop listening."""
        notice_fork()
        with self._lock:
            self._closed = True
            self._drop()

    def before_fork(self) -> None:
        """Nothing to do: the connection stays with the parent."""

    def after_fork(self, *, child: bool) -> None:
        """Leave the connection to the parent."""
        if child:
            self._drop()  # closes the child's handle of it only
            self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._heard: deque[tuple[int, bytes]] = deque()
        self._last = 0
        self._gap = 0
        self._word = self._asked = 0.0

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _connect(self) -> None:
        deadline = Deadline(self._patience)
        pool = random.choice(spread_of(self._servers, deadline).masters)
        try:
            self._link = self._subscribe(pool, deadline)
        except RedisError as error:
            self._servers.look_again(error)
            raise explained(error, pool) from error
        self._word, self._asked = time.monotonic(), 0.0
        self._last += 1
        self._gap = self._last

    def _subscribe(self, pool: Pool, deadline: Deadline) -> Link:
        link = pool.open(deadline)
        try:
            (reply,) = link.exchange([(b"SUBSCRIBE", self._layout.channel)], deadline)
            if isinstance(reply, ResponseError):
                raise reply
        except BaseException:
            link.close()
            raise
        return link

    def _listen(self, link: Link) -> None:
        """Take in what has arrived; a connection that is lost or silent is made anew the next time."""
        now = time.monotonic()
        try:
            for reply in link.arrived():
                self._word, self._asked = now, 0.0
                self._take(reply)
            if self._asked and now - self._asked > self._patience:
                raise ConnectionError("no answer in time")
            if not self._asked and now - self._word > _QUIET:
                link.send([(b"PING",)], Deadline(self._patience))
                self._asked = now
        except RedisError as error:
            self._drop()
            self._servers.look_again(error)
            self._connect()

    def _take(self, reply: Any) -> None:
        if isinstance(reply, ResponseError):  # to a PING: nothing else is asked
            raise ConnectionError(f"the server does not say that it is there: {reply}")
        if reply[0] != b"message" or not reply[2]:
            return  # the answer to a PING, or a new process that tries whether it may speak
        self._last += 1
        self._heard.append((self._last, self._layout.session(reply[2])))
        if len(self._heard) > _REMEMBERED:
            self._gap, _ = self._heard.popleft()
