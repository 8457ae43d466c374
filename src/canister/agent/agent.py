"""The agent: one asyncio loop that replicates, answers the node's processes and keeps the store tidy."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, TypeVar

from canister.agent import control
from canister.agent.control import AgentStatus, MemberState
from canister.agent.helpers import Helpers
from canister.agent.log_upkeep import keep_log_short
from canister.agent.mesh import Mesh
from canister.agent.presence import stay
from canister.agent.sockets import socket_path
from canister.agent.wake import WakeFlag
from canister.clock import SECOND, Clock, steady
from canister.config import Config
from canister.errors import CanisterError, StoreError
from canister.freshness import Fetched
from canister.replication.acks import Holders
from canister.replication.membership import Membership, introduce, statement
from canister.replication.replica import Replica
from canister.store.base import Needed
from canister.store.sqlite import SqliteStore

T = TypeVar("T")

logger = logging.getLogger("canister.agent")

_ALONE = "local"
"""What a node calls itself that has no address."""
_TICK = 0.2
_NEXT_TRIM = 0.002
"""Seconds until more of the log is trimmed, where that was not all: meanwhile others write."""
_GATHER, _GATHER_MOST, _GATHER_ALONE = 0.001, 0.005, 0.02
"""Seconds for which busy writers' commits are gathered: the least and the most for peers, and without any."""
_GATHER_SHARE = 0.2
"""Part of the time that is spent with what was gathered, as long as that takes no longer pauses."""
_SWEEP_BATCH = 10
"""Sessions dropped at once: writers wait for them no longer than for each other."""
_SWEEP_SHARE = 0.25
"""Part of the time that a sweep takes; the rest are pauses."""
_READ_BATCH = 512
"""Buckets whose digests are read at once: of a million sessions eight thousand."""
_MAX_REQUEST = 32 * 1024 * 1024
"""Bytes of a request: the ids of some ten thousand sessions to resync."""
_MOST_FETCHES = 256
"""Sessions asked for at once; more unknown ids than that are answered with "cannot tell"."""


class Agent:
    """The agent of one node; `run` returns when the task is cancelled.

    Args:
        store: the node's sessions.
        config: the node's settings.
        clock: where the time comes from.
        random: what it draws jitter from.
        helpers: the threads that do what waits for the disk.
    """

    def __init__(
        self, store: SqliteStore, config: Config, clock: Clock, random: Random, helpers: Helpers
    ) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._random = random
        self._helpers = helpers
        self._mesh = Mesh(config, random)
        self._replica = Replica(store, self._membership(), config, clock, self._mesh, random, steady)
        self._control: asyncio.Server | None = None
        self._wake: socket.socket | None = None
        self._askers: set[asyncio.StreamWriter] = set()
        self._flag = WakeFlag(store.files.wake_flag)
        self._gathering: asyncio.TimerHandle | None = None
        self._has_read = asyncio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        """Replicate until cancelled; *started* is called once all sockets are open.

        Raises:
            ListenError: the configured address cannot be listened on.
        """
        try:
            # An address that cannot be listened on is not written down: it would be a member for good.
            await self._mesh.start(self._replica)
            self._replica.start()
            await self._open_sockets()
            started()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._tick())
                tasks.create_task(self._trim())
                tasks.create_task(keep_log_short(self._store, self._helpers))
                tasks.create_task(self._sweep())
        finally:
            await self._close()

    def sockets(self) -> list[int]:
        """Return the file descriptors of all sockets, which a forked child must not keep."""
        own = [s.fileno() for s in self._control.sockets] if self._control else []
        own += [w.get_extra_info("socket").fileno() for w in self._askers if not w.is_closing()]
        if self._wake is not None:
            own.append(self._wake.fileno())
        return [*own, *self._mesh.sockets()]

    def _membership(self) -> Membership:
        address = self._config.address or _ALONE
        # A node that has got an address is no second member, for which all would wait for ever.
        stored = [m for m in self._store.members() if m.address == address or m.address != _ALONE]
        with self._store.snapshot() as snapshot:
            last = snapshot.last_stamp()
        version = statement(stored, self._store.node, last, self._clock.now())
        empty = next(self._store.scan(), None) is None
        me = introduce(stored, address, self._store.node, version, empty=empty)
        membership = Membership(stored, me, self._config.seeds)
        # One that is started alone for a while is still the member that it was.
        for former in membership.leave_former() if address != _ALONE else ():
            logger.info("%s was this node's address, it leaves the cluster", former.address)
        return membership

    async def _open_sockets(self) -> None:
        loop = asyncio.get_running_loop()
        files = self._store.files
        for path in (files.control_socket, files.wake_socket):
            path.unlink(missing_ok=True)
        with socket_path(files.control_socket) as name:
            self._control = await asyncio.start_unix_server(self._serve, name)
        self._wake = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wake.setblocking(False)
        with socket_path(files.wake_socket) as name:
            self._wake.bind(name)
        loop.add_reader(self._wake, self._woken)
        for path in (files.control_socket, files.wake_socket):
            path.chmod(0o600)

    async def _close(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._gathering is not None:
            self._gathering.cancel()
        if self._wake is not None:
            asyncio.get_running_loop().remove_reader(self._wake)
            self._wake.close()
        await self._mesh.stop()
        self._flag.close()
        for path in (self._store.files.control_socket, self._store.files.wake_socket):
            path.unlink(missing_ok=True)  # last: it fails where the disk has become read-only

    # What is due.

    def _woken(self) -> None:
        """The log has grown; all wakes that wait are one."""
        with contextlib.suppress(BlockingIOError):
            while self._wake is not None:
                self._wake.recv(1)
        self._gather()

    def _gather(self) -> None:
        """Send what was logged; stay awake while more is logged than one commit at a time.

        Writers then wake nobody, and one look at the log serves many of their commits.
        """
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._config.listen is not None:  # alone, nobody has to hear of a commit at once
            self._flag.sleep()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if self._replica.poll() > 1:
            self._flag.rouse()
            pause = (loop.time() - begun) * (1 / _GATHER_SHARE - 1)
            pause = min(max(_GATHER, pause), _GATHER_MOST) if self._replica.links else _GATHER_ALONE
            self._gathering = loop.call_later(pause, self._gather)

    async def _read(self) -> None:
        """Read the digests bit by bit, while all else is served."""
        while not self._has_read.is_set():
            if self._replica.read(_READ_BATCH):
                self._has_read.set()
            await asyncio.sleep(0)

    async def _tick(self) -> None:
        while True:
            self._store.check_file()
            stay(self._store.files.agent_lock)
            self._gather()
            self._replica.tick()
            self._mesh.dial_missing()
            await asyncio.sleep(_TICK)

    async def _trim(self) -> None:
        while True:
            has_more = self._replica.trim()
            await asyncio.sleep(_NEXT_TRIM if has_more else _TICK)

    async def _sweep(self) -> None:
        while True:
            jitter = self._config.interval_jitter.total_seconds()
            pause = self._config.clear_interval.total_seconds() + self._random.uniform(-jitter, jitter)
            await asyncio.sleep(max(1.0, pause))
            dropped = await self._sweep_kind(destroyed=False) + await self._sweep_kind(destroyed=True)
            logger.info("swept %d sessions", dropped)

    async def _sweep_kind(self, *, destroyed: bool) -> int:
        """Sweep in small batches with pauses, so that writers hardly wait."""
        loop = asyncio.get_running_loop()
        total = 0
        while True:
            begun = loop.time()
            gate = self._replica.gate()
            sweep = partial(self._store.sweep, gate, _SWEEP_BATCH, destroyed=destroyed)
            dropped = await self._helpers.run(sweep)
            total += dropped
            if dropped < _SWEEP_BATCH:
                return total
            await asyncio.sleep((loop.time() - begun) * (1 / _SWEEP_SHARE - 1))

    # What the node's processes ask.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._askers.add(writer)
        try:
            while True:
                length = control.frame_length(await reader.readexactly(4))
                if length > _MAX_REQUEST:
                    raise ValueError(f"a request claims {length} bytes")
                request = control.request_decoder.decode(await reader.readexactly(length))
                try:
                    payload = control.encode_reply(await self._answer(request))
                except CanisterError as error:
                    payload = control.encode_failure(str(error))
                writer.write(control.frame(payload))
                await writer.drain()
        except (EOFError, OSError, ValueError, OverflowError, RecursionError) as error:
            logger.debug("a process hung up: %s", error)
        except asyncio.CancelledError:  # the agent stops; the streams of Python 3.11 print it as an error
            logger.debug("a process was not answered")
        finally:
            self._askers.discard(writer)
            writer.close()

    async def _answer(self, request: control.AnyRequest) -> Any:
        match request:
            case control.AskStatus(at):
                await self._has_read.wait()
                return self._status(at)
            case control.AskHeals():
                heals = self._replica.comparisons.heals
                return control.Heals(list(heals.reports), heals.last_equal)
            case control.FetchSession(session, timeout):
                return await self._fetch(session, timeout)
            case control.Resync(None):
                self._replica.pull_now()
                return None
            case control.Resync(sessions):
                timeout = self._config.remote_timeout.total_seconds()
                await asyncio.gather(*(self._fetch(session, timeout) for session in sessions or ()))
                return None
            case control.AwaitAcks(stamp, acks, timeout):
                return await self._await_acks(stamp, acks, timeout)
            case control.Forget(session):
                return self._replica.forget(session)
            case control.Sweep(destroyed):
                return await self._sweep_kind(destroyed=destroyed)
            case control.Isolate(on):
                self._mesh.isolate(on=on)
                return None
            case control.RemoveMember(address):
                if not self._replica.remove_member(address):
                    raise StoreError(f"{address} is not a member that can be removed; see `canister status`")
                return None

    async def _fetch(self, session: bytes, patience: float) -> control.FetchReply:
        fetches = self._replica.fetches
        if len(fetches) >= _MOST_FETCHES:
            return control.FetchReply([], everyone=False)
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Fetched] = loop.create_future()
        number = fetches.start(session, list(self._replica.links), partial(_settle, outcome))
        loop.call_later(patience, fetches.expire, number)
        fetched = await outcome
        return control.FetchReply(fetched.answers, fetched.everyone)

    async def _await_acks(self, stamp: int, needed: Needed, patience: float) -> control.AcksReply:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Holders] = loop.create_future()
        number = self._replica.await_acks(stamp, needed, partial(_settle, outcome))
        loop.call_later(patience, self._replica.acks.expire, number)
        holders = await outcome
        return control.AcksReply(holders.members, holders.needed)

    def _status(self, at: int) -> AgentStatus:
        return AgentStatus(
            members=self._members(),
            digest=self._replica.digest(at).hex(),
            queued=self._replica.queued(),
            isolated=self._mesh.isolated,
            pid=os.getpid(),
            refused=dict(self._mesh.refused),
            compared=self._replica.gate(),
        )

    def _members(self) -> list[MemberState]:
        links = {link.address: link for link in self._replica.links.values()}
        with self._store.snapshot() as snapshot:
            last = snapshot.last_stamp()
        membership = self._replica.membership
        me = membership.me
        states = [MemberState(me.address, "removed" if me.removed else "self", me.node.hex())]
        for member in membership.all():
            link = links.get(member.address)
            if member.address == me.address:
                continue
            if link is None:
                state = "removed" if member.removed else "down"
                states.append(MemberState(member.address, state, member.node.hex()))
                continue
            heard = link.heard_by_peer
            lag = None if not heard else max(0, last - heard) / SECOND
            state = "up" if link.is_sound else "comparing"
            offset = link.clock_offset / SECOND
            fit = self._replica.keys.fit(link)
            states.append(MemberState(member.address, state, member.node.hex(), lag, offset, fit))
        return states


def _settle(outcome: asyncio.Future[T], value: T) -> None:
    """Give an answer to who waits for it, unless that one has gone."""
    if not outcome.done():
        outcome.set_result(value)
