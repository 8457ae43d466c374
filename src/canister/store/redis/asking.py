"""Asking a server until one answers, or the time is over."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from redis.exceptions import AskError, ConnectionError, NoScriptError, RedisError, ResponseError

from canister.errors import StoreError, StoreUnavailableError
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command
from canister.store.redis.links import Pool, explain, is_passing
from canister.store.redis.servers import Server, Servers, Spread
from canister.store.redis.wire import Replies

T = TypeVar("T")


def run(servers: Servers, key: bytes, commands: Sequence[Command], deadline: Deadline) -> Replies:
    """Send commands about one key to the server that has it, until one answers or the time is over.

    Returns:
        The replies. A script that the server does not know is one of them; no other error is.

    Raises:
        StoreUnavailableError: nobody served it in time; what was sent may have been done.
        StoreError: the server refused.
    """
    once: Pool | None = None
    while True:
        pool = once
        try:
            if pool is None:
                pool = servers.pool_of(key, deadline)
                replies = pool.exchange(commands, deadline)
            else:
                replies = _ask_once(pool, commands, deadline)
            error: RedisError | None = _obstacle(replies)
        except RedisError as failure:
            replies, error = [], failure
        if error is None:
            return replies
        if not (isinstance(error, AskError) or is_passing(error)):
            raise explained(error, pool) from error
        once = servers.look_again(error, pool)
        if not deadline.pause():
            raise StoreUnavailableError(
                f"Redis did not serve the session in time ({error}); whether a write was stored is not "
                "known; try again"
            ) from error


def run_on(servers: Servers, pool: Pool, commands: Sequence[Command], deadline: Deadline) -> Replies:
    """Send commands to one server that no other could answer.

    Raises:
        StoreError: it could not be reached or refused.
    """
    try:
        try:
            replies = pool.exchange(commands, deadline)
        except ConnectionError:  # one that was idle may just have been closed
            replies = pool.exchange(commands, deadline)
    except RedisError as error:
        servers.look_again(error)
        raise explain(error, pool.address) from error
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise explain(reply, pool.address) from reply
    return replies


def run_each(
    servers: Servers, keys: Sequence[bytes], command: Callable[[bytes], Command], deadline: Deadline
) -> Iterator[Any]:
    """Yield the reply to one command about each key, None for what was not answered.

    Those for one server go in one round trip. What has moved, or whose server cannot be reached, is not
    tried again: that is for `run`.
    """
    replies: dict[bytes, Any] = {}
    try:
        asked: dict[Pool, list[bytes]] = {}
        for key in keys:
            asked.setdefault(servers.pool_of(key, deadline), []).append(key)
        for pool, own in asked.items():
            replies |= zip(own, pool.exchange([command(key) for key in own], deadline), strict=True)
    except RedisError as error:
        servers.look_again(error)
    for key in keys:
        reply = replies.get(key)
        yield None if isinstance(reply, ResponseError) else reply


def spread_of(servers: Servers, deadline: Deadline) -> Spread:
    """Return which servers take writes, and of what.

    Raises:
        StoreError: nobody says which they are.
    """
    return _persist(servers, servers.spread, deadline)


def servers_of(servers: Servers, deadline: Deadline) -> list[Server]:
    """Return all servers that are known, masters first.

    Raises:
        StoreError: nobody says which they are.
    """
    return _persist(servers, servers.listed, deadline)


def _persist(servers: Servers, ask: Callable[[Deadline], T], deadline: Deadline) -> T:
    """Ask until there is an answer or the time is over."""
    while True:
        try:
            return ask(deadline)
        except RedisError as error:
            servers.look_again(error)
            if not is_passing(error) or not deadline.pause():
                raise explained(error, None) from error


def _obstacle(replies: Replies) -> ResponseError | None:
    """Return the reply that keeps the others from being what was asked for."""
    errors = (reply for reply in replies if isinstance(reply, ResponseError))
    return next((error for error in errors if not isinstance(error, NoScriptError)), None)


def _ask_once(pool: Pool, commands: Sequence[Command], deadline: Deadline) -> Replies:
    """Send commands to the server that a slot is just moving to."""
    asking = [word for command in commands for word in ((b"ASKING",), command)]
    return pool.exchange(asking, deadline)[1::2]


def explained(error: RedisError, pool: Pool | None) -> StoreError:
    """Return what an error means for whoever runs the application; *pool* is the server, if it is one's."""
    if pool is not None:
        return explain(error, pool.address)
    return StoreUnavailableError(str(error)) if is_passing(error) else StoreError(f"Redis: {error}")
