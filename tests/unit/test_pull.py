"""One side of a comparison against the other, without a network between them."""

from collections.abc import Iterator

import msgspec
import pytest

from canister import edits
from canister.clock import DAY
from canister.codec import encode_id
from canister.config import Config, Policy
from canister.errors import ProtocolError
from canister.record import KEY, NodeId, Slot
from canister.replication import answers, pull
from canister.replication.answers import answer, answer_root
from canister.replication.digests import DigestTree, View
from canister.replication.messages import (
    AskAll,
    AskDigests,
    AskListing,
    AskRoot,
    AskRows,
    Message,
    Root,
    Rows,
    decode_row,
    encode_message,
)
from canister.replication.pull import Pull
from canister.store.base import bucket_of
from canister.store.memory import MemoryStore
from canister.testing.clock import ManualClock

CONFIG = Config(max_value=1024 * 1024)
POLICY = Policy.of(CONFIG)
START = 1_700_000_000_000_000


class Side:
    """A store and its digests."""

    def __init__(self, name: bytes) -> None:
        self.clock = ManualClock(START)
        self.store = MemoryStore(CONFIG, self.clock, NodeId(name * 8))
        self.tree = DigestTree()
        with self.store.snapshot() as snapshot:
            self.tree.build(snapshot, START)

    def put(self, *names: str, value: bytes = b"\x01") -> None:
        writes = {Slot(KEY + b"\xa1a"): value}
        for name in names:
            self.store.commit([(encode_id(name), lambda r, at: edits.write(r, at, POLICY, writes))])

    def view(self) -> View:
        with self.store.snapshot() as snapshot:
            self.tree.catch_up(snapshot)
            return View(self.tree, snapshot)

    def answers(self, question: pull.Question) -> list[Message]:
        if isinstance(question, AskRoot):
            return [answer_root(question, self.view(), START, self.store.node, [])]
        return list(answer(question, self.view()))


def take_all(asker: Side, asked: Side, *, tells: bool = False) -> tuple[int, list[int]]:
    """Pull until nothing is open; return the round trips, and the bytes in each of them.

    If it *tells* its digests, as after a split, what differs is listed at once.
    """
    comparison = Pull(1, START, asker.view().below(START) if tells else b"")
    return pull_on(comparison, asker, asked)


def pull_on(comparison: Pull, asker: Side, asked: Side) -> tuple[int, list[int]]:
    """Pull until nothing is open."""
    sizes: list[int] = []
    while questions := comparison.ask():
        said = [message for question in questions for message in asked.answers(question)]
        sizes.append(sum(len(encode_message(message)) for message in said))
        for message in said:
            rows = comparison.answered(message, asker.view())
            asker.store.merge([decode_row(row) for row in rows or ()], {})
        assert len(sizes) < 1000
    assert not comparison.queued
    return len(sizes), sizes


def names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(count)]


@pytest.fixture
def sides() -> tuple[Side, Side]:
    """Two nodes that hold the same 500 sessions."""
    one, other = Side(b"1"), Side(b"2")
    one.put(*names("both", 500))
    take_all(other, one)
    assert one.view().root(START) == other.view().root(START)
    return one, other


def test_what_is_equal_takes_one_round_trip(sides: tuple[Side, Side]) -> None:
    """The root tells."""
    trips, sizes = take_all(*sides)
    assert trips == 1
    assert sizes[0] < 2500


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize(
    ("here", "there", "lacked"),
    [([], [], False), (["here"], [], True), ([], ["there"], False), (["both-1"], ["both-1"], False)],
    ids=["equal", "peer lacks", "lacks", "differ"],
)
@pytest.mark.parametrize("held", [3, 500, 3000], ids=["apart", "listed", "far down"])
def test_what_is_equal_and_what_the_peer_lacks(
    held: int, here: list[str], there: list[str], lacked: bool, tells: bool
) -> None:
    """Where the peer lacks something there is nothing to pull, and yet it is not equal."""
    one, other = Side(b"1"), Side(b"2")
    one.put(*names("both", held))
    take_all(other, one)
    one.put(*here)
    other.put(*there, value=b"\x02")
    comparison = Pull(1, START, one.view().below(START) if tells else b"")
    pull_on(comparison, one, other)
    assert (comparison.was_equal, comparison.peer_lacked) == (not here and not there, lacked)


def test_a_thousand_differences_take_few_round_trips(sides: tuple[Side, Side]) -> None:
    """On a slow network each costs a wait: root, a listing, rows, or what is missing here at once."""
    one, other = sides
    one.put(*names("one", 500))
    other.put(*names("other", 500))
    assert take_all(one, other)[0] <= 3
    assert take_all(other, one)[0] <= 3
    assert one.view().root(START) == other.view().root(START)
    assert one.view().size(START) == 1500


def test_who_tells_its_digests_waits_for_no_listing(sides: tuple[Side, Side]) -> None:
    """After a split the root brings it: two round trips for a thousand differences."""
    one, other = sides
    one.put(*names("one", 500))
    other.put(*names("other", 500))
    assert take_all(one, other, tells=True)[0] == 2
    assert take_all(other, one, tells=True)[0] == 2
    assert one.view().root(START) == other.view().root(START)
    assert one.view().size(START) == 1500
    trips, sizes = take_all(one, other, tells=True)
    assert trips == 1
    assert sizes[0] < 2500


def test_in_a_large_store_nothing_is_listed_unasked(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be more than the differences are worth."""
    monkeypatch.setattr(answers, "FEW", 1)
    one, other = sides
    other.put("both-1", value=b"\x02")
    (root,) = other.answers(AskRoot(1, START, one.view().below(START)))
    assert isinstance(root, Root)
    assert root.branches == root.listings == []
    take_all(one, other, tells=True)
    assert one.view().root(START) == other.view().root(START)


def test_digests_of_another_instant_hide_nothing(sides: tuple[Side, Side]) -> None:
    """What is listed unasked is a help: what differs is found by one's own digests, whatever was told."""
    one, other = sides
    other.put(*names("new", 50))
    for told in (other.view().below(START), bytes(8 * 256), bytes(range(1, 9)) * 256):
        fresh = Side(b"3")
        take_all(fresh, one)
        comparison = Pull(1, START, told)
        pull_on(comparison, fresh, other)
        assert fresh.view().root(START) == other.view().root(START)


def test_digests_of_a_wrong_length_are_refused(sides: tuple[Side, Side]) -> None:
    for below in (b"x", bytes(8), bytes(8 * 255), bytes(8 * 257)):
        with pytest.raises(ProtocolError, match="length"):
            sides[0].answers(AskRoot(1, START, below))


@pytest.mark.parametrize("told", ["twice", "too few", "too many", "cut off"])
def test_an_odd_listing_in_a_root_is_refused(told: str, sides: tuple[Side, Side]) -> None:
    """It has to list each of its branches once, in whole digests."""
    one, other = sides
    other.put(*names("new", 500))
    comparison = Pull(1, START, one.view().below(START))
    (question,) = comparison.ask()
    (root,) = other.answers(question)
    assert isinstance(root, Root)
    assert len(root.branches) > 100
    branches, listings = {
        "twice": ([root.branches[0], *root.branches[:-1]], root.listings),
        "too few": (root.branches, root.listings[:-1]),
        "too many": (root.branches, [*root.listings, b""]),
        "cut off": (root.branches, [*root.listings[:-1], root.listings[-1][:-1]]),
    }[told]
    odd = msgspec.structs.replace(root, branches=branches, listings=listings)
    with pytest.raises(ProtocolError, match=r"lists something twice|wrong length"):
        comparison.answered(odd, one.view())


def test_what_is_listed_unasked_and_does_not_differ_is_passed_over(sides: tuple[Side, Side]) -> None:
    """Nothing is asked for because of it: not in branches that are equal, nor in those that do not exist."""
    one, other = sides
    other.put("both-1", value=b"\x02")
    comparison = Pull(1, START, one.view().below(START))
    (root,) = other.answers(comparison.ask()[0])
    assert isinstance(root, Root)
    (branch,) = root.branches
    branches = [branch, (branch + 1) % 256, -1, 256, 2**70]
    comparison.answered(
        msgspec.structs.replace(root, branches=branches, listings=[root.listings[0], *[bytes(80)] * 4]),
        one.view(),
    )
    (question,) = comparison.ask()
    assert isinstance(question, AskRows)
    assert [asked for asked, _ in question.wanted] == [branch]


def test_questions_do_not_wait_for_each_other(sides: tuple[Side, Side]) -> None:
    """Rows of thousands of sessions are asked for in several questions, sent at once."""
    one, other = sides
    other.put(*names("new", 2000))
    assert take_all(one, other)[0] <= 4
    assert one.view().root(START) == other.view().root(START)


def test_the_size_is_that_of_the_instant(sides: tuple[Side, Side]) -> None:
    """Whichever way the digests are moved."""
    one, _ = sides
    view = one.view()
    assert [view.size(at) for at in (START, START + 500 * DAY, START, 0)] == [500, 0, 500, 500]


def test_among_many_sessions_the_tree_is_walked_down(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of everything would cost more than the differences are worth."""
    monkeypatch.setattr(pull, "FEW", 0)
    one, other = sides
    other.put("both-1", value=b"\x02")
    trips, sizes = take_all(one, other)
    assert trips == 5  # root, two levels, a listing, rows
    assert sum(sizes) < 4000
    assert one.view().root(START) == other.view().root(START)


def test_where_nothing_is_here_all_is_asked_for_at_once(sides: tuple[Side, Side]) -> None:
    """A new node asks nobody to list first what it lacks anyway."""
    _, other = sides
    other.put(*names("more", 9_500))
    fresh = Side(b"3")
    questions = [*comparison_of(fresh, other)]
    assert not [q for q in questions if isinstance(q, AskDigests | AskListing | AskRows)]
    parts = [q.ranges for q in questions if isinstance(q, AskAll)]
    assert len(parts) == 10  # of some 1,000 sessions each
    assert [bound for ranges in parts for bound in ranges] == sorted(b for ranges in parts for b in ranges)
    assert fresh.view().root(START) == other.view().root(START)


@pytest.mark.parametrize("frame", [0, answers._FRAME])
def test_all_of_a_bucket_comes_before_an_answer_ends(
    frame: int, sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is left of an answer is asked for anew, in one frame or in many."""
    monkeypatch.setattr(answers, "_ANSWER", 0)
    monkeypatch.setattr(answers, "_FRAME", frame)
    monkeypatch.setattr(answers, "bucket_of", lambda session: bucket_of(session) & ~7)
    monkeypatch.setattr(pull, "bucket_of", lambda session: bucket_of(session) & ~7)
    _, other = sides
    fresh = Side(b"3")
    asked = [q.ranges for q in comparison_of(fresh, other) if isinstance(q, AskAll)]
    assert len(asked) > 100
    assert fresh.view().root(START) == other.view().root(START)


def comparison_of(asker: Side, asked: Side) -> Iterator[pull.Question]:
    """Pull until nothing is open, and yield what was asked."""
    comparison = Pull(1, START)
    while questions := comparison.ask():
        for question in questions:
            yield question
            for message in asked.answers(question):
                rows = comparison.answered(message, asker.view())
                asker.store.merge([decode_row(row) for row in rows or ()], {})


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(0, 0)],
        [(5, 4)],
        [(-1, 4)],
        [(0, 65_537)],
        [(0, 4), (3, 8)],
        [(8, 9), (0, 4)],
    ],
)
def test_ranges_that_are_none_are_refused(ranges: list[tuple[int, int]], sides: tuple[Side, Side]) -> None:
    """Nothing is sent twice, whatever is asked."""
    with pytest.raises(ProtocolError, match="ranges"):
        answer(AskAll(1, START, ranges), sides[0].view())


def test_an_answer_is_bounded_whatever_the_sessions_weigh(sides: tuple[Side, Side]) -> None:
    """What is over the bound is left to another question, and arrives all the same."""
    one, other = sides
    other.put(*names("big", 60), value=b"\xc6\x00\x06\x1a\x80" + bytes(400_000))
    _, sizes = take_all(one, other)
    assert sum(sizes) > 24_000_000
    assert max(sizes) < 12_000_000  # of four answers, less than waits on a link at the most
    assert one.view().root(START) == other.view().root(START)


@pytest.mark.parametrize("kind", [AskRows, AskAll])
def test_an_answer_has_to_bring_something(kind: type[AskRows | AskAll], sides: tuple[Side, Side]) -> None:
    """One that leaves as much as was asked for would be asked for for ever."""
    one, other = sides
    for side in sides if kind is AskAll else ():
        for name in names("both", 500):  # the new session is in a part of the tree with no other
            side.store.forget(encode_id(name))
    other.put("both-1" if kind is AskRows else "new", value=b"\x02")
    comparison = Pull(1, START)
    while not isinstance((question := comparison.ask()[0]), kind):
        (said,) = other.answers(question)
        comparison.answered(said, one.view())
    for left in (256, 1000, -1) if kind is AskAll else (1, 2, -1):
        with pytest.raises(ProtocolError, match="leaves"):
            comparison.answered(Rows(1, [], more=False, left=left), one.view())


def test_a_listing_of_too_much_is_refused(monkeypatch: pytest.MonkeyPatch, sides: tuple[Side, Side]) -> None:
    """Near the root of a large store there is no end of it; who walks down asks for less."""
    monkeypatch.setattr(answers, "FEW", 0)
    one, _ = sides
    for level in (0, 1, 2):
        with pytest.raises(ProtocolError, match="too many"):
            answer(AskListing(1, START, level, [0]), one.view())
    assert list(answer(AskListing(1, START, 3, [0]), one.view()))


def test_digests_are_read_while_sessions_change(sides: tuple[Side, Side]) -> None:
    """What is written meanwhile, in buckets that are read or still to be read, counts once."""
    one, _ = sides
    tree = DigestTree()
    with one.store.snapshot() as snapshot:
        tree.begin(snapshot, START)
    turn = 0
    while not tree.is_whole:
        one.put(*(f"both-{number}" for number in range(turn, 500, 50)), f"new-{turn}", value=b"\x02")
        with one.store.snapshot() as snapshot:
            tree.catch_up(snapshot)
            tree.read(snapshot, 5_000)
        turn += 1
    assert turn > 10
    assert tree.root() == one.view().root(START)
    assert tree.size == one.view().size(START)


def test_an_answer_that_is_cut_off_begins_again_where_it_ended(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where sessions have changed, or have gone, since their digests were listed."""
    monkeypatch.setattr(answers, "_ANSWER", 0)
    one, other = sides
    other.put(*names("new", 40))
    comparison = Pull(1, START)
    turn = asked = 0
    while questions := comparison.ask():
        asked += len(questions)
        assert asked < 500
        for question in questions:
            if isinstance(question, AskRows) and turn < 20:
                other.put(f"new-{turn}", value=b"\x02")
                other.store.forget(encode_id(f"new-{turn + 1}"))
                turn += 2
            for message in other.answers(question):
                rows = comparison.answered(message, one.view())
                one.store.merge([decode_row(row) for row in rows or ()], {})
    assert turn == 20
    take_all(one, other)
    assert {encode_id(name) for name in names("new", 40)[::2]} <= {s for s, _ in one.store.scan()}
    left = {s for s, _ in other.store.scan()} - {s for s, _ in one.store.scan()}
    assert not left
