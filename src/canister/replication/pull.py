"""One comparison with one peer, seen by the side that pulls.

Root, then down the digest tree where it differs, then listings of what is below the branches that differ,
then the sessions that differ. In a small store the root brings the listings with it. Where this node has
nothing it asks for all there is. A few questions are out at a time, so that a slow network costs few
waits; they are answered in order and in bounded frames, so it may be cut anywhere.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from canister.errors import ProtocolError
from canister.record import NodeId
from canister.replication.digests import (
    FEW,
    LEAF,
    LEVELS,
    NOTHING,
    SHORT,
    branch_of,
    buckets_of,
    cut,
    runs,
)
from canister.replication.messages import (
    AskAll,
    AskDigests,
    AskListing,
    AskRoot,
    AskRows,
    Digests,
    Listing,
    Root,
    Row,
    Rows,
)
from canister.store.base import BUCKETS, Listed, bucket_of

Question = AskRoot | AskDigests | AskListing | AskRows | AskAll

_AT_ONCE = 4
"""Questions that may be out at a time: with their answers they fit the queue of a link."""
_BRANCHES_AT_ONCE = 1024
_LISTED_AT_ONCE = 512
_SESSIONS_AT_ONCE = 512
_ALL_AT_ONCE = 1024
"""About how many sessions are asked for at once where this node has none of them."""
_RANGES_AT_ONCE = 1024
_NONE_LISTED: Mapping[int, bytes] = {}
_NOT_ASKED_FOR = "an answer holds a session that was not asked for"


class Holdings(Protocol):
    """What this node holds, as of an instant."""

    def root(self, at: int) -> bytes:
        """Return the digest of everything."""
        ...

    def children(self, at: int, level: int, branch: int) -> list[bytes]:
        """Return the shortened digests one level below a branch of the tree."""
        ...

    def size(self, at: int) -> int:
        """Return the number of sessions."""
        ...

    def listings(self, at: int, level: int, branches: Sequence[int]) -> list[list[Listed]]:
        """Return for each of some branches of the tree the sessions below it."""
        ...


class Pull:
    """A comparison under way.

    *at* and *claims* are what the peer named in its first answer. *below* is what `AskRoot` tells of this
    node, for the peer to list at once what differs. Questions are a stack: what is
    nearly found out is finished first, so that little is ever open.
    """

    def __init__(self, round_number: int, now: int, below: bytes = b"") -> None:
        self.round = round_number
        self.at = now
        self.claims: dict[NodeId, int] = {}
        self.proof = True
        """Whether what the peer claims is here once all is compared."""
        self.was_equal = False
        """Whether both sides held the same when it began."""
        self.peer_lacked = False
        """Whether it met sessions that are here and not at the peer."""
        self._now = now
        self.asked: list[Question] = []
        """What is out, in the order in which the answers come."""
        self._open: list[Question] = [AskRoot(round_number, now, below)]
        self._size = 0
        self._got: set[bytes] = set()
        """Sessions in the answer to `AskRows` that is under way; to `AskAll`, those of its last bucket."""
        self._last = -1
        """The last bucket in the answer to `AskAll` that is under way."""

    @property
    def queued(self) -> int:
        """How many questions are still open; none once all is compared."""
        return len(self.asked) + len(self._open)

    def ask(self) -> list[Question]:
        """Return the questions to send now."""
        questions: list[Question] = []
        while self._open and len(self.asked) < _AT_ONCE:
            questions.append(self._open.pop())
            self.asked.append(questions[-1])
        return questions

    def answered(self, answer: Root | Digests | Listing | Rows, mine: Holdings) -> list[Row] | None:
        """Take an answer; return sessions to merge, or None where it brought none.

        Raises:
            ProtocolError: the answer does not fit the question.
        """
        rows: list[Row] | None = None
        asked = self.asked[0] if self.asked else None
        if isinstance(answer, Root) and isinstance(asked, AskRoot):
            self._compare_root(answer, mine)
        elif isinstance(answer, Digests) and isinstance(asked, AskDigests):
            self._compare_digests(asked, answer, mine)
        elif isinstance(answer, Listing) and isinstance(asked, AskListing):
            self._compare_listing(asked.level, asked.branches, answer.listings, mine)
        elif isinstance(answer, Rows) and isinstance(asked, AskRows | AskAll):
            rows = answer.rows
            if answer.more and not rows:
                raise ProtocolError("an answer goes on with an empty frame")
            if isinstance(asked, AskRows):
                self._take_rows(asked, answer)
            else:
                self._take_all(asked, answer)
            if answer.more:
                return rows
        else:
            raise ProtocolError(f"{type(answer).__name__} does not answer {type(asked).__name__}")
        self.asked.pop(0)
        return rows

    def _take_rows(self, asked: AskRows, answer: Rows) -> None:
        """Refuse what makes an answer longer than what was asked for: it could go on for ever."""
        sessions = {session for session, _ in answer.rows}
        asked_for = {branch for branch, _ in asked.wanted}
        if not asked_for.issuperset([branch_of(asked.level, bucket_of(s)) for s in sessions]):
            raise ProtocolError(_NOT_ASKED_FOR)
        got = len(self._got) + len(answer.rows)
        self._got.update(sessions)
        if len(self._got) != got:
            raise ProtocolError("an answer holds a session twice")
        if not answer.more:
            self._got.clear()
            self._ask_for_rest(asked, answer.left)

    def _ask_for_rest(self, asked: AskRows, left: int) -> None:
        count = sum(len(digests) for _, digests in asked.wanted)
        _check_left(left, count)
        rest: list[tuple[int, list[bytes]]] = []
        answered = count - left
        for branch, digests in asked.wanted:
            if answered < len(digests):
                rest.append((branch, digests[answered:]))
            answered = max(0, answered - len(digests))
        if rest:
            self._open.append(AskRows(self.round, self.at, asked.level, rest))

    def _take_all(self, asked: AskAll, answer: Rows) -> None:
        """Refuse all but the sessions of the ranges, bucket by bucket: none can come twice."""
        last, got = self._last, self._got
        buckets: set[int] = set()
        for session, _ in answer.rows:
            bucket = bucket_of(session)
            if bucket > last:
                buckets.add(bucket)
                last, got = bucket, {session}
            elif bucket < last or session in got:
                raise ProtocolError("an answer holds a session twice or out of order")
            else:
                got.add(session)
        for bucket in buckets:
            place_in = bisect_right(asked.ranges, (bucket, BUCKETS)) - 1
            if place_in < 0 or bucket >= asked.ranges[place_in][1]:
                raise ProtocolError(_NOT_ASKED_FOR)
        self._last, self._got = last, got
        if not answer.more:
            self._last, self._got = -1, set()
            count = sum(end - first for first, end in asked.ranges)
            _check_left(answer.left, count)
            rest = list(_without(asked.ranges, count - answer.left))
            if rest:
                self._open.append(AskAll(self.round, self.at, rest))

    def _compare_root(self, root: Root, mine: Holdings) -> None:
        self.at = max(root.at, self._now)
        self.claims, self.proof = root.claims, root.proof
        self.was_equal = root.digest == mine.root(self.at)
        if not self.was_equal:
            # The greater of both, so that it is never more to list than a node really holds.
            self._size = max(root.size, mine.size(self.at))
            self._compare(0, [0], root.below, mine, _listed(root))

    def _compare_digests(self, asked: AskDigests, answer: Digests, mine: Holdings) -> None:
        self._compare(asked.level, asked.branches, answer.digests, mine)

    def _compare(
        self,
        level: int,
        branches: list[int],
        below: bytes,
        mine: Holdings,
        listed: Mapping[int, bytes] = _NONE_LISTED,
    ) -> None:
        """Compare the digests one level below branches; ask on where they differ and nothing is listed."""
        own = [(branch, mine.children(self.at, level, branch)) for branch in branches]
        if len(below) != SHORT * sum(len(digests) for _, digests in own):
            raise ProtocolError("a list of digests has the wrong length")
        theirs = cut(below)
        differ: list[int] = []
        lacking: list[int] = []
        for branch, digests in own:
            for child, digest in enumerate(digests, branch * len(digests)):
                there = next(theirs)
                if there == digest:
                    continue
                if there == NOTHING:
                    self.peer_lacked = True  # there is nothing to pull
                else:
                    (lacking if digest == NOTHING else differ).append(child)
        level += 1
        known = [child for child in differ if child in listed]
        differ = [child for child in differ if child not in listed]
        if level == LEAF or self._size <= FEW * LEVELS[level]:
            parts = [differ[i : i + _LISTED_AT_ONCE] for i in range(0, len(differ), _LISTED_AT_ONCE)]
            self._ask_later([AskListing(self.round, self.at, level, branches) for branches in parts])
        else:
            parts = [differ[i : i + _BRANCHES_AT_ONCE] for i in range(0, len(differ), _BRANCHES_AT_ONCE)]
            self._ask_later([AskDigests(self.round, self.at, level, branches) for branches in parts])
        self._ask_for_all(level, lacking)
        self._compare_listing(level, known, [listed[child] for child in known], mine)

    def _ask_for_all(self, level: int, branches: Sequence[int]) -> None:
        """Ask for all below branches of the tree where there is nothing here, about as much at a time."""
        most = max(1, _ALL_AT_ONCE * BUCKETS // max(1, self._size))
        questions: list[AskAll] = []
        ranges: list[tuple[int, int]] = []
        count = 0
        for run in runs(branches):
            first, end = buckets_of(level, run.start).start, buckets_of(level, run.stop - 1).stop
            while first < end:
                until = min(end, first + most - count)
                ranges.append((first, until))
                count += until - first
                first = until
                if count == most or len(ranges) == _RANGES_AT_ONCE:
                    questions.append(AskAll(self.round, self.at, ranges))
                    ranges, count = [], 0
        if ranges:
            questions.append(AskAll(self.round, self.at, ranges))
        self._ask_later(questions)

    def _compare_listing(self, level: int, branches: list[int], found: list[bytes], mine: Holdings) -> None:
        """Compare what the peer listed below branches, and ask for the sessions that differ."""
        if len(found) != len(branches) or any(len(digests) % SHORT for digests in found):
            raise ProtocolError("a listing has the wrong length")
        questions: list[AskRows] = []
        wanted: list[tuple[int, list[bytes]]] = []
        count = 0
        listings = mine.listings(self.at, level, branches)
        for branch, theirs, listing in zip(branches, found, listings, strict=True):
            own = {listed.digest[:SHORT] for listed in listing}
            there = list(cut(theirs))
            lacking = [digest for digest in there if digest not in own]
            # Who has another state of a session does not lack it.
            self.peer_lacked |= len(own.difference(there)) > len(lacking)
            if lacking:
                wanted.append((branch, lacking))
                count += len(lacking)
            if count >= _SESSIONS_AT_ONCE:
                questions.append(AskRows(self.round, self.at, level, wanted))
                wanted, count = [], 0
        if wanted:
            questions.append(AskRows(self.round, self.at, level, wanted))
        self._ask_later(questions)

    def _ask_later(self, questions: Sequence[Question]) -> None:
        """Ask these next, the first one first: so rows come in the order in which they are stored."""
        self._open += reversed(questions)


def _listed(root: Root) -> dict[int, bytes]:
    """Return what a root lists, by branch. What is not below it is never looked for."""
    if len(root.branches) != len(root.listings) or len(set(root.branches)) != len(root.branches):
        raise ProtocolError("a root lists something twice, or nothing")
    return dict(zip(root.branches, root.listings, strict=True))


def _check_left(left: int, count: int) -> None:
    if left and not 0 < left < count:
        raise ProtocolError("an answer leaves more than was asked for, or everything")


def _without(ranges: Iterable[tuple[int, int]], buckets: int) -> Iterator[tuple[int, int]]:
    """Return ranges without their first buckets."""
    for first, end in ranges:
        if end - first > buckets:
            yield first + buckets, end
        buckets = max(0, buckets - (end - first))
