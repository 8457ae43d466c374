"""One connection to a server: bytes out, replies in, until the deadline.

The socket never blocks; what it is not ready for is waited for by `canister.store.redis.waiting`.
"""

import errno
import os
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import hiredis
from redis.connection import DefaultParser
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError, TimeoutError

from canister.errors import StoreError
from canister.store.redis.deadline import Deadline
from canister.store.redis.layout import Command
from canister.store.redis.secure import Secure
from canister.store.redis.url import Address, Login, show
from canister.store.redis.waiting import Place, is_ready, resolve

T = TypeVar("T")

Replies = list[Any]
"""One reply for each command; a `ResponseError` is one."""

_CHUNK = 65_536
_INCOMPLETE = object()

_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its stub knows commands of one word

_named_error = cast("Callable[[str], Exception]", cast("Any", DefaultParser).parse_error)
"""What redis-py makes of the text of an error: `MovedError`, `ReadOnlyError` and so on."""


class Access(NamedTuple):
    """What it takes to be let in: user and password, TLS, and the number of the database."""

    login: Login
    secure: Secure | None
    database: int = 0


class Link:
    """A connection to one server, used by one call at a time.

    Args:
        connected: the socket; it does not block.

    Attributes:
        used: when (monotonic seconds) it was used last.
        asked_role: when the server was last asked whether it is a master.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.used = self.asked_role = 0.0
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse, replyError=_named_error, notEnoughData=_INCOMPLETE
        )

    def exchange(self, commands: Sequence[Command], deadline: Deadline) -> Replies:
        """Send commands in one go and return their replies.

        When it raises, the connection must be closed: what comes next on it would answer this call.

        Raises:
            RedisError: the server has closed the connection, has not answered in time, or sends no reply.
        """
        self.send(commands, deadline)
        # Even where the answer is there already: calls that never waited would keep a loop to themselves.
        _wait(self._socket, deadline)
        return [self.receive(deadline) for _ in commands]

    def send(self, commands: Sequence[Command], deadline: Deadline) -> None:
        """Send commands; their replies are to be received."""
        data = memoryview(b"".join(map(_pack, commands)))
        while data:
            data = data[_finish(self._socket, self._socket.send, data, deadline=deadline, to_write=True) :]

    def receive(self, deadline: Deadline) -> Any:
        """Return the next reply; a `ResponseError` is one."""
        while (reply := self._reader.gets()) is _INCOMPLETE:
            data = _finish(self._socket, self._socket.recv, _CHUNK, deadline=deadline)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._reader.feed(data)
        if isinstance(reply, ConnectionError):  # nothing can be asked here: no log-in, or still loading
            raise reply
        return reply

    def arrived(self) -> Generator[Any]:
        """Yield the replies that are there; waits for none.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        while True:
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                yield reply
            try:
                data = self._socket.recv(_CHUNK)
            except (BlockingIOError, ssl.SSLWantReadError):
                return
            except OSError as error:
                raise ConnectionError(str(error)) from error
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._reader.feed(data)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def open_link(address: Address, access: Access, deadline: Deadline) -> Link:
    """Return a connection to a server that has let us in.

    Raises:
        RedisError: the server could not be reached, or refuses.
        StoreError: its certificate is not the one of a server that is trusted.
    """
    link = Link(_connect(address, access.secure, deadline))
    try:
        _introduce(link, access, deadline)
    except BaseException:
        link.close()
        raise
    return link


def _introduce(link: Link, access: Access, deadline: Deadline) -> None:
    asked: list[Command] = []
    if access.login.password or access.login.username:
        user = [access.login.username] if access.login.username else []
        asked.append((b"AUTH", *user, access.login.password))
    if access.database:
        asked.append((b"SELECT", access.database))
    for reply in link.exchange(asked, deadline) if asked else ():
        if isinstance(reply, ResponseError):
            raise reply


def _connect(address: Address, secure: Secure | None, deadline: Deadline) -> socket.socket:
    """Return a socket that is connected to a server, wherever its name leads."""
    try:
        places = resolve(*address, deadline.left)
    except OSError as error:
        raise ConnectionError(f"{show(address)} is not known: {error}") from error
    failure: Exception | None = None
    for number, place in enumerate(places):
        share = deadline.share(len(places) - number)
        try:
            connected = _connect_to(place, share)
        except (ConnectionError, TimeoutError) as error:
            failure = error
            continue
        return connected if secure is None else _make_secure(connected, address, secure, deadline)
    raise failure or ConnectionError(f"{show(address)} is not known")


def _connect_to(place: Place, deadline: Deadline) -> socket.socket:
    family, where = place
    connected = socket.socket(family, socket.SOCK_STREAM)
    try:
        connected.setblocking(False)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        code = connected.connect_ex(where)
        if code == errno.EINPROGRESS:
            _wait(connected, deadline, to_write=True)
            code = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise ConnectionError(os.strerror(code).lower())
    except BaseException:
        connected.close()
        raise
    return connected


def _make_secure(
    connected: socket.socket, address: Address, secure: Secure, deadline: Deadline
) -> ssl.SSLSocket:
    """Return the socket with TLS on it, the server's certificate verified."""
    try:
        wrapped = secure.wrap(connected, address[0])
    except BaseException:
        connected.close()
        raise
    try:
        _finish(wrapped, wrapped.do_handshake, deadline=deadline)
    except BaseException as error:
        wrapped.close()
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise StoreError(
                f"Redis at {show(address)} shows a certificate that is not accepted "
                f"({error.__cause__.verify_message}); check host and ca in the URL"
            ) from error
        raise
    return wrapped


def _finish(
    connected: socket.socket,
    act: Callable[..., T],
    *arguments: Any,
    deadline: Deadline,
    to_write: bool = False,
) -> T:
    """Do what a socket may not be ready for yet, until it is done or the time is over."""
    while True:
        try:
            return act(*arguments)
        except ssl.SSLWantReadError:
            direction = False
        except ssl.SSLWantWriteError:
            direction = True
        except BlockingIOError:
            direction = to_write
        except OSError as error:
            raise ConnectionError(str(error)) from error
        _wait(connected, deadline, to_write=direction)


def _wait(connected: socket.socket, deadline: Deadline, *, to_write: bool = False) -> None:
    if deadline.is_over or not is_ready(connected.fileno(), to_write=to_write, seconds=deadline.left):
        raise TimeoutError("no answer in time")
