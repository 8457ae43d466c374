"""Connections to the servers: pools that survive forks, and one deadline over all that a call does."""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from redis.connection import Connection, SSLConnection
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
from canister.store.redis.layout import Command
from canister.store.redis.url import Address, show

_PASSING = (ConnectionError, TimeoutError, ReadOnlyError, ClusterDownError, TryAgainError)
_PASSING_TEXTS = ("BUSY ", "NOREPLICAS ")
"""What a server says that cannot serve just now."""

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.25

Replies = list[Any]
"""One reply for each command; a `ResponseError` is one."""


class Deadline:
    """The one limit to all that a call does: attempts, pauses between them, and waiting for replicas.

    Args:
        seconds: how long from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._pause = 0.0

    @property
    def left(self) -> float:
        """The seconds left, at least a millisecond."""
        return max(0.001, self._end - time.monotonic())

    def pause(self) -> bool:
        """Wait before the next attempt, longer each time; False if there is no time for another one.

        The first retry comes at once: a connection that was idle may just have been closed.
        """
        if time.monotonic() + self._pause >= self._end:
            return False
        # Chance keeps the processes that lost the same server from coming back together.
        time.sleep(self._pause * random.uniform(0.5, 1))
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        return True


class _Connection(Protocol):
    """What redis-py's connections can do, with types."""

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def pack_command(self, *words: bytes | int | str) -> list[bytes]: ...

    def send_packed_command(self, command: list[bytes]) -> None: ...

    def can_read(self, timeout: float) -> bool: ...

    def read_response(self, disable_decoding: bool) -> Any: ...


class Link:
    """A connection to one server, used by one thread at a time.

    Args:
        connection: the connection, open.
        last: whether it was made with so little time left that nobody else should use it.
    """

    def __init__(self, connection: _Connection, *, last: bool) -> None:
        self._connection = connection
        self.last = last

    def exchange(self, commands: Sequence[Command], deadline: Deadline) -> Replies:
        """Send commands in one go and return their replies."""
        connection = self._connection
        try:
            connection.send_packed_command([w for c in commands for w in connection.pack_command(*c)])
            return [self._read(deadline) for _ in commands]
        except BaseException:
            connection.disconnect()  # what comes next on it would answer this call
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _read(self, deadline: Deadline) -> Any:
        if not self._connection.can_read(deadline.left):
            raise TimeoutError("no answer in time")
        try:
            return self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return error


class Pool:
    """Connections to one server, lent to one thread at a time.

    Args:
        address: the server.
        options: what connections are made with.
        patience: how long (seconds) a server may take to answer.
        tls: whether connections are TLS.
        greet: what to check on every new connection; raises if it must not be used.
    """

    def __init__(
        self,
        address: Address,
        options: dict[str, Any],
        patience: float,
        *,
        tls: bool,
        greet: Callable[[Link, Deadline], None] | None = None,
    ) -> None:
        self.address = address
        self._options = options
        self._patience = patience
        self._kind = SSLConnection if tls else Connection
        self._greet = greet
        self._idle: list[Link] = []
        watch_forks(self)

    def exchange(self, commands: Sequence[Command], deadline: Deadline) -> Replies:
        """Send commands down one connection and return their replies; one attempt.

        Raises:
            RedisError: the server could not be reached or did not answer in time.
        """
        try:
            link = self._idle.pop()
        except IndexError:
            link = self._open(deadline)
        try:
            replies = link.exchange(commands, deadline)
        except RedisError:
            self.close()  # the others were made to the same server before it went
            raise
        if link.last:
            link.close()
        else:
            self._idle.append(link)
        return replies

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with contextlib.suppress(IndexError):  # another thread may take the last one just now
            while True:
                self._idle.pop().close()

    def before_fork(self) -> None:
        """Nothing to do: a connection in use belongs to a thread that the child does not have."""

    def after_fork(self, *, child: bool) -> None:
        """Leave the connections to the parent."""
        if child:
            self.close()  # closes the child's handle of them only

    def _open(self, deadline: Deadline) -> Link:
        left = deadline.left
        host, port = self.address
        connection = cast("Callable[..., _Connection]", self._kind)(
            host=host,
            port=port,
            socket_timeout=left,
            socket_connect_timeout=left,
            protocol=2,
            **self._options,
        )
        connection.connect()
        link = Link(connection, last=left < self._patience / 2)
        if self._greet is not None:
            try:
                self._greet(link, deadline)
            except BaseException:
                link.close()
                raise
        return link


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
