"""Connections to the servers: pools that survive forks, for threads and event loops alike."""

import contextlib
from collections.abc import Callable, Generator, Sequence

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
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

_PASSING = (ConnectionError, TimeoutError, ReadOnlyError, ClusterDownError, TryAgainError)
_MISPLACED = (ReadOnlyError, ClusterDownError)  # MasterDownError is one of these
"""What a server replies behind whose name another one may be by now."""

_PASSING_TEXTS = ("BUSY ", "NOREPLICAS ")
"""What a server says that cannot serve just now."""


class Pool:
    """Connections to one server, lent to one call at a time.

    Args:
        address: the server.
        access: what it takes to be let in.
        greet: what to check on every new connection; raises if it must not be used.
    """

    def __init__(
        self,
        address: Address,
        access: Access,
        greet: Callable[[Link, Deadline], None] | None = None,
    ) -> None:
        self.address = address
        self._access = access
        self._greet = greet
        self._begin()
        watch_forks(self)

    def exchange(self, commands: Sequence[Command], deadline: Deadline) -> Replies:
        """Send commands down one connection and return their replies; one attempt.

        Raises:
            RedisError: the server could not be reached or did not answer in time.
            StoreError: it is not one that is trusted.
        """
        with self._turn(deadline):
            try:
                link = self._idle.pop()
            except IndexError:
                link = self.open(deadline)
            try:
                replies = link.exchange(commands, deadline)
            except BaseException as error:
                link.close()  # what comes next on it would answer this call
                if isinstance(error, RedisError):
                    self.close()  # the others were made to the same server before it went
                raise
            if any(isinstance(reply, _MISPLACED) for reply in replies):
                link.close()
                self.close()
            else:
                self._idle.append(link)
        return replies

    def open(self, deadline: Deadline) -> Link:
        """Return a new connection, which whoever asks for it closes."""
        link = open_link(self.address, self._access, deadline)
        if self._greet is not None:
            try:
                self._greet(link, deadline)
            except BaseException:
                link.close()
                raise
        return link

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with contextlib.suppress(IndexError):  # another thread may take the last one just now
            while True:
                self._idle.pop().close()

    def before_fork(self) -> None:
        """Nothing to do: a connection in use belongs to a call that the child does not make."""

    def after_fork(self, *, child: bool) -> None:
        """Leave the connections to the parent."""
        if child:
            self.close()  # closes the child's handle of them only
            self._begin()

    def _begin(self) -> None:
        self._idle: list[Link] = []
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


def is_passing(error: RedisError) -> bool:
    """Tell whether another attempt may succeed."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    return isinstance(error, _PASSING) or str(error).startswith(_PASSING_TEXTS)


def explain(error: RedisError, address: Address) -> StoreError:
    """Return what an error of a server means for whoever runs the application."""
    place = f"Redis at {show(address)}"
    if isinstance(error, (AuthenticationError, AuthorizationError, NoPermissionError)):
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
