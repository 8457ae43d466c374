"""The steps of a move between a data directory and Redis: their order, and what is told of them."""

import os
import re
import secrets
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.integration.moves import Move
from tests.integration.test_cli_docs import masked
from tests.integration.test_cli_kit import made, refused, run
from tests.redis_servers import RedisServer

from canister import Canister, MigrationError
from canister.clock import SECOND
from canister.config import Config
from canister.errors import ClockError, ConfigError, CorruptDatabaseError
from canister.migration import leases
from canister.migration.marks import Step
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration


def test_steps_out_of_order_are_refused_and_the_next_one_is_named(move: Move) -> None:
    for step in ("switch", "copy", "finish"):
        assert "no move has begun; the next step is `begin`" in move.refuses(step)
    move.take("begin", "begin")
    for step in ("copy", "finish"):
        assert "the move is begun; the next step is `switch`" in move.refuses(step)
    with move.both():
        move.take("switch", "switch")
        for step in ("begin", "finish", "cancel"):
            assert "the move is switched; the next step is `copy`" in move.refuses(step)
        move.take("copy", "copy")
        for step in ("begin", "switch", "cancel"):
            assert "the move is copied; the next step is `finish`" in move.refuses(step)
        move.take("finish", "finish")
        for step in ("begin", "switch", "copy", "cancel"):
            assert "the move is finished; nothing is left to do" in move.refuses(step)


def test_a_move_can_be_cancelled_until_it_is_switched(move: Move) -> None:
    move.take("begin")
    with move.both() as canister:
        canister.put("s", "k", 1)
        assert "processes still run with migrate_to" in move.refuses("cancel")
    eventually(lambda: run("migrate", move.source, move.target, "--json").json["processes"] == {})
    move.take("cancel")
    with move.plain(move.source) as old, move.plain(move.target) as new:
        assert (old.get("s", "k"), new.get("s", "k")) == (1, None)


def test_the_other_way_round_has_to_wait(move: Move) -> None:
    move.take("begin")
    assert "are moving from" in refused("migrate", move.target, move.source, "begin")
    with move.both():
        move.take("switch", "copy", "finish")
    run("migrate", move.target, move.source, "begin")


def test_no_engine_is_opened_alone_while_it_does_not_have_everything(move: Move) -> None:
    move.plain(move.source).close()
    move.take("begin")
    move.plain(move.source).close()  # the others write there still
    with pytest.raises(MigrationError, match="not all there yet"):
        move.plain(move.target)
    with move.both():
        move.take("switch")
        for place, reason in ((move.source, "new ones are there only"), (move.target, "not all there yet")):
            with pytest.raises(MigrationError, match=reason):
                move.plain(place)
        if move.to_servers:
            assert "new ones are there only" in refused("put", move.directory, "s", "k", "v")
        move.take("copy", "finish")
    with pytest.raises(MigrationError, match=r"have moved to .*; open that"):
        move.plain(move.source)
    move.plain(move.target).close()


def test_the_commands_show_all_there_is_or_refuse(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    with move.plain(move.source) as old:
        old.put("s", "k", "old")
    move.take("begin")
    with move.both() as canister:
        canister.get("s", "k")
        move.take("switch")
        canister.put("s", "k", "new")
    looking = [("get", "s"), ("info", "s"), ("sessions",)]
    for command, *words in looking:
        assert "the sessions of" in refused(command, move.directory, *words)
    if move.to_servers:
        monkeypatch.setenv("CANISTER_MIGRATE_TO", move.url)
        assert run("get", move.directory, "s", "k").out == "'new'\n"
        assert "live" in run("info", move.directory, "s").out
        assert run("sessions", move.directory).out == "s\n"
        monkeypatch.delenv("CANISTER_MIGRATE_TO")
    move.take("copy", "finish")
    for command, *words in looking:
        if move.to_servers:
            assert "have moved to" in refused(command, move.directory, *words)
        else:
            run(command, move.directory, *words)
    assert "no agent" in run("status", move.directory, code=3).err


def test_both_are_opened_only_while_a_move_says_so(move: Move) -> None:
    with pytest.raises(MigrationError, match="begin` first"):
        move.both()
    move.take("begin")
    with pytest.raises(MigrationError, match="open them that way round"):
        move.plain(move.target, migrate_to=move.source)
    with pytest.raises(ConfigError, match="between a data directory and a URL"):
        move.plain(move.source, migrate_to=move.source)


def test_a_process_that_waits_for_a_move_is_told_of(move: Move) -> None:
    with pytest.raises(MigrationError, match="no move has begun"):
        move.both()
    assert "processes  1 not begun\n" in run("migrate", move.source, move.target).out


def test_the_step_waits_for_processes_that_go_by_the_one_before(move: Move) -> None:
    """A process that does nothing keeps nobody waiting; one that was told the step is not asked again."""
    move.take("begin")
    board = move.board()
    with move.both() as canister:
        assert board.read().behind(Step.SWITCHED) == 1
        eventually(lambda: board.read().behind(Step.SWITCHED) == 0, message="the lease is over")
        canister.get("s", "k")
        assert board.read().behind(Step.SWITCHED) == 1
        move.take("switch")
        assert board.read().behind(Step.SWITCHED) == 0
        canister.get("s", "k")
        assert [holder.step for holder in board.read().holders] == [Step.SWITCHED]
    board.close()


def test_a_forked_process_holds_a_lease_of_its_own(move: Move) -> None:
    move.take("begin")
    board = move.board()
    with move.both() as canister:
        child = os.fork()
        if child == 0:
            try:
                canister.put("s", "from the child", 1)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert canister.get("s", "from the child") == 1
        assert len(board.read().holders) == 2
    board.close()


def test_clocks_that_are_far_apart_are_refused(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    move.take("begin")
    monkeypatch.setattr("canister.node.Node.clock", None, raising=False)
    monkeypatch.setattr("canister.opening.SystemClock", lambda: ManualClock(move.now() + 61 * SECOND))
    with pytest.raises(ClockError, match="61 s apart"):
        move.both()


def test_no_password_is_told(redis_server: RedisServer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    url = f"redis://default:se/cr@et@{redis_server.address}"
    assert "se/cr" not in Config(migrate_to=url).summary()
    assert f"migrate_to=redis://{redis_server.address}" in Config(migrate_to=url).summary()
    data = made(tmp_path / "data")
    url = f"redis://default@{redis_server.address}"
    run("migrate", data, url, "begin")
    with pytest.raises(MigrationError) as refusal:
        Canister(redis_server.url, agent=False)
    assert "default" not in str(refusal.value)


@pytest.mark.parametrize("fields", [{"step": 9}, {"step": b"\xff"}, {"step": 1, "p:x": "x"}])
def test_a_board_that_is_none_is_told(move: Move, fields: dict[str, Any]) -> None:
    """A newer release may know more steps than this one."""
    board = move.board()
    board.write(fields)
    with pytest.raises(CorruptDatabaseError, match="no move of sessions that this release knows"):
        board.read()
    board.close()
    assert "no move of sessions that this release knows" in refused("migrate", move.source, move.target)


def test_wrong_usage(redis_server: RedisServer, tmp_path: Path) -> None:
    data = made(tmp_path / "data")
    for words in ((data, data), (redis_server.url, redis_server.url), (data, redis_server.url, "jump")):
        assert "usage: canister migrate" in run("migrate", *words, code=2).err
    assert "is not a data directory" in refused("migrate", tmp_path / "nowhere", redis_server.url, "begin")


def test_the_page_shows_what_the_command_prints(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    monkeypatch.setattr(leases, "LEASE", 0.6)
    made(tmp_path / "data")
    page = (Path(__file__).parents[2] / "docs" / "howto" / "migrate.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    examples = [
        part.partition("\n") for part in re.split(r"^\$ canister ", "".join(blocks), flags=re.MULTILINE)[1:]
    ]
    canister: Canister | None = None
    for command, _, shown in examples:
        words = [redis_server.url if word.startswith("redis:") else word for word in shlex.split(command)]
        if len(words) == 3:  # it asks where the move is
            await_idle(words)
        assert masked(run(*words).out) == masked(shown), command
        if words[-1] == "begin":
            canister = Canister("data", agent=False, migrate_to=redis_server.url)
            canister.put("some-id", "cart", ["tea"])
    assert canister is not None
    canister.close()


def await_idle(words: list[str]) -> None:
    """Wait until the leases of all processes are over."""
    eventually(lambda: run(*words, "--json").json["processes"] == {}, message="the leases are over")
