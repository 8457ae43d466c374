from pathlib import Path

import pytest
from tests.integration.test_cli_kit import made, refused, run

from canister import Canister

pytestmark = pytest.mark.integration


def test_put_stores_text(tmp_path: Path) -> None:
    assert run("put", made(tmp_path), "i", "k", "1").out == "stored 'k' in i\n"
    with Canister(tmp_path, agent=False) as node:
        assert node.peek("i", "k") == "1"
    assert run("put", tmp_path, "i", "k", "2", "--json").json == {"previous": "1"}


def test_put_stores_what_json_says(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", '{"a": [1, 2.5, null]}', "--as", "json")
    with Canister(tmp_path, agent=False) as node:
        assert node.peek("i", "k") == {"a": [1, 2.5, None]}
    assert "not JSON" in run("put", tmp_path, "i", "k", "{", "--as", "json", code=2).err
    assert "not JSON" in run("put", tmp_path, "i", "k", "9" * 5000, "--as", "json", code=2).err


def test_put_tells_what_cannot_be_stored(tmp_path: Path) -> None:
    assert "max_value" in refused("put", made(tmp_path), "i", "k", "x" * 300_000)
    run("destroy", tmp_path, "i")
    assert "destroyed" in refused("put", tmp_path, "i", "k", "v")


def test_remove(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "v")
    run("put", tmp_path, "i", "l", "w")
    assert run("remove", tmp_path, "i", "k").out == "removed 'k' from i\n"
    assert run("remove", tmp_path, "i", "l", "--json").json == {"previous": "w"}
    assert run("get", tmp_path, "i").out == ""
    assert "has no key 'k'" in refused("remove", tmp_path, "i", "k", code=1)
    assert "no live session" in refused("remove", tmp_path, "j", "k", code=1)


def test_clear(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "v")
    assert run("clear", tmp_path, "i").out == "cleared i\n"
    assert run("get", tmp_path, "i", "--json").json == {}
    assert run("clear", tmp_path, "i", "--json").json == {"cleared": "i"}


def test_clear_makes_no_session(tmp_path: Path) -> None:
    assert "no live session i" in refused("clear", made(tmp_path), "i", code=1)
    assert run("sessions", tmp_path).out == ""


def test_destroy(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "v")
    assert run("destroy", tmp_path, "i").out == "destroyed i\n"
    refused("get", tmp_path, "i", code=1)
    assert run("destroy", tmp_path, "never-heard-of", "--json").json == {"destroyed": "never-heard-of"}
    with Canister(tmp_path, agent=False) as node:
        assert node.record_status("never-heard-of").status == "destroyed"


def test_ids_of_bytes(tmp_path: Path) -> None:
    run("put", made(tmp_path), "--bytes-id", "00ff", "k", "v")
    with Canister(tmp_path, agent=False) as node:
        assert node.peek(b"\x00\xff", "k") == "v"
    shown = run("destroy", tmp_path, "--bytes-id", "00ff", "--json").json
    assert shown == {"destroyed": {"type": "bytes", "value": "00ff"}}
