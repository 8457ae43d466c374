"""The side that is pulled from: every question is answered from the present state, nothing is kept."""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from canister.clock import Clock
from canister.errors import ProtocolError
from canister.record import NodeId
from canister.replication.digests import FEW, LEAF, LEVELS, NOTHING, SHORT, View, cut
from canister.replication.link import Handlers, Link
from canister.replication.live import LiveFlow
from canister.replication.membership import Membership
from canister.replication.messages import (
    AskAll,
    AskDigests,
    AskListing,
    AskRoot,
    AskRows,
    Digests,
    Fetch,
    Fetched,
    Listing,
    Message,
    Root,
    Row,
    Rows,
)
from canister.replication.runtime import Runtime
from canister.replication.trust import Trust
from canister.store.base import BUCKETS, Listed, Member, ReplicatedStore, bucket_of

Question = AskDigests | AskListing | AskRows | AskAll
"""What is asked in a comparison after the root."""

_FRAME = 256 * 1024
"""Bytes of rows after which a frame is sent."""
_ANSWER = 256 * 1024
"""Bytes of rows after which the rest is left to another question: answers wait in the link's queue, and on a
slow link heartbeats, whose times are compared, wait behind them."""
_GROWTH = 4
"""How many times as many sessions may be listed at once as are asked for: there may be more by now."""


class Answers:
    """Answers the peers of one node.

    Args:
        store: the node's sessions.
        membership: whom the node knows.
        clock: where the time comes from.
        runtime: what sends.
        live: what keeps the digests.
        trust: how far clocks may be apart.
    """

    def __init__(
        self,
        store: ReplicatedStore,
        membership: Membership,
        clock: Clock,
        runtime: Runtime,
        live: LiveFlow,
        trust: Trust,
    ) -> None:
        self._store = store
        self._membership = membership
        self._clock = clock
        self._runtime = runtime
        self._live = live
        self._trust = trust
        self.handlers: Handlers = {
            AskRoot: self.on_ask_root,
            **dict.fromkeys((AskDigests, AskListing, AskRows, AskAll), self.on_ask),
            Fetch: self.on_fetch,
        }
        """What answers which question."""

    def on_ask_root(self, link: Link, question: AskRoot) -> None:
        """Begin a comparison; while digests are still to be read it has to wait."""
        if not self._live.tree.is_whole:
            link.unanswered = question
            return
        link.unanswered = None
        with self._live.view() as view:
            members = self._membership.all()
            root = answer_root(question, view, self._clock.now(), self._store.node, members)
        proof = not self._trust.is_future(question.now)
        self._runtime.send([link.number], msgspec.structs.replace(root, proof=proof))

    def on_ask(self, link: Link, question: Question) -> None:
        """Answer any other question of a comparison."""
        with self._live.view() as view:
            for message in answer(question, view):
                self._runtime.send([link.number], message)

    def on_fetch(self, link: Link, question: Fetch) -> None:
        """Answer with one session, as it is here."""
        with self._store.snapshot() as snapshot:
            self._live.flow(snapshot)
            heard = {self._store.node: snapshot.last_stamp(), **snapshot.heard()}
            record = snapshot.whole(question.session)
        reply = Fetched(question.number, record, heard, self._membership.all())
        self._runtime.send([link.number], reply)


def answer_root(question: AskRoot, view: View, now: int, node: NodeId, members: list[Member]) -> Root:
    """Answer with the digest as of the later of both clocks.

    What is claimed as heard is read first, so that all of it is in the digests that follow. Where the asker
    has told its digests and the store is small, the sessions where they differ are listed as well. Those
    digests may be as of another instant: the asker finds by its own what differs, and asks for the rest.

    Raises:
        ProtocolError: the digests of the asker have the wrong length.
    """
    claims = {node: view.snapshot.last_stamp(), **view.snapshot.heard()}
    at = max(now, question.now)
    below = view.below(at)
    branches: list[int] = []
    if question.below:
        if len(question.below) != len(below):
            raise ProtocolError("a list of digests has the wrong length")
        if view.size(at) <= FEW * LEVELS[1]:
            pairs = zip(cut(question.below), cut(below), strict=True)
            # Where either side has nothing there is nothing to list: all is wanted, or nothing.
            branches = [
                n for n, (theirs, own) in enumerate(pairs) if own != theirs and NOTHING not in (theirs, own)
            ]
    listings = [_short(listing) for listing in view.listings(at, 1, branches)]
    return Root(question.round, at, claims, members, view.root(at), below, view.size(at), branches, listings)


def answer(question: Question, view: View) -> Iterable[Message]:
    """Answer any other question of a comparison.

    Raises:
        ProtocolError: the question names what cannot exist.
    """
    if isinstance(question, AskAll):
        return _all(question, view)
    if isinstance(question, AskRows):
        branches = [branch for branch, _ in question.wanted]
    else:
        branches = question.branches
    if not 0 <= question.level <= LEAF or not _within(branches, LEVELS[question.level]):
        raise ProtocolError("a question names a branch that is not in the digest tree")
    if isinstance(question, AskDigests):
        if question.level == LEAF:
            raise ProtocolError("a question asks for digests below the digest tree")
        digests = [view.children(question.at, question.level, branch) for branch in question.branches]
        return [Digests(question.round, b"".join(d for group in digests for d in group))]
    if question.level < LEAF and view.size(question.at) > _GROWTH * FEW * LEVELS[question.level]:
        raise ProtocolError("a question is about too many sessions at once")
    if isinstance(question, AskListing):
        listings = view.listings(question.at, question.level, branches)
        return [Listing(question.round, [_short(listing) for listing in listings])]
    return _rows(question, view)


def _within(numbers: Sequence[int], size: int) -> bool:
    """Tell whether all numbers are different ones of the tree: asking twice would double the answer."""
    return len(set(numbers)) == len(numbers) and all(0 <= number < size for number in numbers)


def _short(listing: list[Listed]) -> bytes:
    return b"".join(listed.digest[:SHORT] for listed in listing)


def _rows(question: AskRows, view: View) -> Iterator[Rows]:
    """Send the sessions asked for; where that is too much, the rest is left."""
    wanted = _wanted(question, view)
    count = sum(len(digests) for _, digests in question.wanted)
    records = view.snapshot.wholes([session for _, session in wanted])
    lefts = (None if answered is None else count - answered for answered, _ in wanted)
    return _frames(question.round, zip(lefts, records, strict=True))


def _all(question: AskAll, view: View) -> Iterator[Rows]:
    """Send all sessions of some ranges; where that is too much, the last buckets are left."""
    ranges = [range(first, end) for first, end in question.ranges]
    bounds = [bound for buckets in ranges for bound in (buckets.start, buckets.stop)]
    ascend = all(ranges) and bounds == sorted(bounds)
    if not ranges or not ascend or not 0 <= bounds[0] < bounds[-1] <= BUCKETS:
        raise ProtocolError("a question names ranges that are no ascending ones of buckets")
    return _frames(question.round, _by_bucket(ranges, question.at, view))


def _by_bucket(ranges: Sequence[range], at: int, view: View) -> Iterator[tuple[int | None, Row]]:
    """Return sessions, the first of each bucket with how many buckets are left from there."""
    rest = sum(map(len, ranges))
    for buckets in ranges:
        previous = -1
        for row in view.snapshot.all(buckets, at):
            bucket = bucket_of(row[0])
            yield None if bucket == previous else rest - (bucket - buckets.start), row
            previous = bucket
        rest -= len(buckets)


def _frames(number: int, rows: Iterable[tuple[int | None, Row]]) -> Iterator[Rows]:
    """Put rows into frames until they are enough for an answer.

    Args:
        number: the round.
        rows: what to send, each with what is left if the answer ends before it; None where it cannot.
    """
    frame: list[Row] = []
    size = sent = 0
    for left, row in rows:
        if left is not None and sent > _ANSWER:
            yield Rows(number, frame, more=False, left=left)
            return
        if size > _FRAME:
            yield Rows(number, frame, more=True, left=0)
            frame, size = [], 0
        frame.append(row)
        size += len(row[0]) + len(row[1])
        sent += len(row[0]) + len(row[1])
    yield Rows(number, frame, more=False, left=0)


def _wanted(question: AskRows, view: View) -> list[tuple[int | None, bytes]]:
    """Return the sessions to send, each with how many of the digests asked for those before it answer.

    None where the answer cannot be cut off before it.
    """
    wanted: list[tuple[int | None, bytes]] = []
    answered = 0
    branches = [branch for branch, _ in question.wanted]
    listings = view.listings(question.at, question.level, branches)
    for (_, digests), listing in zip(question.wanted, listings, strict=True):
        by_digest = {listed.digest[:SHORT]: listed.session for listed in listing}
        if by_digest.keys() >= set(digests):
            wanted += [(answered + i, by_digest[digest]) for i, digest in enumerate(digests)]
        else:
            # A digest that is gone means a session changed since it was listed: which one is not
            # known here, so all below the branch go.
            wanted += [(None if i else answered, listed.session) for i, listed in enumerate(listing)]
        answered += len(digests)
    return wanted
