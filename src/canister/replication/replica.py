"""One node's replication: live commits, comparisons, fetches and membership over any number of links.

`Replica` consumes events (a link opened, a message, a tick, the log has grown) and acts through `Runtime`
and the store. It reads no clock but the one it was given and opens nothing.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from canister.clock import SECOND, Clock, micros
from canister.config import Config
from canister.errors import ProtocolError
from canister.freshness import Answer
from canister.life import NEVER
from canister.record import Record, check_record, decode_record
from canister.replication.answers import answer, answer_root
from canister.replication.digests import DigestTree, View
from canister.replication.fetches import Fetches
from canister.replication.link import Link, LinkId
from canister.replication.membership import Membership
from canister.replication.messages import (
    OLDEST,
    PROTOCOL,
    AskDigests,
    AskListing,
    AskRoot,
    AskRows,
    Digests,
    Fetch,
    Fetched,
    Hello,
    Listing,
    Live,
    MemberList,
    Message,
    Root,
    Row,
    Rows,
)
from canister.replication.pull import Pull
from canister.store.base import LogEntry, Member, ReplicatedStore, Snapshot

if TYPE_CHECKING:
    from random import Random

_LIVE_FRAME = 256 * 1024
"""Bytes of commits after which a live frame is sent."""
_HEARTBEATS = 8
"""Heartbeats in one node interval: a peer is given up after missing that many."""
_TRIM_AFTER = 5 * SECOND


class Runtime(Protocol):
    """What a replica acts through."""

    def send(self, links: Sequence[LinkId], message: Message) -> None:
        """Queue a message on links; never blocks, drops a link whose queue is full."""
        ...

    def drop(self, link: LinkId, reason: str) -> None:
        """Close a link; `Replica.closed` follows."""
        ...


class Replica:
    """The replication of one node.

    Args:
        store: the node's sessions.
        membership: whom the node knows.
        config: the node's settings.
        clock: where the time comes from.
        runtime: what it acts through.
        random: what it draws jitter and the incarnation from.
    """

    def __init__(
        self,
        store: ReplicatedStore,
        membership: Membership,
        config: Config,
        clock: Clock,
        runtime: Runtime,
        random: "Random",
    ) -> None:
        self.store = store
        self.membership = membership
        self.links: dict[LinkId, Link] = {}
        self._config = config
        self._clock = clock
        self._runtime = runtime
        self._random = random
        self._incarnation = random.randbytes(8)
        self._node_interval = micros(config.node_interval)
        self._digest_interval = micros(config.digest_interval)
        self._tree = DigestTree()
        self._round = 0
        self._doubts = -1
        self._next_upkeep = 0
        self.fetches = Fetches(membership, lambda link, message: runtime.send([link], message))
        self._handlers: dict[type[Message], Callable[[Link, Any], None]] = {
            Live: self._on_live,
            MemberList: self._on_membership,
            AskRoot: self._on_ask_root,
            AskDigests: self._on_ask,
            AskListing: self._on_ask,
            AskRows: self._on_ask,
            Root: self._on_answer,
            Digests: self._on_answer,
            Listing: self._on_answer,
            Rows: self._on_answer,
            Fetch: self._on_fetch,
            Fetched: self._on_fetched,
        }

    def start(self) -> None:
        """Build the digests and note that nothing has been compared yet."""
        with self.store.snapshot() as snapshot:
            self._tree.build(snapshot, self._clock.now())
        self.store.save_members(self.membership.all())
        self._count_doubts()

    def hello(self) -> Hello:
        """Return the first message for a new link."""
        return Hello(
            oldest=OLDEST,
            newest=PROTOCOL,
            cluster=self._config.cluster,
            member=self.membership.me,
            incarnation=self._incarnation,
            now=self._clock.now(),
            members=self.membership.all(),
        )

    def refusal(self, hello: Hello) -> str | None:
        """Return why a peer that says *hello* cannot be linked with, None if it can."""
        if hello.oldest > PROTOCOL or hello.newest < OLDEST:
            return f"speaks protocol {hello.oldest} to {hello.newest}, this node {OLDEST} to {PROTOCOL}"
        if hello.cluster != self._config.cluster:
            return f"belongs to cluster {hello.cluster!r}, this node to {self._config.cluster!r}"
        if hello.member.node == self.store.node or hello.member.address == self.membership.address:
            return "is this node itself, or another one with its address or a copy of its data"
        if hello.member.removed or self.membership.is_removed(hello.member):
            return f"{hello.member.address} was removed from the cluster; it may return with empty data only"
        if self.membership.me.removed:
            return "this node was removed from the cluster; start it with an empty data directory"
        return None

    def opened(self, number: LinkId, hello: Hello, *, dialed: bool) -> None:
        """A link came up and the peer's hello was accepted; it may be refused here as a crossing one."""
        now = self._clock.now()
        link = Link(number, hello, now, dialed=dialed)
        for old in [old for old in self.links.values() if old.address == link.address]:
            if self._keeps(old, link, now):
                self._runtime.drop(number, "crossed by another link to the same peer")
                return
            self._close(old.number, "replaced by a new link to the same peer")
        self.poll()  # what is logged so far belongs to the comparison, what follows to this link
        self.links[number] = link
        self._learn(hello.members)
        self._count_doubts()
        self._start_pull(link)

    def closed(self, number: LinkId) -> None:
        """A link is gone."""
        if self.links.pop(number, None) is not None:
            self.fetches.lost(number)
            self._count_doubts()

    def received(self, number: LinkId, message: Message) -> None:
        """A message arrived.

        Raises:
            ProtocolError: it does not fit; the link is of no more use.
        """
        link = self.links.get(number)
        if link is None:
            return
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"a {type(message).__name__} is out of place")
        link.last_received = self._clock.now()
        handler(link, message)

    def poll(self) -> None:
        """Send what was committed on this node since the last call."""
        with self.store.snapshot() as snapshot:
            self._flow(snapshot)

    def tick(self) -> None:
        """Do what is due: heartbeats, silent peers, comparisons, upkeep. Call some times a second."""
        now = self._clock.now()
        for link in list(self.links.values()):
            if now - link.last_received > self._node_interval:
                self._close(link.number, f"silent for {(now - link.last_received) / SECOND:.1f} s")
            elif link.pull is None and now >= link.next_pull:
                self._start_pull(link)
        beat = self._node_interval // _HEARTBEATS
        idle = [link for link in self.links.values() if now - link.last_sent >= beat]
        if idle:
            with self.store.snapshot() as snapshot:
                self._flow(snapshot)
                for link in idle:
                    self._send_live([link], [], snapshot)
        if now >= self._next_upkeep:
            self._next_upkeep = now + SECOND
            self.store.release()
            self.store.trim_log(min(self._tree.applied, now - _TRIM_AFTER))

    def pull_now(self) -> None:
        """Compare with every linked peer as soon as possible."""
        for link in self.links.values():
            link.next_pull = 0
        self.tick()

    def remove_member(self, address: str) -> bool:
        """Take a member out of the cluster; return whether it was in it."""
        removed = self.membership.remove(address)
        if removed:
            self._members_changed()
        return removed

    def forget(self, session: bytes) -> bool:
        """Drop this node's copy of a session; until compared anew, nothing may be called heard."""
        forgotten = self.store.forget(session)
        for link in self.links.values():
            link.reconciled_at = 0
            self._start_pull(link)
        self._count_doubts()
        return forgotten

    def digest(self, at: int) -> bytes:
        """Return the digest of all this node holds as of *at*; equal on nodes that hold the same."""
        with self._view() as view:
            return view.root(at)

    def gate(self) -> int:
        """Return the instant up to which all members have been compared with on their present links."""
        by_address = {link.address: link.reconciled_at for link in self.links.values()}
        return min((by_address.get(m.address, 0) for m in self.membership.others()), default=NEVER)

    def queued(self) -> int:
        """Return how many questions and sessions are still open with peers."""
        pulls = sum(link.pull.queued for link in self.links.values() if link.pull)
        return pulls + sum(len(link.awaited) for link in self.links.values())

    # What arrives.

    def _on_live(self, link: Link, message: Live) -> None:
        link.clock_offset = message.now - link.last_received
        link.held_by_peer = max(link.held_by_peer, message.held)
        batch = [self._decode(row) for commit in message.commits for row in commit]
        link.live_upto = max(link.live_upto, message.upto)
        if not batch:
            self._vouch(link)
            return
        merged = self.store.merge(batch, {})
        for session in merged.doubtful:
            self._await_session(link, session)
        self._vouch(link)

    def _vouch(self, link: Link) -> None:
        heard = link.vouched()
        if heard and self.store.heard_of(link.node) < link.live_upto:
            self.store.merge([], heard)

    def _await_session(self, link: Link, session: bytes) -> None:
        if session not in link.awaited.values():
            number = self.fetches.draw()
            link.awaited[number] = session
            self._runtime.send([link.number], Fetch(number, session))

    def _on_membership(self, link: Link, message: MemberList) -> None:
        self._learn(message.members)

    def _on_ask_root(self, link: Link, question: AskRoot) -> None:
        with self._view() as view:
            root = answer_root(question, view, self._clock.now(), self.store.node, self.membership.all())
            self._runtime.send([link.number], root)

    def _on_ask(self, link: Link, question: AskDigests | AskListing | AskRows) -> None:
        with self._view() as view:
            for message in answer(question, view):
                self._runtime.send([link.number], message)

    def _on_answer(self, link: Link, message: Root | Digests | Listing | Rows) -> None:
        pull = link.pull
        if pull is None or message.round != pull.round:
            return
        if isinstance(message, Root):
            self._learn(message.members)
        question = pull.question
        with self._view() as view:
            rows = pull.answered(message, view)
        if rows is not None:
            self.store.merge([self._decode(row) for row in rows], {})
        if pull.done:
            self._finish_pull(link, pull)
        elif pull.question is not question:
            self._runtime.send([link.number], pull.question)

    def _on_fetch(self, link: Link, question: Fetch) -> None:
        with self._view() as view:
            heard = {**view.snapshot.heard(), self.store.node: view.snapshot.last_stamp()}
            record = view.snapshot.whole(question.session)
        reply = Fetched(question.number, record, heard, self.membership.all())
        self._runtime.send([link.number], reply)

    def _on_fetched(self, link: Link, message: Fetched) -> None:
        self._learn(message.members)
        session = link.awaited.pop(message.number, None) or self.fetches.session(message.number)
        if session is not None and message.record is not None:
            self.store.merge([self._decode((session, message.record))], {})
        self._vouch(link)
        self._count_doubts()
        self.fetches.answered(link.number, message.number, Answer(link.node, message.heard))

    # What is due.

    def _flow(self, snapshot: Snapshot) -> None:
        entries = self._tree.catch_up(snapshot)
        links = list(self.links.values())
        if not entries or not links:
            return
        commits: list[list[Row]] = []
        size = 0
        for commit in filter(None, map(_own_commit, entries)):
            commits.append(commit)
            size += sum(len(session) + len(delta) for session, delta in commit)
            if size > _LIVE_FRAME:
                self._send_live(links, commits, None)
                commits, size = [], 0
        self._send_live(links, commits, snapshot)

    def _send_live(self, links: list[Link], commits: list[list[Row]], snapshot: Snapshot | None) -> None:
        """Send commits; with a snapshot, all up to its last stamp have been sent."""
        now = self._clock.now()
        upto = snapshot.last_stamp() if snapshot else 0
        heard = snapshot.heard() if snapshot else {}
        held = {link.number: heard.get(link.node, 0) for link in links}
        for link in links:
            link.last_sent = now
            self._runtime.send([link.number], Live(commits, upto, held[link.number], now))

    def _start_pull(self, link: Link) -> None:
        self._round += 1
        link.pull = Pull(self._round, self._clock.now())
        self._runtime.send([link.number], link.pull.question)

    def _finish_pull(self, link: Link, pull: Pull) -> None:
        """All the peer claimed is here: note it, with the live commits that arrived meanwhile."""
        link.pull = None
        link.reconciled_at = pull.at
        jitter = self._random.uniform(0.9, 1.1)
        link.next_pull = self._clock.now() + int(self._interval() * jitter)
        self.store.merge([], pull.claims)
        self._vouch(link)
        self._count_doubts()

    def _interval(self) -> int:
        """Compare more often while some member has no link here: its changes come through others."""
        return self._digest_interval if self._all_linked() else min(SECOND, self._digest_interval)

    def _all_linked(self) -> bool:
        linked = {link.address for link in self.links.values()}
        return all(member.address in linked for member in self.membership.others())

    def _keeps(self, old: Link, new: Link, now: int) -> bool:
        """Tell whether an existing link outlives a new one to the same peer.

        Both ends must decide alike: of two links that crossed, the one that the smaller address
        dialed stays. A link that has fallen silent always yields.
        """
        silent = now - old.last_received > 2 * self._node_interval // _HEARTBEATS
        if silent or old.dialed == new.dialed or old.incarnation != new.incarnation:
            return False
        return old.dialed == (self.membership.address < old.address)

    def _close(self, number: LinkId, reason: str) -> None:
        self._runtime.drop(number, reason)
        self.closed(number)

    # Members.

    def _learn(self, members: Iterable[Member]) -> None:
        if self.membership.merge(members):
            self._members_changed()

    def _members_changed(self) -> None:
        members = self.membership.all()
        self.store.save_members(members)
        self._runtime.send(list(self.links), MemberList(members))
        for link in list(self.links.values()):
            if self.membership.me.removed or any(m.address == link.address and m.removed for m in members):
                self._close(link.number, "a member was removed from the cluster")
        self._count_doubts()

    def _count_doubts(self) -> None:
        """Tell the node's processes how many members have not been fully compared with."""
        sound = {link.address for link in self.links.values() if link.is_sound}
        doubts = sum(member.address not in sound for member in self.membership.others())
        doubts += not self.membership.has_met_cluster
        if doubts != self._doubts:
            self._doubts = doubts
            self.store.set_doubts(doubts)

    @contextmanager
    def _view(self) -> Generator[View, None, None]:
        """Return what this node holds, after the live flow has caught up with it."""
        with self.store.snapshot() as snapshot:
            self._flow(snapshot)
            yield View(self._tree, snapshot)

    @staticmethod
    def _decode(row: Row) -> tuple[bytes, Record]:
        record = decode_record(row[1])
        check_record(record)
        return row[0], record


def _own_commit(entry: LogEntry) -> list[Row]:
    """Return the rows a log entry has to send: the commit as written, nothing of what was received."""
    return [(change.session, change.delta) for change in entry.changes if change.delta is not None]
