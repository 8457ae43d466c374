"""What must hold in every state, and in those where all is delivered.

The promises, I1 to I12, and the rules, R1 to R27, are those of ``docs/explanation/consistency.md``.
"""

from collections.abc import Sequence
from functools import reduce

from canister.life import Status, status
from canister.record import EMPTY, Record, decode_record, merge, node_of, stamp_of, versions
from canister.testing.interleavings.cases import NAMES
from canister.testing.interleavings.node import Commit, Node
from canister.testing.simulation.checks import Violation


def check_node(node: Node, commits: Sequence[Commit]) -> None:
    """I4, R2, R17, R20: what one node shows is whole, and it has what it claims to have heard.

    Args:
        node: the node.
        commits: all that was written so far, anywhere.

    Raises:
        Violation: says what does not hold.
    """
    name = NAMES[node.seat.number]
    for session in sorted(node.store.rows):
        record = node.store.load(session).record
        if record is not None and record.destroy is None and (record.birth is None or record.touch is None):
            raise Violation(f"R17: {name} shows {session!r} without its birth or its touch")
    for commit in commits:
        shown = node.store.load(commit.session).record or EMPTY
        delta = commit.record
        if commit.version in versions(shown) and merge(shown, delta) != shown:
            raise Violation(f"R2: {name} shows a part of a commit to {commit.session!r}")
        whole = _whole(node, commit.session)
        heard = _has_heard(node, commit)
        knows = whole.destroy is not None or (heard and delta.destroy is not None)
        state = status(shown, node.now)
        if knows and state not in (Status.DESTROYED, Status.UNKNOWN):
            raise Violation(f"I4: {name} has heard that {commit.session!r} is destroyed and shows it {state}")
        if heard and merge(whole, delta) != whole:
            raise Violation(f"R20: {name} says to have heard a commit to {commit.session!r} and lacks it")


def check_final(nodes: Sequence[Node], commits: Sequence[Commit], *, clocks_agree: bool) -> None:
    """I1, I3, I5: all nodes hold the merge of all commits, have heard them all, and rest.

    Args:
        nodes: all nodes.
        commits: all that was written.
        clocks_agree: nodes whose clocks are too far apart do not take each other's word.

    Raises:
        Violation: says what does not hold.
    """
    at = max(node.now for node in nodes)
    if len({node.copy().replica.digest(at) for node in nodes}) != 1:
        raise Violation("I1: the digests differ when all is delivered")
    for session in sorted({commit.session for commit in commits}):
        merged = reduce(merge, (c.record for c in commits if c.session == session), EMPTY)
        for node in nodes:
            if _whole(node, session) != merged:
                raise Violation(f"I3: {NAMES[node.seat.number]} holds {session!r} other than as written")
    for node in nodes:
        if clocks_agree and not all(_has_heard(node, commit) for commit in commits):
            raise Violation(f"I8: {NAMES[node.seat.number]} has everything and does not know it")
        if (clocks_agree and node.store.peers().doubts) or node.replica.queued():
            raise Violation(f"I1: {NAMES[node.seat.number]} still waits for a peer")


def _has_heard(node: Node, commit: Commit) -> bool:
    return node.store.heard_of(node_of(commit.version)) >= stamp_of(commit.version)


def _whole(node: Node, session: bytes) -> Record:
    encoded = node.store.whole(session)
    return decode_record(encoded) if encoded else EMPTY
