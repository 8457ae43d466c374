"""One node of a search: a real `MemoryStore` and `Replica`, stepped by copying them."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from canister.clock import SECOND, next_stamp
from canister.errors import ProtocolError, SessionError
from canister.record import (
    NODE_ID_BYTES,
    NodeId,
    Record,
    Version,
    decode_record,
    make_version,
    merge,
    stamp_of,
)
from canister.replication.healing import HealReport
from canister.replication.link import LinkId
from canister.replication.live import LiveFlow
from canister.replication.membership import Membership, introduce
from canister.replication.messages import Hello, Message, decode_message, encode_message
from canister.replication.replica import Replica
from canister.store.base import BUCKETS
from canister.store.memory import MemoryStore
from canister.testing.clock import ManualClock
from canister.testing.interleavings.cases import CONFIG, NAMES, WAIT, Case, Verb, edit_of
from canister.testing.interleavings.state import Chance, Shared, copy, freeze
from canister.testing.simulation.checks import Violation

START = 1_800_000_000 * SECOND
"""When the nodes start; any instant would do."""
IDS = tuple(NodeId(name.encode() * NODE_ID_BYTES) for name in NAMES)

Payload = bytes
CLOSED: Payload = b""
"""Stands in a queue for the end of a link."""


class Event(NamedTuple):
    """What happens to one node.

    *peer* is the other node of ``hello`` (dial or be dialed) and ``receive``, the operation's number
    in ``operate``. *generation* tells a link from the one before it; *payload* is what arrives.
    """

    kind: Literal["operate", "poll", "hello", "receive"]
    peer: int = 0
    generation: int = 0
    payload: Payload = CLOSED


class Sent(NamedTuple):
    """A message on its way."""

    peer: int
    generation: int
    payload: Payload


class Commit(NamedTuple):
    """What an operation wrote."""

    version: Version
    session: bytes
    delta: bytes

    @property
    def record(self) -> Record:
        """The commit as written."""
        return decode_record(self.delta)


class Seat(Shared):
    """What all states of one node act through; a `canister.replication.runtime.Runtime`."""

    def __init__(self, number: int, case: Case) -> None:
        self.number = number
        self.ops = (*case.ops, *case.before)
        self.clock = ManualClock(START + case.skew[number])
        self.sent: list[Sent] = []

    def send(self, links: Sequence[LinkId], message: Message) -> None:
        """Note a message that was sent."""
        payload = encode_message(message)
        self.sent += [Sent(link // 2, link % 2, payload) for link in links]

    def drop(self, link: LinkId, reason: str) -> None:
        """Refuse: between correct nodes no link is given up.

        Raises:
            Violation: always.
        """
        raise Violation(f"{NAMES[self.number]} drops its link to {NAMES[link // 2]}: {reason}")

    def healed(self, report: HealReport) -> None:
        """Ignore a report."""

    def alarm(self, what: str) -> None:
        """Ignore an alarm."""


class Node:
    """The state of one node at one moment. It is never changed: `step` works on a copy."""

    def __init__(self, seat: Seat, replica: Replica, now: int) -> None:
        self.seat = seat
        self.replica = replica
        self.now = now

    @classmethod
    def boot(cls, seat: Seat) -> "Node":
        """Return a node that has just started, empty."""
        now = seat.clock.now()
        store = MemoryStore(CONFIG, seat.clock, IDS[seat.number])
        version = make_version(next_stamp(0, now), store.node)
        me = introduce([], _address(seat.number), store.node, version, empty=True)
        membership = Membership([], me, [_address(0)])
        replica = Replica(store, membership, CONFIG, seat.clock, seat, Chance(), seat.clock.now)
        replica.start()
        replica.read(BUCKETS)
        return cls(seat, replica, now)

    @property
    def store(self) -> MemoryStore:
        """The node's sessions."""
        store = self.replica.store
        assert isinstance(store, MemoryStore)
        return store

    @property
    def has_news(self) -> bool:
        """Tell whether there is a commit of this node that its replication has not taken in."""
        changes = [change for entry in self.store.log(self._applied) for change in entry.changes]
        return any(change.delta is not None for change in changes)

    def key(self) -> Any:
        """Return a hashable value, equal for nodes in the same state."""
        pending = tuple(
            (entry.stamp, freeze(entry.changes, set())) for entry in self.store.log(self._applied)
        )
        return self.seat.number, self.now, self.store.last_stamp(), pending, freeze(self.replica, set())

    def step(self, event: Event) -> tuple["Node", list[Sent], Commit | None]:
        """Return the node after an event, what it sent, and what it wrote if it was an operation.

        Raises:
            Violation: the code did what it never may.
        """
        after = self.copy()
        commit: Commit | None = None
        try:
            if event.kind == "operate":
                commit = after._operate(self.seat.ops[event.peer].verb, event.peer)
            elif event.kind == "poll":
                after.replica.poll()
            elif event.kind == "hello":
                self.seat.send([2 * event.peer + event.generation], after.replica.hello())
            else:
                after._receive(event)
        except ProtocolError as error:
            raise Violation(f"{NAMES[self.seat.number]} refuses what a correct node sent: {error}") from error
        after.store.trim_log(after._applied)
        return after, self.seat.sent, commit

    def copy(self) -> "Node":
        """Return a copy to act on; what the node's other states sent is forgotten."""
        self.seat.clock.set(self.now)
        self.seat.sent = []
        return Node(self.seat, copy(self.replica, {}), self.now)

    def later(self, duration: int) -> "Node":
        """Return the node with its clock moved."""
        return Node(self.seat, self.replica, self.now + duration)

    @property
    def _applied(self) -> int:
        live: LiveFlow = vars(self.replica)["_live"]
        return live.tree.applied

    def _operate(self, verb: Verb, number: int) -> Commit | None:
        if verb == "wait":
            self.now = self.seat.clock.advance(WAIT)
            self.store.release()
            return None
        session, edit = edit_of(verb, number)
        last = self.store.last_stamp()
        try:
            version = self.store.commit([(session, edit)])
        except SessionError:
            return None
        if version is None:
            return None
        delta = self.store.entries[-1].changes[0].delta
        assert delta is not None
        commit = Commit(version, session, delta)
        if stamp_of(version) <= last:
            raise Violation("R1: a stamp is not greater than the one before")
        record = self.store.load(session).record
        if record is None or merge(record, commit.record) != record or _hidden(commit, record):
            raise Violation(f"R4: {NAMES[self.seat.number]} does not show what it has just written")
        return commit

    def _receive(self, event: Event) -> None:
        number = 2 * event.peer + event.generation
        if event.payload == CLOSED:
            self.replica.closed(number)
            return
        message = decode_message(event.payload)
        if not isinstance(message, Hello):
            self.replica.received(number, message)
        elif reason := self.replica.refusal(message):
            raise Violation(f"{NAMES[self.seat.number]} refuses {NAMES[event.peer]}: it {reason}")
        else:
            self.replica.opened(number, message, dialed=self.seat.number < event.peer)


def describe(payload: Payload) -> str:
    """Return what a payload is, for a person who reads a trace."""
    return "the end of the link" if payload == CLOSED else type(decode_message(payload)).__name__


def _address(number: int) -> str:
    return f"node-{NAMES[number]}:7400"


def _hidden(commit: Commit, record: Record) -> bool:
    """Tell whether a key just written is not the one shown."""
    if record.destroy is not None:
        return False
    return any(record.cells.get(slot) != cell for slot, cell in commit.record.cells.items())
