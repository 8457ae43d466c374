"""Whether members verify what each other signs, by the fingerprints of their keys."""

from dataclasses import dataclass, field

import pytest

from canister.config import Config
from canister.record import NodeId, make_version
from canister.replication.keyrings import KeyRings
from canister.replication.link import Link
from canister.replication.membership import Membership
from canister.replication.messages import Hello
from canister.store.base import Fingerprints, Member
from canister.store.memory import MemoryStore

HERE, THERE = "10.0.0.1:7400", "10.0.0.2:7400"
NODE = NodeId(b"node-B..")


@dataclass
class Bench:
    """The key rings of a node with one peer."""

    own: Fingerprints
    theirs: Fingerprints
    alarms: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        version = make_version(1, NODE)
        there = Member(THERE, version, False, version, NODE)
        hello = Hello(1, 1, "canister", there, b"12345678", 0, [], self.theirs)
        self.link = Link(1, hello, 0, ahead=0, dialed=True)
        self.store = MemoryStore(Config())
        self.store.save_fingerprints(self.own)
        me = Member(HERE, version, False, version, self.store.node)
        self.rings = KeyRings(self.store, Membership([], me), {1: self.link}, self)  # type: ignore[arg-type]

    def alarm(self, what: str) -> None:
        self.alarms.append(what)

    def learn(self, theirs: Fingerprints) -> bool | None:
        self.rings.learn(self.link, theirs)
        return self.rings.fit(self.link)


@pytest.mark.parametrize(
    ("own", "theirs", "fit"),
    [
        ([["aa"]], [["aa"]], True),
        ([["aa", "bb"]], [["bb", "aa"]], True),  # in the midst of a rotation
        ([["aa", "bb"]], [["aa"]], True),  # at its end
        ([["aa"], ["bb"]], [["bb"], ["aa"]], True),  # two applications
        ([["bb", "aa"]], [["aa"]], False),  # a new key signs before it is listed everywhere
        ([["aa"]], [["bb", "aa"]], False),
        ([["aa"]], [["bb"]], False),
        ([["aa"], ["bb"]], [["aa"]], False),
        ([], [["aa"]], None),
        ([["aa"]], [], None),
        ([], [], None),
    ],
)
def test_the_key_that_signs_on_one_side_has_to_be_listed_on_the_other(
    own: Fingerprints, theirs: Fingerprints, fit: bool | None
) -> None:
    bench = Bench(own, theirs)
    assert bench.learn(theirs) is fit
    assert len(bench.alarms) == (fit is False)


def test_the_alarm_names_both_members_their_keys_and_what_to_do() -> None:
    bench = Bench([["aa"]], [["bb", "cc"]])
    bench.learn(bench.theirs)
    [alarm] = bench.alarms
    assert f"{THERE} does not know key aa, with which {HERE} signs" in alarm
    assert f"{HERE} does not know key bb, with which {THERE} signs" in alarm
    assert "cc" not in alarm
    assert "CANISTER_SECRET_KEYS" in alarm


def test_it_is_raised_once_until_the_keys_fit_again() -> None:
    bench = Bench([["aa"]], [["bb"]])
    assert [bench.learn([["bb"]]) for _ in range(3)] == [False] * 3
    assert len(bench.alarms) == 1
    assert bench.learn([["aa"]]) is True
    assert bench.learn([["bb"]]) is False
    assert len(bench.alarms) == 2


def test_what_the_processes_of_this_node_say_later_is_seen() -> None:
    bench = Bench([], [["bb"]])
    bench.learn([["bb"]])
    assert not bench.rings.look()
    bench.store.save_fingerprints([["aa"]])
    assert bench.rings.look()
    assert bench.rings.own == [["aa"]]
    assert len(bench.alarms) == 1
    assert not bench.rings.look()
    bench.store.save_fingerprints([["cc"]])
    assert bench.rings.look()
    assert "key cc" in bench.alarms[1]
    bench.store.save_fingerprints([["bb"]])
    assert bench.rings.look()
    assert bench.rings.fit(bench.link) is True
    assert len(bench.alarms) == 2
