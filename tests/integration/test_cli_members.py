from pathlib import Path

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_kit import made, pair, refused, run

from canister import Canister

pytestmark = pytest.mark.integration


def test_lists_the_members(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, b):
        lines = run("members", tmp_path / "a").out.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["ADDRESS", "STATE"],
            [a.config.listen, "self"],
            [b.config.listen, "up"],
        ]
        members = run("members", tmp_path / "a", "--json").json
        assert [m["address"] for m in members] == [a.config.listen, b.config.listen]
        assert members[0].keys() == {"address", "state", "node", "lag", "clock_offset", "keys_fit"}
        assert abs(members[1]["clock_offset"]) < 5


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_removes_a_member(flags: list[str], tmp_path: Path) -> None:
    with pair(tmp_path) as (a, b):
        out = run("remove-member", tmp_path / "a", b.config.listen, *flags)
        assert out.json == {"removed": b.config.listen} if flags else out.out.startswith("removed 127.")
        assert [member.state for member in a.members()] == ["self", "removed"]
        eventually(lambda: [m.state for m in b.members() if m.address == b.config.listen] == ["removed"])
        said = refused("remove-member", tmp_path / "a", b.config.listen, code=1)
        assert f"{b.config.listen} is not a member" in said


def test_a_removed_member_is_told_of_with_its_address_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pair(tmp_path) as (a, b):
        first, second = a.config.listen, b.config.listen
        run("remove-member", tmp_path / "a", second)
        for said in (
            f"{first}: refused: it cannot be linked with: {second} was removed from the cluster; ",
            f"127.0.0.1: refused: {second} was removed from the cluster; ",
        ):
            eventually(lambda said=said: any(m.startswith(said) for m in caplog.messages), message=said)


def test_a_node_that_was_removed_raises_the_alarm_once_and_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on answering, and what it writes reaches nobody."""

    def alarms() -> int:
        return sum(
            r.levelname == "ERROR" and "this node was removed" in r.getMessage() for r in caplog.records
        )

    with pair(tmp_path) as (a, b):
        b.put("s", "k", 1)  # with empty data it would return
        run("remove-member", tmp_path / "a", b.config.listen)
        eventually(lambda: alarms() == 1)
        address = b.config.listen
        b.close()
        with Canister(tmp_path / "b", listen=address, seeds=[a.config.listen]):
            eventually(lambda: alarms() == 2)


def test_a_node_does_not_remove_itself(tmp_path: Path) -> None:
    with pair(tmp_path) as (a, _):
        said = refused("remove-member", tmp_path / "a", a.config.listen)
        assert "is not a member that can be removed" in said
        assert [member.state for member in a.members()] == ["self", "up"]


def test_without_an_agent_it_says_what_to_do(tmp_path: Path) -> None:
    made(tmp_path)
    assert "start `canister node" in refused("members", tmp_path)
    assert "start `canister node" in refused("remove-member", tmp_path, "127.0.0.1:1")


def test_a_node_alone_is_its_only_member(tmp_path: Path) -> None:
    with Canister(tmp_path):
        assert [m["state"] for m in run("members", tmp_path, "--json").json] == ["self"]
