"""The side that is pulled from: every question is answered from the present state, nothing is kept."""

from collections.abc import Iterable, Iterator, Sequence

from canister.errors import ProtocolError
from canister.record import NodeId
from canister.replication.digests import LEAF, LEVELS, SHORT, View
from canister.replication.messages import (
    AskDigests,
    AskListing,
    AskRoot,
    AskRows,
    Digests,
    Listing,
    Message,
    Root,
    Row,
    Rows,
)
from canister.store.base import BUCKETS, Member

_FRAME = 256 * 1024
"""Bytes of rows after which a frame is sent."""


def answer_root(question: AskRoot, view: View, now: int, node: NodeId, members: list[Member]) -> Root:
    """Answer with the digest as of the later of both clocks.

    What is claimed as heard is read first, so that all of it is in the digests that follow.
    """
    claims = {node: view.snapshot.last_stamp(), **view.snapshot.heard()}
    at = max(now, question.now)
    return Root(question.round, at, claims, members, view.root(at))


def answer(question: AskDigests | AskListing | AskRows, view: View) -> Iterable[Message]:
    """Answer any other question of a comparison.

    Raises:
        ProtocolError: the question names what cannot exist.
    """
    if isinstance(question, AskDigests):
        if not 0 <= question.level < LEAF or not _within(question.nodes, LEVELS[question.level]):
            raise ProtocolError("a question names a node that is not in the digest tree")
        digests = [view.children(question.at, question.level, node) for node in question.nodes]
        return [Digests(question.round, b"".join(d for group in digests for d in group))]
    if isinstance(question, AskListing):
        if not _within(question.buckets, BUCKETS):
            raise ProtocolError("a question names a bucket that does not exist")
        return [Listing(question.round, [_short(view, question.at, bucket) for bucket in question.buckets])]
    if not _within([bucket for bucket, _ in question.wanted], BUCKETS):
        raise ProtocolError("a question names a bucket that does not exist")
    return _frames(question.round, _wanted_rows(question, view))


def _within(numbers: Sequence[int], size: int) -> bool:
    """Tell whether all numbers are different ones of the tree: asking twice would double the answer."""
    return len(set(numbers)) == len(numbers) and all(0 <= number < size for number in numbers)


def _short(view: View, at: int, bucket: int) -> bytes:
    return b"".join(listed.digest[:SHORT] for listed in view.listing(at, bucket))


def _wanted_rows(question: AskRows, view: View) -> Iterator[Row]:
    for bucket, digests in question.wanted:
        listing = view.listing(question.at, bucket)
        by_digest = {listed.digest[:SHORT]: listed.session for listed in listing}
        # A digest that is gone means a session changed since it was listed: which one is not
        # known here, so the whole bucket goes.
        known = all(digest in by_digest for digest in digests)
        sessions = [by_digest[d] for d in digests] if known else [listed.session for listed in listing]
        for session in sessions:
            record = view.snapshot.whole(session)
            if record is not None:
                yield session, record


def _frames(round_number: int, rows: Iterable[Row]) -> Iterator[Rows]:
    frame: list[Row] = []
    size = 0
    for row in rows:
        if size > _FRAME:
            yield Rows(round_number, frame, more=True)
            frame, size = [], 0
        frame.append(row)
        size += len(row[0]) + len(row[1])
    yield Rows(round_number, frame, more=False)
