"""Connections to the servers: pools that survive forks, for threads and event loops alike."""

import contextlib
import time
from collections.abc import Generator, Sequence

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from canister.errors import ForeignDatabaseError, StoreError, StoreUnavailableError
from canister.forks import watch_forks
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command
from canister.store.redis.url import Address, show
from canister.store.redis.waiting import Turns
from canister.store.redis.wire import Access, Link, Replies, open_link

MOST_LINKS = 64
"""How many connections to one server a process has; further calls wait for one of them."""

ROLE: Command = (b"ROLE",)
"""Asks whether a server is a master; whoever asks wants one, so that another one is left."""

_ROLE_FRESH = 10.0
"""Seconds for which a server is believed to be the master it said it was."""

_FORGOTTEN = 30.0
"""Seconds without a word after which a connection is made anew: a firewall may have forgotten it by then, and
what is sent on such a one is answered by nobody."""

_PASSING = (ConnectionError, TimeoutError, ReadOnlyError, ClusterDownError, TryAgainError)
_MISPLACED = (ReadOnlyError, ClusterDownError)  # MasterDownError is one of these
"""What a server replies behind whose name another one may be by now."""

_IN_SCRIPT = "The user executing the script can't"
"""What a server says where it does not say which right is lacking: to run a command, or to reach a key."""

_PASSING_TEXTS = ("BUSY ", "NOREPLICAS ")
"""What a server says that cannot serve just now."""


class Pool:
    """Connections to one server, lent to one call at a time.

    Args:
        address: the server.
        access: what it takes to be let in.
        only_master: whether it must not be used unless it is a master. A replica answers what is read, with
            what it has got by then, and only in a cluster sends whoever asks elsewhere.
    """

    _idle: list[Link]

    def __init__(self, address: Address, access: Access, *, only_master: bool = False) -> None:
        self.address = address
        self._access = access
        self._only_master = only_master
        self._begin()
        watch_forks(self)

    def exchange(self, commands: Sequence[Command], deadline: Deadline) -> Replies:
        """Send commands down one connection and return their replies; one attempt.

        Raises:
            RedisError: the server could not be reached or did not answer in time.
            StoreError: it is not one that is trusted.
        """
        with self._turn(deadline):
            idle = self._idle
            link = self._last_used() or self.open(deadline)
            is_due = self._only_master and time.monotonic() - link.asked_role > _ROLE_FRESH
            try:
                replies = _exchange(link, [*commands, ROLE] if is_due else commands, deadline)
            except BaseException as error:
                link.close()  # what comes next on it would answer this call
                if isinstance(error, RedisError):
                    self.close()  # the others were made to the same server before it went
                raise
            if any(isinstance(reply, _MISPLACED) for reply in replies):
                link.close()
                self.close()
            else:
                link.used = time.monotonic()
                idle.append(link)
                if idle is not self._idle:  # closed meanwhile, for what is true of this one too
                    _close_all(idle)
        return replies[: len(commands)]

    def open(self, deadline: Deadline) -> Link:
        """Return a new connection, which whoever asks for it closes."""
        link = open_link(self.address, self._access, deadline)
        if self._only_master:
            try:
                _exchange(link, [ROLE], deadline)
            except BaseException:
                link.close()
                raise
        return link

    def close(self) -> None:
        """Close the connections that nobody uses."""
        idle = self._idle
        self._idle = []
        _close_all(idle)

    def before_fork(self) -> None:
        """Nothing to do: a connection in use belongs to a call that the child does not make."""

    def after_fork(self, *, child: bool) -> None:
        """Leave the connections to the parent."""
        if child:
            self.close()  # closes the child's handle of them only
            self._begin()

    def _last_used(self) -> Link | None:
        """Return a connection that nobody uses, if one is fresh."""
        with contextlib.suppress(IndexError):
            link = self._idle.pop()
            if time.monotonic() - link.used < _FORGOTTEN:
                return link
            link.close()
            self.close()  # the others have waited for longer
        return None

    def _begin(self) -> None:
        self._idle = []
        self._turns = Turns(MOST_LINKS)

    @contextlib.contextmanager
    def _turn(self, deadline: Deadline) -> Generator[None]:
        turns = self._turns
        if not turns.take(deadline.left):
            raise TimeoutError(f"all {MOST_LINKS} connections to {show(self.address)} are in use")
        try:
            yield
        finally:
            turns.give_back()


def _exchange(link: Link, commands: Sequence[Command], deadline: Deadline) -> Replies:
    """Send commands down a connection; raise if one of them is `ROLE` and no master answers it."""
    replies = link.exchange(commands, deadline)
    for command, reply in zip(commands, replies, strict=True):
        if command == ROLE:
            if isinstance(reply, ResponseError):
                raise reply
            if reply[0] != b"master":
                raise ReadOnlyError("it is a replica now")
            link.asked_role = time.monotonic()
    return replies


def _close_all(idle: list[Link]) -> None:
    with contextlib.suppress(IndexError):  # another thread may take the last one just now
        while True:
            idle.pop().close()


def is_passing(error: RedisError) -> bool:
    """Tell whether another attempt may succeed."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_TEXTS)


def explain(error: RedisError, address: Address) -> StoreError:
    """Return what an error of a server means for whoever runs the application."""
    place = f"Redis at {show(address)}"
    if isinstance(error, NoPermissionError) or _IN_SCRIPT in str(error):
        return StoreError(
            f"{place} refuses this user ({error}); give it all the rights that docs/howto/redis.md lists"
        )
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return StoreError(f"{place} refuses this user ({error}); check user and password in the URL")
    if is_passing(error):
        return StoreUnavailableError(f"{place} cannot be used now: {error}")
    if isinstance(error, OutOfMemoryError):
        return StoreError(f"{place} has reached its maxmemory; nothing was written; give it more")
    if str(error).startswith("WRONGTYPE"):
        return ForeignDatabaseError(
            f"{place} holds something else under a session's key; it was left untouched"
        )
    return StoreError(f"{place}: {error}")
