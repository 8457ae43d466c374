"""One node's replication: live commits, comparisons, fetches and membership over any number of links.

`Replica` consumes events (a link opened, a message, a tick, the log has grown) and acts through `Runtime`
and the store. It reads no clocks but the two it was given and opens nothing: the wall clock for what others
see, the steady one for what is due, since a wall clock may be set at any time.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from canister.clock import SECOND, Clock, Steady, micros
from canister.config import Config
from canister.errors import ProtocolError
from canister.life import NEVER
from canister.replication.acks import Acks, Holders
from canister.replication.admission import Admission
from canister.replication.answers import Answers
from canister.replication.clocks import Clocks
from canister.replication.comparison import Comparisons
from canister.replication.coverage import Coverage
from canister.replication.fetches import Fetches
from canister.replication.keyrings import KeyRings
from canister.replication.link import Handlers, Link, LinkId, Patience
from canister.replication.live import LiveFlow
from canister.replication.membership import Membership
from canister.replication.messages import (
    Digests,
    Fetch,
    Fetched,
    Heartbeat,
    Hello,
    Listing,
    Live,
    MemberList,
    Message,
    Root,
    Rows,
    StartOver,
    decode_row,
)
from canister.replication.pull import Pull
from canister.replication.runtime import Runtime
from canister.replication.trust import Trust
from canister.store.base import Member, Needed, ReplicatedStore

if TYPE_CHECKING:
    from random import Random

_MOST_AWAITED = 10_000
"""Sessions that may be missing at once on a link."""


class Replica:
    """The replication of one node.

    Args:
        store: the node's sessions.
        membership: whom the node knows.
        config: the node's settings.
        clock: where the time comes from.
        runtime: what it acts through.
        random: what it draws jitter and the incarnation from.
        steady: what intervals are measured by.
    """

    def __init__(
        self,
        store: ReplicatedStore,
        membership: Membership,
        config: Config,
        clock: Clock,
        runtime: Runtime,
        random: "Random",
        steady: Steady,
    ) -> None:
        self.store = store
        self.membership = membership
        self.links: dict[LinkId, Link] = {}
        self._clock = clock
        self._runtime = runtime
        self._random = random
        self._steady = steady
        self._patience = Patience(micros(config.node_interval))
        self._digest_interval = micros(config.digest_interval)
        self._trust = Trust(store, clock, micros(config.max_clock_drift), runtime)
        answer = 2 * micros(config.node_interval)  # within it a heartbeat is answered, or the link given up
        self._clocks = Clocks(store, clock, steady, micros(config.max_clock_drift), answer, runtime)
        self._live = LiveFlow(store, clock, runtime, self.links)
        self._answers = Answers(store, membership, clock, runtime, self._live, self._trust)
        self._coverage = Coverage(membership, store, self.links)
        self.keys = KeyRings(store, membership, self.links, runtime)
        self._admission = Admission(
            config.cluster, random.randbytes(8), store, membership, clock, runtime, self.links, self.keys
        )
        self._next_upkeep = 0
        self.comparisons = Comparisons(store, clock, runtime, self._live.view, self._trust.merge)
        self.acks = Acks(membership, store, runtime, self.links)
        self.fetches = Fetches(membership, lambda link, message: runtime.send([link], message))
        self._handlers: Handlers = {
            **self._answers.handlers,
            **self.acks.handlers,
            Live: self._on_live,
            Heartbeat: self._on_heartbeat,
            MemberList: self._on_membership,
            Root: self._on_answer,
            Digests: self._on_answer,
            Listing: self._on_answer,
            Rows: self._on_answer,
            Fetched: self._on_fetched,
            StartOver: self._on_start_over,
        }

    def start(self) -> None:
        """Note that nothing has been compared yet; `read` has to follow, beside everything else."""
        self._live.begin(self._clock.now())
        self.store.save_members(self.membership.all())
        self.store.set_clock_off(False)
        if self.membership.has_met_cluster and not self.membership.others():
            self.store.merge([], {self.store.node: NEVER})  # there is nobody else to vouch
        self._coverage.tell()

    def read(self, buckets: int) -> bool:
        """Read the digests of the next *buckets*; return whether all are there, and comparisons begin.

        Until then what peers ask is left open, and all else goes on.
        """
        is_whole = self._live.read(buckets)
        for link in self.links.values() if is_whole else ():
            if link.pull is None:
                self._compare(link)
            if link.unanswered is not None:
                self._answers.on_ask_root(link, link.unanswered)
        return is_whole

    def hello(self) -> Hello:
        """Return the first message for a new link."""
        return self._admission.hello()

    def refusal(self, hello: Hello) -> str | None:
        """Return why a peer that says *hello* cannot be linked with, None if it can."""
        heard = (link for link in self.links.values() if not self.is_silent(link.number))
        return self._admission.refusal(hello, heard)

    def opened(self, number: LinkId, hello: Hello, *, dialed: bool) -> None:
        """A link came up and the peer's hello was accepted; it may be refused here as a crossing one."""
        now = self._clock.now()
        link = Link(number, hello, self._steady(), ahead=hello.now - now, dialed=dialed)
        for old in [old for old in self.links.values() if old.address == link.address]:
            if old.outlives(link, self.membership.address, silence=self._patience.doubt):
                self._runtime.drop(number, "crossed by another link to the same peer")
                return
            self._close(old.number, "replaced by a new link to the same peer")
        self.poll()  # what is logged so far belongs to the comparison, what follows to this link
        self.links[number] = link
        self.comparisons.heals.linked(link.address, now)
        self._learn(hello.members)
        self.keys.learn(link, hello.fingerprints)
        self._coverage.tell()
        self._compare(link)
        self.acks.opened(link)

    def is_linked(self, address: str) -> bool:
        """Tell whether a link to a member is up and has not fallen silent.

        One that has is dialed anew beside it: where packets were lost, TCP may stay mute long after
        they get through again, while a new connection is there at once.
        """
        links = [link for link in self.links.values() if link.address == address]
        return any(not self.is_silent(link.number) for link in links)

    def is_silent(self, number: LinkId) -> bool:
        """Tell whether a link is up on which the peer has not been heard for about two heartbeats."""
        link = self.links.get(number)
        return link is not None and link.is_silent(self._steady(), self._patience.doubt)

    def closed(self, number: LinkId) -> None:
        """A link is gone."""
        link = self.links.pop(number, None)
        if link is not None:
            self.comparisons.heals.parted(link.address, self._clock.now())
            self.fetches.lost(number)
            self._coverage.tell()

    def heard(self, number: LinkId) -> None:
        """A part of a message arrived: a slow link is not silent, and a slow answer is one."""
        link = self.links.get(number)
        if link is not None:
            link.last_received = link.pull_moved = self._steady()

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
        link.last_received = self._steady()
        handler(link, message)

    def poll(self) -> int:
        """Send what was committed on this node since the last call; return how much was logged."""
        with self.store.snapshot() as snapshot:
            return self._live.flow(snapshot)

    def tick(self) -> None:
        """Do what is due: heartbeats, silent peers, comparisons, upkeep. Call some times a second."""
        now = self._steady()
        for link in list(self.links.values()):
            if link.is_silent(now, self._patience.end):
                self._close(link.number, f"silent for {(now - link.last_received) / SECOND:.1f} s")
            elif link.pull is not None and now - link.pull_moved > self._patience.stall:
                self._close(link.number, "it does not answer what a comparison asks")
            elif link.pull is None and now >= link.next_pull:
                self._compare(link)
        due = [link for link in self.links.values() if now >= link.next_beat]
        if due:
            self._live.beat(due, now + self._patience.beat)
        self.store.release()
        if now >= self._next_upkeep:
            self._next_upkeep = now + SECOND
            self._coverage.tell()  # where it could not be written when it changed
            self._clocks.check(self.links.values())
            self._admission.look()

    def trim(self) -> bool:
        """Drop some of the log that nobody needs any more; return whether there is more of it."""
        return self._live.trim(self._steady())

    def pull_now(self) -> None:
        """Compare with every linked peer as soon as possible."""
        for link in self.links.values():
            link.next_pull = 0
        self.tick()

    def await_acks(self, stamp: int, needed: Needed, done: Callable[[Holders], None]) -> int:
        """Call *done* once as many members as *needed* hold this node's commits up to *stamp*."""
        self.poll()  # the commit itself goes out before the question about it
        return self.acks.wait(stamp, needed, done)

    def remove_member(self, address: str) -> bool:
        """Take a member out of the cluster; return whether it was in it."""
        removed = self.membership.remove(address)
        if removed:
            self._members_changed()
        return removed

    def forget(self, session: bytes) -> bool:
        """Drop this node's copy of a session; until compared anew, nothing may be called heard."""
        forgotten = self.store.forget(session)
        self._start_over()
        return forgotten

    def digest(self, at: int) -> bytes:
        """Return the digest of all this node holds as of *at*; equal on nodes that hold the same."""
        with self._live.view() as view:
            return view.root(at)

    def gate(self) -> int:
        """Return the instant up to which all members have been compared with on their present links."""
        return self._coverage.gate()

    def queued(self) -> int:
        """Return how many questions and sessions are still open with peers."""
        pulls = sum(link.pull.queued for link in self.links.values() if link.pull)
        return pulls + sum(len(link.awaited) for link in self.links.values())

    # What arrives.

    def _on_live(self, link: Link, message: Live) -> None:
        batch = [decode_row(row) for commit in message.commits for row in commit]
        link.live_upto = max(link.live_upto, message.upto)
        merged = self._trust.merge(link, batch, self._trust.credible(link.vouched()))
        for session in merged.doubtful:
            self._await_session(link, session)
        self.acks.tell(link)

    def _on_heartbeat(self, link: Link, message: Heartbeat) -> None:
        self._clocks.hear(link, message)
        link.heard_by_peer = message.heard
        link.live_upto = max(link.live_upto, message.upto)
        self._vouch(link)

    def _vouch(self, link: Link) -> None:
        self._trust.vouch(link)
        self.acks.tell(link)

    def _await_session(self, link: Link, session: bytes) -> None:
        if len(link.awaited) >= _MOST_AWAITED:
            raise ProtocolError("it sends commits to too many sessions that are not here")
        if session not in link.awaited:
            number = self.fetches.draw()
            link.awaited.add(number, session)
            self._runtime.send([link.number], Fetch(number, session))
            self._coverage.tell()

    def _on_membership(self, link: Link, message: MemberList) -> None:
        self.keys.learn(link, message.fingerprints)
        self._learn(message.members)

    def _on_answer(self, link: Link, message: Root | Digests | Listing | Rows) -> None:
        if isinstance(message, Root):
            self._learn(message.members)
            self._check_history(link, message.claims.get(self.store.node, 0))
        if link.pull is not None and link.pull.round == message.round:
            link.pull_moved = link.last_received
        pull = self.comparisons.answered(link, message)
        if pull is not None:
            self._finish_pull(link, pull)

    def _check_history(self, link: Link, heard: int) -> None:
        """Begin anew with all peers if one has heard of commits of this node that are not here."""
        if not self._trust.is_future(heard) and self._live.lacks(heard):
            self._trust.renounce(link, heard)
            self._start_over()

    def _on_fetched(self, link: Link, message: Fetched) -> None:
        self._learn(message.members)
        session = link.awaited.pop(message.number) or self.fetches.session(message.number)
        if session is not None and message.record is not None:
            self._trust.merge(link, [decode_row((session, message.record))])
        self._vouch(link)
        self._coverage.tell()
        self.fetches.answered(link, message.number, message.heard)

    # What is due.

    def _finish_pull(self, link: Link, pull: Pull) -> None:
        """All the peer claimed is here: note it, with the live commits that arrived meanwhile."""
        jitter = self._random.uniform(0.9, 1.1)
        link.next_pull = self._steady() + int(self._interval() * jitter)
        if self._trust.is_future(pull.at) or not pull.proof:
            # Sessions that are over by then, but not by the earlier clock, were left out: it proves nothing.
            link.reconciled_at, link.was_equal = 0, False
            self._coverage.tell()
            return
        was_whole = self._is_whole()
        claims = self._trust.credible(pull.claims)
        if claims:
            self.store.merge([], claims)
        if not was_whole and self._coverage.is_full():
            # All that any member has of it is here; of its last commits no peer may ever have been told.
            self.store.merge([], {self.store.node: NEVER})
        if not was_whole and self._is_whole():
            self._runtime.send(list(self.links), StartOver())
        self._vouch(link)
        self._coverage.tell()
        links, members = list(self.links.values()), len(self.membership.others())
        report = self.comparisons.finished(link, pull, links, members)
        if report is not None:
            self._runtime.healed(report)

    def _is_whole(self) -> bool:
        """Tell whether this node can vouch for its own commits: not while it has forgotten one."""
        return self.store.heard_of(self.store.node) == NEVER

    def _start_over(self) -> None:
        """Compare anew with all peers, and have them do so: not all this node wrote is here."""
        for link in self.links.values():
            self._doubt(link)
        self._runtime.send(list(self.links), StartOver())

    def _on_start_over(self, link: Link, message: StartOver) -> None:
        self._doubt(link)

    def _doubt(self, link: Link) -> None:
        """Believe nothing of what was heard on a link until it has been compared anew."""
        link.reconciled_at = 0
        link.live_upto = 0
        self._compare(link)
        self._coverage.tell()

    def _compare(self, link: Link) -> None:
        """Begin a comparison; while digests are still to be read, `read` does."""
        if self._live.tree.is_whole:
            link.pull_moved = self._steady()
            self.comparisons.start(link)

    def _interval(self) -> int:
        """Compare more often while some member has no link here: its changes come through others."""
        often = self._digest_interval
        return often if self._coverage.are_all_linked() else min(SECOND, often)

    def _close(self, number: LinkId, reason: str) -> None:
        self._runtime.drop(number, reason)
        self.closed(number)

    def _learn(self, members: Iterable[Member]) -> None:
        if self._admission.learn(members):
            self._members_changed()

    def _members_changed(self) -> None:
        for link in self._admission.spread():
            self._close(link.number, "a member was removed from the cluster")
        self._coverage.tell()
