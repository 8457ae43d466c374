from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_kit import made, pair, refused, run

from canister import Canister

pytestmark = pytest.mark.integration

SHORT: dict[str, Any] = {"session_timeout": "10ms", "touch_interval": "0s", "grace_period": "0s"}


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_sweep_drops_what_is_past_its_retention(flags: list[str], tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False, **SHORT) as node:
        node.put("i", "k", "v")
        eventually(lambda: node.record_status("i").status == "unknown")
    run("put", tmp_path, "j", "k", "v")
    swept = run("sweep", tmp_path, *flags)
    if flags:
        assert swept.json == {"expired": 1, "destroyed": 0}
    else:
        assert swept.out == "dropped 1 expired session and 0 tombstones\n"
    assert run("sessions", tmp_path).out == "j\n"


def test_sweep_drops_tombstones_past_their_time(tmp_path: Path) -> None:
    brief = {**SHORT, "absolute_lifetime": "10ms", "max_clock_drift": "0s"}
    with Canister(tmp_path, agent=False, **brief) as node:
        node.put("i", "k", "v")
        node.destroy("i")
        eventually(lambda: node.record_status("i").status == "unknown")
    assert run("sweep", tmp_path, "--json").json == {"expired": 0, "destroyed": 1}


def test_sweep_of_a_member_waits_until_all_have_compared(tmp_path: Path) -> None:
    with pair(tmp_path, digest_interval="60s", max_clock_drift="0s", **SHORT) as (a, b):
        a.put("i", "k", "v")
        eventually(lambda: b.node.store.load(b"si").record is not None)
        eventually(lambda: a.record_status("i").status == "unknown")
        assert run("sweep", tmp_path / "a", "--json").json == {"expired": 0, "destroyed": 0}
        assert a.node.store.load(b"si").record is not None


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_forget_drops_the_copy_of_this_node(flags: list[str], tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "v")
    forgot = run("forget", tmp_path, "i", *flags)
    assert forgot.json == {"forgotten": "i"} if flags else forgot.out.startswith("forgot i;")
    assert "holds nothing" in refused("forget", tmp_path, "i", code=1)


def test_forget_of_a_member_is_repaired_at_once(tmp_path: Path) -> None:
    with pair(tmp_path, digest_interval="60s") as (a, b):
        a.put("i", "k", "v")
        eventually(lambda: b.get_data("i", local=True))
        run("forget", tmp_path / "a", "i")
        eventually(lambda: a.get_data("i", local=True) == {"k": "v"})


def test_a_member_needs_its_agent(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, _):
        a.put("i", "k", "v")
    assert "start `canister node" in refused("sweep", tmp_path / "a")
    assert "start `canister node" in refused("forget", tmp_path / "a", "i")
