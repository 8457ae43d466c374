from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from tests.integration.cluster import eventually, free_port
from tests.integration.test_cli_kit import made, pair, refused, run

from canister import Canister, edits
from canister.cli.main import main
from canister.codec import encode_value
from canister.record import IDENTITY, META, Slot

pytestmark = pytest.mark.integration

DATA = {"k": "v", 5: b"\x00\xff", ("t", 1): (1, {2}), "when": datetime(2026, 1, 2, tzinfo=UTC)}


def test_get_prints_a_value_as_python_writes_it(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False) as node:
        node.update("i", {"text": "v", "number": Decimal("1.50"), "big": 10**5000})
    assert run("get", tmp_path, "i", "text").out == "'v'\n"
    assert run("get", tmp_path, "i", "number").out == "Decimal('1.50')\n"
    assert run("get", tmp_path, "i", "number", "--json").json == {"type": "Decimal", "value": "1.50"}
    assert run("get", tmp_path, "i", "big").out == "1" + "0" * 5000 + "\n"
    assert run("get", tmp_path, "i", "big", "--json").out == "1" + "0" * 5000 + "\n"


def test_get_without_a_key_prints_all(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False) as node:
        node.update("i", DATA)
    assert run("get", tmp_path, "i").out.splitlines() == [
        "'k'       'v'",
        "'when'    datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)",
        "('t', 1)  (1, {2})",
        "5         b'\\x00\\xff'",
    ]
    shown = run("get", tmp_path, "i", "--json").json
    assert shown["type"] == "dict"
    assert [5, {"type": "bytes", "value": "00ff"}] in shown["value"]


def test_get_of_a_missing_key_or_session_is_code_1(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "v")
    assert "session i has no key 'x'" in refused("get", tmp_path, "i", "x", code=1)
    assert "no live session j" in refused("get", tmp_path, "j", "k", code=1)
    assert "no live session j" in refused("get", tmp_path, "j", "--json", code=1)


def test_get_prints_none_that_was_stored(tmp_path: Path) -> None:
    run("put", made(tmp_path), "i", "k", "null", "--as", "json")
    assert run("get", tmp_path, "i", "k").out == "None\n"
    assert run("get", tmp_path, "i", "k", "--json").out == "null\n"


def test_ids_of_bytes_are_given_in_hex(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False) as node:
        node.put(b"\x00\xff", "k", "of bytes")
        node.put("00ff", "k", "of str")
    assert run("get", tmp_path, "00ff", "k").out == "'of str'\n"
    assert run("get", tmp_path, "--bytes-id", "00ff", "k").out == "'of bytes'\n"
    assert "hex" in run("get", tmp_path, "--bytes-id", "xyz", "k", code=2).err
    assert set(run("sessions", tmp_path).out.splitlines()) == {"00ff", "--bytes-id 00ff"}
    lines = set(run("sessions", tmp_path, "--json").out.splitlines())
    assert lines == {'"00ff"', '{"type": "bytes", "value": "00ff"}'}


def test_an_id_that_cannot_be_is_told(tmp_path: Path) -> None:
    assert "1 to 512 bytes" in refused("get", made(tmp_path), "", "k")


def test_looking_is_not_an_access(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False, touch_interval="0s") as node:
        node.put("i", "k", "v")
        before = node.record_status("i")
        run("get", tmp_path, "i", "k")
        run("info", tmp_path, "i")
        run("sessions", tmp_path)
        assert node.record_status("i") == before


def test_a_session_that_may_be_elsewhere_is_not_called_absent(tmp_path: Path) -> None:
    settings = {"listen": f"127.0.0.1:{free_port()}", "seeds": (f"127.0.0.1:{free_port()}",)}
    with Canister(tmp_path, **settings):
        for name in ("get", "info", "clear"):
            assert "may exist on a member that cannot be reached" in refused(name, tmp_path, "i")
    assert "may exist on a member that cannot be reached" in refused("get", tmp_path, "i")


def test_what_a_peer_has_is_found(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, b):
        a.put("i", "k", "v")
        eventually(lambda: run("get", tmp_path / "b", "i", "k").out == "'v'\n")
        b.forget("i")
        codes: list[int] = []
        eventually(lambda: codes.append(main(["get", str(tmp_path / "b"), "i", "k"])) or codes[-1] == 0)
        assert 1 not in codes  # until it is back, the node cannot tell


def test_info_shows_status_times_and_keys(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False) as node:
        node.update("i", {"k": "secret", 5: 1})
        created = node.record_status("i").created
    text = run("info", tmp_path, "i").out
    assert text.startswith("session    i\nstatus     live\ncreated    2")
    assert "cleared    -\n" in text
    assert "keys       'k', 5\n" in text
    assert "secret" not in text
    info = run("info", tmp_path, "i", "--json").json
    assert info["id"] == "i"
    assert info["status"] == "live"
    assert created is not None
    assert abs((datetime.fromisoformat(info["created"]) - created).total_seconds()) < 0.001
    assert info["destroyed"] is None
    assert info["keys"] == ["k", 5]


def test_metadata_is_never_shown(tmp_path: Path) -> None:
    slots = [Slot(space + encode_value("reserved")) for space in (META, IDENTITY)]
    with Canister(tmp_path, agent=False) as node:
        node.put("i", "k", "v")
        secret = dict.fromkeys(slots, encode_value("secret"))
        node.node.commit([(b"si", lambda r, m: edits.write(r, m, node.node.policy, secret))])
        record = node.node.store.load(b"si").record
        assert record is not None
        assert slots[0] in record.cells
    for name in ("get", "info"):
        for flags in ([], ["--json"]):
            out = run(name, tmp_path, "i", *flags).out
            assert "secret" not in out
            assert "reserved" not in out
    assert "no key" in refused("get", tmp_path, "i", "reserved", code=1)


def test_info_of_a_session_that_is_over(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False, session_timeout="10ms", touch_interval="0s") as node:
        node.put("expired", "k", "v")
    run("destroy", tmp_path, "destroyed")
    eventually(lambda: "status     expired\n" in run("info", tmp_path, "expired").out)
    info = run("info", tmp_path, "destroyed", "--json").json
    assert info["status"] == "destroyed"
    assert info["destroyed"] is not None
    assert "holds nothing" in refused("info", tmp_path, "never", code=1)


def test_sessions_lists_the_live_ones(tmp_path: Path) -> None:
    with Canister(tmp_path, agent=False) as node:
        for id in ("i", "j", "k"):
            node.put(id, "k", "v")
        node.destroy("k")
    assert set(run("sessions", tmp_path).out.splitlines()) == {"i", "j"}
    assert set(run("sessions", tmp_path, "--json").out.splitlines()) == {'"i"', '"j"'}
    assert len(run("sessions", tmp_path, "--limit", "1").out.splitlines()) == 1
    assert run("sessions", tmp_path, "--limit", "0").out == ""
    assert run("sessions", tmp_path, "--limit", "9" * 5000).out == run("sessions", tmp_path).out
    assert "whole number" in run("sessions", tmp_path, "--limit", "few", code=2).err
