import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_kit import made, pair, run

from canister import Canister

pytestmark = pytest.mark.integration

AT = "2026-11-24T08:30:00Z"


def test_shows_the_node_and_its_members_in_80_columns(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, b):
        a.put("i", "k", "v")
        text = run("status", tmp_path / "a").out
        assert "sessions        1 live\n" in text
        assert f"agent           pid {os.getpid()}\n" in text
        assert "isolated        no\n" in text
        assert "open questions  " in text
        heads, me, peer = text.splitlines()[-3:]
        assert heads.split() == ["ADDRESS", "STATE", "LAG", "CLOCK", "OFFSET"]
        assert me.split() == [a.config.listen, "self", "-", "-"]
        assert peer.split()[:2] == [b.config.listen, "up"]
        assert len({line.index(word) for line, word in ((heads, "STATE"), (me, "self"), (peer, "up"))}) == 1
    lines = [line for line in text.splitlines() if not line.startswith("data directory")]
    assert max(map(len, lines)) <= 80


def test_json_has_the_same(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, b):
        a.put("i", "k", "v")
        status = run("status", tmp_path / "a", "--json", "--at", AT).json
    assert status["data_directory"] == str(tmp_path / "a")
    assert status["cluster"] == "canister"
    assert status["sessions"] == 1
    assert status["agent_pid"] == os.getpid()
    assert status["as_of"] == AT
    assert len(bytes.fromhex(status["digest"])) == 16
    assert status["isolated"] is False
    assert isinstance(status["open_questions"], int)
    assert [m["state"] for m in status["members"]] == ["self", "up"]
    assert [m["address"] for m in status["members"]] == [a.config.listen, b.config.listen]


def test_nodes_that_hold_the_same_print_the_same_digest(tmp_path: Path) -> None:
    def digest(name: str, at: str) -> str:
        digest = run("status", tmp_path / name, "--json", "--at", at).json["digest"]
        assert isinstance(digest, str)
        return digest

    with pair(tmp_path) as (a, b):
        now = datetime.now(UTC).isoformat()
        empty = digest("a", now)
        a.put("i", "k", "v")
        eventually(lambda: b.get_data("i", local=True))
        assert digest("a", now) == digest("b", now) != empty
        # As of an instant at which the session's data is gone.
        later = (datetime.now(UTC) + timedelta(days=3)).isoformat()
        assert digest("a", later) == digest("b", later) == empty


def test_the_default_instant_is_the_last_full_ten_seconds(tmp_path: Path) -> None:
    with Canister(tmp_path):
        before = datetime.now(UTC)
        at = datetime.fromisoformat(run("status", tmp_path, "--json").json["as_of"])
        after = datetime.now(UTC)
    assert at.second % 10 == 0
    assert at.microsecond == 0
    assert before - timedelta(seconds=10) < at <= after


def test_shows_that_the_node_is_cut_off(tmp_path: Path) -> None:
    with Canister(tmp_path) as node:
        node.node.isolate(on=True)
        assert "isolated        yes" in run("status", tmp_path).out
        assert run("status", tmp_path, "--json").json["isolated"] is True


def test_without_an_agent_it_still_counts_the_sessions(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "v")
    result = run("status", tmp_path, code=3)
    assert "sessions        1 live\n" in result.out
    assert result.err.startswith(f"canister: no agent runs for {tmp_path}; start `canister node")
    result = run("status", tmp_path, "--json", code=3)
    assert result.json["sessions"] == 1
    assert result.json["agent_pid"] is None


@pytest.mark.parametrize("text", ["yesterday", "2026-11-24T08:30:00", "0001-01-01T00:00:00+14:00"])
def test_an_instant_needs_a_zone(text: str, tmp_path: Path) -> None:
    assert "with a zone" in run("status", made(tmp_path), "--at", text, code=2).err
