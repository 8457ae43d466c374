from pathlib import Path

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_kit import all_up, made, pair, refused, run

from canister import Canister
from canister.codec import encode_id

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_cut_and_heal(flags: list[str], tmp_path: Path) -> None:
    with pair(tmp_path) as (a, b):
        cut = run("cut", tmp_path / "a", *flags)
        assert cut.json == {"isolated": True} if flags else cut.out.startswith("cut off")
        eventually(lambda: [m.state for m in b.members()] == ["self", "down"])
        a.put("i", "a", 1)
        b.put("i", "b", 2)
        assert b.get_data("i", local=True) == {"b": 2}
        heal = run("heal", tmp_path / "a", *flags)
        assert heal.json == {"isolated": False} if flags else heal.out == "no longer cut off\n"
        eventually(lambda: a.get_data("i", local=True) == b.get_data("i", local=True) == {"a": 1, "b": 2})


def test_resync(tmp_path: Path) -> None:
    with pair(tmp_path) as (_, b):
        assert run("resync", tmp_path / "a").out.startswith("comparing with 1 peer;")
        assert run("resync", tmp_path / "a", "--json").json == {"peers": 1, "fetched": []}
        b.put("i", "k", "v")
        assert run("resync", tmp_path / "a", "i", "j").out == "asked 1 peer for 2 sessions\n"
        shown = run("resync", tmp_path / "a", "--bytes-id", "00ff", "--json").json
        assert shown == {"peers": 1, "fetched": [{"type": "bytes", "value": "00ff"}]}


def test_resync_fetches_what_is_named(tmp_path: Path) -> None:
    with pair(tmp_path, digest_interval="60s") as (a, b):
        b.put("i", "k", "v")
        eventually(lambda: a.get_data("i", local=True))
        a.node.store.forget(b"si")  # behind the agent's back, so that nothing brings it back by itself
        assert a.get_data("i", local=True) == {}
        run("resync", tmp_path / "a", "i")
        assert a.get_data("i", local=True) == {"k": "v"}


def test_resync_fetches_any_number(tmp_path: Path) -> None:
    ids = [f"s{number}" for number in range(300)]
    with pair(tmp_path, digest_interval="60s") as (a, b):
        for id in ids:
            b.put(id, "k", "v")
        eventually(lambda: a.num_local_sessions() == len(ids))
        for id in ids:
            a.node.store.forget(encode_id(id))
        a.resync(ids)
        assert sorted(a.all_sessions()) == sorted(ids)


def test_resync_fails_where_nobody_can_be_asked(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, _):
        a.node.isolate(on=True)
        eventually(lambda: not all_up(a))
        assert "no member can be reached" in refused("resync", tmp_path / "a")
        assert "no member can be reached" in refused("resync", tmp_path / "a", "i", "--json")


def test_resync_of_a_node_alone_does_nothing(tmp_path: Path) -> None:
    with Canister(tmp_path):
        assert run("resync", tmp_path, "--json").json == {"peers": 0, "fetched": []}


@pytest.mark.parametrize("name", ["cut", "heal", "resync"])
def test_without_an_agent_it_says_what_to_do(name: str, tmp_path: Path) -> None:
    assert "start `canister node" in refused(name, made(tmp_path))
