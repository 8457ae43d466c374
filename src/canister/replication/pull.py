"""One comparison with one peer, seen by the side that pulls.

Root, then down the digest tree where it differs, then listings of what is below the nodes that differ,
then the sessions that differ. A few questions are out at a time, so that a slow network costs few waits;
they are answered in order and in bounded frames, so it may be cut anywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from canister.errors import ProtocolError
from canister.record import NodeId
from canister.replication.digests import FEW, LEAF, LEVELS, SHORT, node_of_bucket
from canister.replication.messages import (
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
from canister.store.base import Listed, bucket_of

Question = AskRoot | AskDigests | AskListing | AskRows

_AT_ONCE = 4
"""Questions that may be out at a time: with their answers they fit the queue of a link."""
_NODES_AT_ONCE = 1024
_LISTED_AT_ONCE = 512
_SESSIONS_AT_ONCE = 512
_NOTHING = bytes(SHORT)
"""The digest where the peer has no session, and so nothing to pull: a new node has many such places."""


class Holdings(Protocol):
    """What this node holds, as of an instant."""

    def root(self, at: int) -> bytes:
        """Return the digest of everything."""
        ...

    def children(self, at: int, level: int, node: int) -> list[bytes]:
        """Return the shortened digests one level below a node of the tree."""
        ...

    def size(self, at: int) -> int:
        """Return the number of sessions."""
        ...

    def listings(self, at: int, level: int, nodes: Sequence[int]) -> list[list[Listed]]:
        """Return for each of some nodes of the tree the sessions below it."""
        ...


class Pull:
    """A comparison under way.

    *at* and *claims* are what the peer named in its first answer. Questions are a stack: what is
    nearly found out is finished first, so that little is ever open.
    """

    def __init__(self, round_number: int, now: int) -> None:
        self.round = round_number
        self.at = now
        self.claims: dict[NodeId, int] = {}
        self._now = now
        self.moved = now
        """When it began or the peer last answered."""
        self.asked: list[Question] = []
        """What is out, in the order in which the answers come."""
        self._open: list[Question] = [AskRoot(round_number, now)]
        self._size = 0
        self._got: set[bytes] = set()

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
            self._compare_listing(asked, answer, mine)
        elif isinstance(answer, Rows) and isinstance(asked, AskRows):
            rows = answer.rows
            self._check_rows(asked, answer)
            if answer.more:
                return rows
            self._ask_for_rest(asked, answer.left)
            self._got.clear()
        else:
            raise ProtocolError(f"{type(answer).__name__} does not answer {type(asked).__name__}")
        self.asked.pop(0)
        return rows

    def _check_rows(self, asked: AskRows, answer: Rows) -> None:
        """Refuse what makes an answer longer than the buckets asked for: it could go on for ever."""
        sessions = {session for session, _ in answer.rows}
        if answer.more and not sessions:
            raise ProtocolError("an answer goes on with an empty frame")
        asked_for = {node for node, _ in asked.wanted}
        if not asked_for.issuperset([node_of_bucket(asked.level, bucket_of(s)) for s in sessions]):
            raise ProtocolError("an answer holds a session that was not asked for")
        got = len(self._got) + len(answer.rows)
        self._got.update(sessions)
        if len(self._got) != got:
            raise ProtocolError("an answer holds a session twice")

    def _ask_for_rest(self, asked: AskRows, left: int) -> None:
        count = sum(len(digests) for _, digests in asked.wanted)
        if left and not 0 < left < count:
            raise ProtocolError("an answer leaves more than was asked for, or everything")
        rest: list[tuple[int, list[bytes]]] = []
        answered = count - left
        for node, digests in asked.wanted:
            if answered < len(digests):
                rest.append((node, digests[answered:]))
            answered = max(0, answered - len(digests))
        if rest:
            self._open.append(AskRows(self.round, self.at, asked.level, rest))

    def _compare_root(self, root: Root, mine: Holdings) -> None:
        self.at = max(root.at, self._now)
        self.claims = root.claims
        if root.digest != mine.root(self.at):
            # The greater of both, so that it is never more to list than a node really holds.
            self._size = max(root.size, mine.size(self.at))
            self._compare(0, [0], root.below, mine)

    def _compare_digests(self, asked: AskDigests, answer: Digests, mine: Holdings) -> None:
        self._compare(asked.level, asked.nodes, answer.digests, mine)

    def _compare(self, level: int, nodes: list[int], below: bytes, mine: Holdings) -> None:
        """Compare the digests one level below nodes, and ask on where they differ."""
        own = [(node, mine.children(self.at, level, node)) for node in nodes]
        if len(below) != SHORT * sum(len(digests) for _, digests in own):
            raise ProtocolError("a list of digests has the wrong length")
        theirs = _cut(below)
        differ = [
            node * len(digests) + i
            for node, digests in own
            for i, digest in enumerate(digests)
            if digest != (there := next(theirs)) and there != _NOTHING
        ]
        level += 1
        if level == LEAF or self._size <= FEW * LEVELS[level]:
            parts = [differ[i : i + _LISTED_AT_ONCE] for i in range(0, len(differ), _LISTED_AT_ONCE)]
            self._ask_later([AskListing(self.round, self.at, level, nodes) for nodes in parts])
        else:
            parts = [differ[i : i + _NODES_AT_ONCE] for i in range(0, len(differ), _NODES_AT_ONCE)]
            self._ask_later([AskDigests(self.round, self.at, level, nodes) for nodes in parts])

    def _compare_listing(self, asked: AskListing, answer: Listing, mine: Holdings) -> None:
        if len(answer.nodes) != len(asked.nodes) or any(len(digests) % SHORT for digests in answer.nodes):
            raise ProtocolError("a listing has the wrong length")
        questions: list[AskRows] = []
        wanted: list[tuple[int, list[bytes]]] = []
        count = 0
        listings = mine.listings(self.at, asked.level, asked.nodes)
        for node, theirs, listing in zip(asked.nodes, answer.nodes, listings, strict=True):
            own = {listed.digest[:SHORT] for listed in listing}
            lacking = [digest for digest in _cut(theirs) if digest not in own]
            if lacking:
                wanted.append((node, lacking))
                count += len(lacking)
            if count >= _SESSIONS_AT_ONCE:
                questions.append(AskRows(self.round, self.at, asked.level, wanted))
                wanted, count = [], 0
        if wanted:
            questions.append(AskRows(self.round, self.at, asked.level, wanted))
        self._ask_later(questions)

    def _ask_later(self, questions: Sequence[Question]) -> None:
        """Ask these next, the first one first: so rows come in the order in which they are stored."""
        self._open += reversed(questions)


def _cut(digests: bytes) -> Iterator[bytes]:
    return (digests[i : i + SHORT] for i in range(0, len(digests), SHORT))
