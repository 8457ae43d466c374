from pathlib import Path

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_kit import all_up, pair, refused, run

from canister import Canister
from canister.replication.healing import Difference, HealReport

pytestmark = pytest.mark.integration


def split_and_heal(a: Canister, b: Canister) -> None:
    """Let both sides write during a cut, and wait until both have reported the heal."""
    for session in ("both", "cleared", "destroyed"):
        a.put(session, "k", 1, acks="all")
    b.node.isolate(on=True)
    eventually(lambda: not all_up(a))
    a.update("both", {"a": 1, "same": "early"})
    b.update("both", {"b": 2, "same": "late"})
    a.clear("cleared")
    b.destroy("destroyed")
    a.put("new", "k", 1)
    b.node.isolate(on=False)
    eventually(lambda: a.node.heals().reports and b.node.heals().reports)


def test_each_side_says_what_differed_and_why(tmp_path: Path) -> None:
    """After a split both nodes tell every session that differed, what was taken and what was kept."""
    with pair(tmp_path) as (a, b):
        split_and_heal(a, b)
        (heal,) = run("heal-report", tmp_path / "a", "--json").json["heals"]
        (other,) = run("heal-report", tmp_path / "b", "--json").json["heals"]
        here = {s["id"]: s for s in heal["sessions"]}
        there = {s["id"]: s for s in other["sessions"]}
        assert (here["both"]["outcome"], sorted(here["both"]["taken"])) == ("merged", ["b", "same"])
        assert (there["both"]["outcome"], there["both"]["taken"]) == ("merged", ["a"])
        assert there["both"]["kept"] == ["same"]
        assert (there["cleared"]["outcome"], there["new"]["outcome"]) == ("cleared", "arrived")
        assert here["destroyed"]["outcome"] == there["destroyed"]["outcome"] == "destroyed"
        assert "other side destroyed it" in here["destroyed"]["why"]
        assert "destroyed here" in there["destroyed"]["why"]
        assert heal["parted"] < heal["linked"] <= heal["healed"]
        assert not heal["equal"]


def test_the_text_is_for_people(tmp_path: Path) -> None:
    """The report names the peer, how long it lasted, the counts and each session with its reason."""
    with pair(tmp_path) as (a, b):
        assert "no heal since the agent started" in run("heal-report", tmp_path / "b").out
        split_and_heal(a, b)
        out = run("heal-report", tmp_path / "b").out
        assert "1 arrived, 1 cleared, 1 destroyed, 1 merged" in out
        assert "both: merged (took a; kept same): of each key the later version stays" in out


def test_who_had_nothing_to_take_says_whether_all_was_equal(tmp_path: Path) -> None:
    """Of a peer that lacked something nothing is taken, and yet it was not equal."""
    with pair(tmp_path, digest_interval="1h") as (a, b):
        b.node.isolate(on=True)
        eventually(lambda: not all_up(a))
        b.node.isolate(on=False)
        eventually(lambda: a.node.heals().reports)
        assert "  nothing differed\n" in run("heal-report", tmp_path / "a").out
    report = HealReport("127.0.0.1:7400", 1, 2, 3, peer_lacked=True)
    assert report.summary() == "nothing to take; the peer lacked some"
    report.differences.append(Difference(b"s", "arrived", ""))
    assert report.summary() == "1 arrived; the peer lacked some"


def test_when_all_were_last_equal(tmp_path: Path) -> None:
    """Once a comparison has found nothing that differs, the report says when that was."""
    with pair(tmp_path, digest_interval="300ms") as (a, _):
        before = a.node.clock.now()
        a.put("s", "k", 1, acks="all")
        eventually(lambda: a.node.heals().last_equal > before)
        assert "all members last found equal: 2" in run("heal-report", tmp_path / "a").out


def test_without_an_agent_it_says_what_to_do(tmp_path: Path) -> None:
    """The report is in the agent's memory; without an agent there is an error, not an empty report."""
    with Canister(tmp_path):
        pass
    assert "no agent runs" in refused("heal-report", tmp_path)
