"""Links to the other nodes over TCP: listening, dialing for ever, frames in and out."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from random import Random

from canister.addresses import check_dialable, parse_address
from canister.agent.connection import Connection
from canister.agent.names import Names
from canister.agent.tls import Credentials, HandshakeError
from canister.clock import SECOND
from canister.config import Config, check_address
from canister.errors import CanisterError, ConfigError, ListenError, StoreError
from canister.replication.healing import HealReport
from canister.replication.link import LinkId
from canister.replication.messages import MAX_FRAME, Hello, Message, Refused, encode_message
from canister.replication.replica import Replica

logger = logging.getLogger("canister.mesh")

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_HANDSHAKE = 2.0
"""Seconds for connecting, and for TLS and the hello."""
_AGAIN = 0.25
"""Seconds until one more attempt to connect begins beside the others. TCP asks again after one second."""
_MOST_STRANGERS = 64
"""Connections that may be in their handshake at once."""
_READ_AHEAD = 256 * 1024
"""Bytes read before they are asked for, twice as many at the most; a larger frame is read all the same."""
_TURN = 0.01
"""Seconds after which a link that has more to say lets the others speak."""
_MOST_TOLD, _MOST_TOLD_OF_ONE, _LONGEST_TOLD = 2_000, 20, 300
"""Troubles remembered in all and of one peer, and the characters of one: a peer chooses some of them."""
_QUEUE = 16 * 1024 * 1024
"""Bytes that may wait for a slow peer before its link is dropped; a comparison repairs the rest."""
_BACKOFF = (0.1, 1.5)
"""Shortest and longest seconds between two attempts to reach a member."""
_LOOK = 0.5
"""Seconds between two looks at whether a link that was dialed is still heard."""
_LASTING = 5.0
"""Seconds after which a link was more than an attempt; longer than connecting and a handshake."""


class Mesh:
    """The runtime of a replica: its links are TCP connections.

    Args:
        config: the node's settings.
        random: what it draws jitter from.

    Raises:
        ConfigError: the files of the certificates do not fit.

    Attributes:
        isolated: whether the node is cut off on request.
        refused: how many handshakes were refused, by reason.
    """

    def __init__(self, config: Config, random: Random) -> None:
        self.isolated = False
        self.refused: Counter[str] = Counter()
        self._config = config
        self._credentials = Credentials(config) if config.uses_tls and config.listen is not None else None
        self._random = random
        self._replica: Replica | None = None
        self._links: dict[LinkId, Connection] = {}
        self._names = Names()
        self._number = 0
        self._strangers: set[Connection] = set()
        self._dialers: dict[str, asyncio.Task[None]] = {}
        self._attempts: dict[str, asyncio.Timeout] = {}
        self._readers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._told: set[tuple[str, str]] = set()
        self._aliases: dict[str, str] = {}

    @property
    def replica(self) -> Replica:
        """The replication this mesh carries."""
        assert self._replica is not None, "start() comes first"
        return self._replica

    async def start(self, replica: Replica) -> None:
        """Listen, and begin to dial the seeds and all known members once the caller waits for anything.

        Raises:
            ListenError: the address is taken or does not exist here.
        """
        if self._config.listen is None:
            self._replica = replica
            return
        if self._config.plain_tcp:
            logger.warning("plain_tcp is on: whoever is on the network can read and forge all sessions")
        host, port = parse_address(self._config.listen)
        try:
            self._server = await asyncio.start_server(self._incoming, host, port, limit=_READ_AHEAD)
        except OSError as error:
            raise ListenError(f"cannot listen on {self._config.listen}: {error.strerror or error}") from error
        self._replica = replica
        self.dial_missing()

    async def stop(self) -> None:
        """Close everything and wait until it is closed."""
        tasks = [*self._dialers.values(), *self._readers]
        for task in tasks:
            task.cancel()
        if self._server is not None:
            self._server.close()
        for number in list(self._links):
            self.drop(number, "this node stops")
        await asyncio.gather(*tasks, return_exceptions=True)

    def sockets(self) -> list[int]:
        """Return the file descriptors of all sockets, which a forked child must not keep."""
        listening = [s.fileno() for s in self._server.sockets] if self._server else []
        writers = [c.writer for c in {*self._links.values(), *self._strangers}]
        # The number of a closed socket may be another file's by now.
        connected = [w.get_extra_info("socket").fileno() for w in writers if not w.is_closing()]
        return [*listening, *connected]

    def send(self, links: Sequence[LinkId], message: Message) -> None:
        """Queue a message on links; drop those whose queue is full."""
        payload = encode_message(message)
        for number in links:
            connection = self._links.get(number)
            if connection is None or connection.writer.is_closing():
                continue  # the peer has closed it; whoever reads from it is about to notice
            if connection.backlog > _QUEUE:
                self.drop(number, f"more than {_QUEUE} bytes are waiting for it")
            else:
                connection.write(payload)

    def drop(self, link: LinkId, reason: str, level: int = logging.INFO) -> None:
        """Close a link at once."""
        connection = self._links.pop(link, None)
        if connection is None:
            return
        logger.log(level, "link %d to %s closed: %s", link, connection.peer, reason)
        connection.abort(reset=self.replica.is_silent(link))
        # Told from the loop, so that a replica never hears of a link in the middle of sending on it.
        asyncio.get_running_loop().call_soon(self._closed, link)

    def _closed(self, link: LinkId) -> None:
        try:
            self.replica.closed(link)
        except StoreError as error:  # what could not be written is, at the next tick
            logger.warning("the end of link %d is not written down yet: %s", link, error)

    def healed(self, report: HealReport) -> None:
        """Log what a heal did, in one line."""
        logger.info(
            "healed with %s after %.1f s apart, in %.2f s: %s",
            report.peer,
            (report.linked - report.parted) / SECOND,
            (report.healed - report.linked) / SECOND,
            report.summary(),
        )

    def alarm(self, what: str) -> None:
        """Log what an operator has to know."""
        logger.error("%s", what)

    def isolate(self, *, on: bool) -> None:
        """Cut this node off from all others, or let it back."""
        if on == self.isolated:
            return
        self.isolated = on
        if on:
            for number in list(self._links):
                self.drop(number, "this node is cut off on request")
        else:
            for task in self._dialers.values():
                task.cancel()
            self._dialers.clear()
            self.dial_missing()

    def dial_missing(self) -> None:
        """Make sure that every known address without a link is being dialed."""
        if self._config.listen is None or self.isolated:
            return
        if self._credentials is not None:
            self._credentials.renew()
        wanted = {*self._config.seeds, *(m.address for m in self.replica.membership.others())}
        wanted.discard(self.replica.membership.address)
        for address in wanted:
            task = self._dialers.get(address)
            if task is None or task.done():
                self._dialers[address] = asyncio.create_task(self._dial(address))
        for address in self._dialers.keys() - wanted:
            self._dialers.pop(address).cancel()

    async def _dial(self, address: str) -> None:
        try:
            check_address(self._config, address)
            check_dialable(address)
        except ConfigError as error:
            self._tell(address, str(error))
            await asyncio.sleep(60)  # it is looked at again as long as it is a member
            return
        pause = _BACKOFF[0]
        while True:
            begun = asyncio.get_running_loop().time()
            if not self._is_linked(address) and not self.isolated:
                await self._dial_once(address)
            spent = asyncio.get_running_loop().time() - begun
            if spent > _LASTING:
                pause = _BACKOFF[0]
            # An attempt that nobody answered has been a pause by itself.
            rest = pause - spent if spent < _HANDSHAKE else 0.0
            await asyncio.sleep(max(_BACKOFF[0], rest) * self._random.uniform(0.5, 1.0))
            pause = min(pause * 2, _BACKOFF[1])

    def _is_linked(self, address: str) -> bool:
        return self.replica.is_linked(self._aliases.get(address, address))

    async def _dial_once(self, address: str) -> None:
        """Connect and stay until the link ends or has fallen silent."""
        try:
            async with asyncio.timeout(_HANDSHAKE) as attempt:
                self._attempts[address] = attempt
                host, port = parse_address(address)
                reader, writer = await _connect(await self._names.addresses(host), port)
        except UnicodeError:  # of a peer's list; the settings are checked
            self._tell(address, "cannot be reached: its host is no name that can be looked up")
            return
        except (OSError, TimeoutError) as error:
            if not self._is_linked(address):
                self._tell(address, f"cannot be reached: {getattr(error, 'strerror', None) or 'no answer'}")
            return
        finally:
            self._attempts.pop(address, None)
        if self._is_linked(address):
            writer.transport.abort()  # the peer was faster, or is heard again
            return
        number = await self._open(Connection(reader, writer, self._credentials), address)
        if number:
            reading = asyncio.create_task(self._receive(number))
            self._readers.add(reading)
            reading.add_done_callback(self._readers.discard)
            while not reading.done() and self._is_linked(address):
                await asyncio.wait([reading], timeout=_LOOK)

    async def _incoming(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._readers.add(task)
        try:
            if self._replica is None:
                writer.transport.abort()  # it was faster than the start, and dials again
            elif self.isolated or len(self._strangers) >= _MOST_STRANGERS:
                if not self.isolated:
                    peer = writer.get_extra_info("peername")
                    self._tell(peer[0] if peer else "unknown", "too many connections without a handshake")
                writer.transport.abort()
            else:
                number = await self._open(Connection(reader, writer, self._credentials), None)
                if number:
                    await self._receive(number)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._readers.discard(task)

    async def _open(self, connection: Connection, dialed: str | None) -> LinkId:
        """Shake hands; return the number of the link that is up, 0 if there is none."""
        number = 0
        name = dialed or connection.host  # its port is another one each time
        self._strangers.add(connection)
        try:
            hello = await self._handshake(connection, dialed)
            if hello is None or self.isolated:
                return 0
            self._number += 1
            number = self._number
            self._links[number] = connection
            if dialed is not None:
                self._aliases[dialed] = hello.member.address
            self.replica.opened(number, hello, dialed=dialed is not None)
            for address, attempt in self._attempts.items():
                if self._is_linked(address) and not attempt.expired():
                    attempt.reschedule(0.0)  # the peer was faster: a crossing link would begin anew
            self.dial_missing()
        except (CanisterError, OSError, EOFError, TimeoutError) as error:
            if isinstance(error, HandshakeError):
                self.refused[error.kind] += 1
            self._tell(name, _reason(error))
            self.drop(number, _reason(error))
            return 0
        finally:
            self._strangers.discard(connection)
            if not number:
                connection.writer.transport.abort()
        return number

    async def _handshake(self, connection: Connection, dialed: str | None) -> Hello | None:
        async with asyncio.timeout(_HANDSHAKE):
            hello = await connection.greet(self.replica.hello, dialed=dialed is not None)
        reason = self.replica.refusal(hello)
        if reason is None:
            return hello
        if dialed is not None and hello.member.node == self.replica.store.node:
            return None  # said silently, and tried again: another program may have echoed the hello
        await connection.refuse(f"{hello.member.address} {reason}")
        who = "it" if dialed == hello.member.address else hello.member.address
        raise HandshakeError("no member", f"refused: {who} {reason}")

    async def _receive(self, number: LinkId) -> None:
        connection, link = self._links.get(number), self.replica.links.get(number)
        if connection is None or link is None:
            return  # it had crossed another one
        reason, level = "it closed the connection", logging.INFO
        heard = partial(self.replica.heard, number)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            while number in self._links:
                if loop.time() - begun > _TURN:
                    await asyncio.sleep(0)  # reading what is buffered already does not wait
                    begun = loop.time()
                message = await connection.read(MAX_FRAME, heard)
                if isinstance(message, Refused):
                    raise HandshakeError("by the peer", f"it refuses this node: {message.reason}")
                if not connection.is_accepted:
                    self._accepted(number, connection, link.address)
                self.replica.received(number, message)
        except (CanisterError, OSError, EOFError) as error:  # a full disk ends the link as well
            reason = _reason(error)
            if isinstance(error, HandshakeError):
                level = logging.DEBUG  # what is told once
                self.refused[error.kind] += 1
            if isinstance(error, CanisterError):
                self._tell(link.address, reason)
        finally:
            self.drop(number, reason, level)

    def _accepted(self, number: LinkId, connection: Connection, peer: str) -> None:
        """A peer has said more than its hello: it does not refuse this node, and its troubles are over."""
        connection.is_accepted = True
        names = {peer, *(name for name, address in self._aliases.items() if address == peer)}
        self._told = {told for told in self._told if told[0] not in names}
        logger.info("link %d to %s (%s) is up", number, peer, connection.peer)

    def _tell(self, peer: str, what: str) -> None:
        """Log a trouble with a peer once, until a link to it comes up."""
        what = "".join(c if c.isprintable() else "?" for c in what[:_LONGEST_TOLD])
        of_one = sum(told[0] == peer for told in self._told)
        if (peer, what) not in self._told and len(self._told) < _MOST_TOLD and of_one < _MOST_TOLD_OF_ONE:
            self._told.add((peer, what))
            logger.warning("%s: %s", peer, what)


async def _connect(hosts: Sequence[str], port: int) -> _Streams:
    """Connect; while nobody answers, begin anew again and again, and take whichever is first."""
    attempts: set[asyncio.Task[_Streams]] = set()
    try:
        while True:
            first = len(attempts) % len(hosts)  # one that is mute is no longer the first next time
            attempts.add(asyncio.create_task(_open([*hosts[first:], *hosts[:first]], port)))
            done, _ = await asyncio.wait(attempts, timeout=_AGAIN, return_when=asyncio.FIRST_COMPLETED)
            if done:
                answered = done.pop()
                attempts.discard(answered)
                return answered.result()
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(_abandon)


async def _open(hosts: Sequence[str], port: int) -> _Streams:
    """Connect to the first of a host's addresses that does not refuse."""
    for host in hosts[:-1]:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(host, port, limit=_READ_AHEAD)
    return await asyncio.open_connection(hosts[-1], port, limit=_READ_AHEAD)


def _abandon(attempt: "asyncio.Task[_Streams]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result()[1].transport.abort()


def _reason(error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "it closed the connection"
    if isinstance(error, TimeoutError):
        return "it did not finish its handshake in time"
    return str(error)
