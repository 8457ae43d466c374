"""The rules of a move between a data directory and Redis, one by one, and each way where there are two."""

import copy
import os
import re
import secrets
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.integration.test_cli_docs import masked
from tests.integration.test_cli_kit import made, pair, refused, run
from tests.redis_servers import RedisServer, running_cluster, running_redis

from canister import Canister, MigrationError, SessionDestroyedError, Status, StoreUnavailableError
from canister.clock import SECOND
from canister.codec import encode_id
from canister.config import Config
from canister.edits import destroy
from canister.engine import Engine
from canister.errors import ClockError, ConfigError
from canister.freshness import missing, stamp_for
from canister.life import status
from canister.migration import copying, leases
from canister.migration.board import Board
from canister.migration.engine import MigratingEngine, Side
from canister.migration.marks import Step
from canister.opening import open_side
from canister.record import SERVERS, Record
from canister.sessions import SessionManager
from canister.store.base import Stored
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

KEY = "key-0123456789-abcdefghijklmnopqrs"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Return a server that no test harms."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Move:
    """A move, one way or the other; *settings* are those of all that is opened."""

    def __init__(self, directory: Path, url: str, *, to_servers: bool) -> None:
        self.settings: dict[str, Any] = {"cluster": secrets.token_hex(8)}
        self.directory, self.url, self.to_servers = str(directory), url, to_servers
        places = (self.directory, url)
        self.source, self.target = places if to_servers else places[::-1]
        os.environ["CANISTER_CLUSTER"] = self.settings["cluster"]
        with Canister(self.directory, agent=False):
            pass

    def plain(self, place: str, **settings: Any) -> Canister:
        """Open one engine alone, as an application does."""
        return Canister(place, agent=False, **self.settings, **settings)

    def both(self, **settings: Any) -> Canister:
        """Open both, as an application does while its sessions move."""
        return self.plain(self.source, migrate_to=self.target, **settings)

    def side(self, place: str, clock: ManualClock | None = None) -> Side:
        """Open an engine whatever its sessions are doing."""
        return open_side(place, Config(**self.settings), clock, may_run_agent=False)

    def take(self, *steps: str) -> None:
        """Take steps by the command."""
        for step in steps:
            run("migrate", self.source, self.target, step, "--json")

    def refuses(self, step: str) -> str:
        """Return what the command says of a step that it must refuse."""
        said = run("migrate", self.source, self.target, step, code=3).err.splitlines()[-1]
        assert said.startswith("canister: ")
        return said

    def board(self) -> Board:
        return Board(self.url, self.settings["cluster"], 5)

    def records(self, session: str) -> list[Record | None]:
        """Return a session as the old and as the new engine hold it."""
        found: list[Record | None] = []
        for place in (self.source, self.target):
            side = self.side(place)
            found.append(side.store.load(encode_id(session)).record)
            side.close()
        return found

    def statuses(self, session: str) -> list[Status]:
        """Return what a session is in the old and in the new engine."""
        now = self.now()
        return [status(record, now) for record in self.records(session)]

    def now(self) -> int:
        side = self.side(self.url)
        now = side.clock.now()
        side.close()
        return now


@pytest.fixture(params=["to servers", "to a directory"])
def move(request: pytest.FixtureRequest, shared: RedisServer, tmp_path: Path, monkeypatch: Any) -> Move:
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    monkeypatch.setattr(leases, "LEASE", 0.6)
    monkeypatch.setattr(leases, "_RENEWAL", 0.2)
    return Move(tmp_path / "data", shared.url, to_servers=request.param == "to servers")


def destroyed(canister: Canister | Side, session: str) -> None:
    """Destroy a session in one engine alone."""
    engine: Engine = canister.engine if isinstance(canister, Canister) else canister
    engine.commit([(encode_id(session), lambda r, m: destroy(r, m, engine.policy))])


# The order of the steps.


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
            run("sessions", move.directory)
        move.take("copy", "finish")
    with pytest.raises(MigrationError, match=r"have moved to .*; open that"):
        move.plain(move.source)
    move.plain(move.target).close()


def test_both_are_opened_only_while_a_move_says_so(move: Move) -> None:
    with pytest.raises(MigrationError, match="begin` first"):
        move.both()
    move.take("begin")
    with pytest.raises(MigrationError, match="open them that way round"):
        move.plain(move.target, migrate_to=move.source)
    with pytest.raises(ConfigError, match="between a data directory and a URL"):
        move.plain(move.source, migrate_to=move.source)


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


# What is read and written.


def test_writes_go_to_the_old_engine_and_then_to_the_new_one(move: Move) -> None:
    with move.plain(move.source) as old:
        old.put("s", "a", 0)
    move.take("begin")
    with move.both() as canister:
        canister.put("s", "b", 1)
        assert [record is not None for record in move.records("s")] == [True, False]
        move.take("switch")
        canister.put("s", "c", 2)
        assert canister.get_data("s") == {"a": 0, "b": 1, "c": 2}
        move.take("copy", "finish")
    with move.plain(move.target) as new:
        assert new.get_data("s") == {"a": 0, "b": 1, "c": 2}
    old_record = move.records("s")[0]
    assert old_record is not None
    assert len(old_record.cells) == 2


def test_processes_of_neighbouring_steps_see_what_the_others_write(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    move.take("begin")
    with move.both() as early, move.both() as late:
        stay(early, Step.BEGUN, monkeypatch)
        stay(late, Step.SWITCHED, monkeypatch)
        for number, canister in enumerate((early, late) * 4):
            canister.put("s", f"k{number}", number)
            canister.put("s", "same", number)
        wanted = {f"k{number}": number for number in range(8)} | {"same": 7}
        assert early.get_data("s") == late.get_data("s") == wanted
        assert list(early.all_sessions()) == ["s"]


def stay(canister: Canister, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a process go by a step whatever the board says."""
    assert isinstance(canister.engine, MigratingEngine)
    monkeypatch.setattr(canister.engine._leases, "step", lambda: step)


@pytest.mark.parametrize("step", [Step.BEGUN, Step.SWITCHED])
def test_destroys_go_to_both(move: Move, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    move.take("begin")
    with move.both() as canister:
        stay(canister, step, monkeypatch)
        canister.put("s", "k", 1)
        canister.destroy("s")
        canister.destroy("never heard of")
        for session in ("s", "never heard of"):
            assert move.statuses(session) == [Status.DESTROYED] * 2
            with pytest.raises(SessionDestroyedError):
                canister.put(session, "k", 2)


@pytest.mark.parametrize("where", ["source", "target"])
@pytest.mark.parametrize("step", [Step.BEGUN, Step.SWITCHED])
def test_a_session_that_one_engine_knows_to_be_destroyed_is_over(
    move: Move, where: str, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have died between the two; whichever was told first, both are believed."""
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
    move.take("begin")
    side = move.side(getattr(move, where))
    destroyed(side, "s")
    side.close()
    with move.both() as canister:
        stay(canister, step, monkeypatch)
        assert canister.get_data("s") == {}
        assert list(canister.all_sessions()) == []
        with pytest.raises(SessionDestroyedError):
            canister.put("s", "k", 2)


def test_a_copy_never_goes_over_a_tombstone_and_carries_it_back(move: Move) -> None:
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
        old.put("other", "k", 1)
    old, new = move.side(move.source), move.side(move.target)
    destroyed(new, "s")
    assert [progress.carried for progress in copying.copy(old, new, b"")][-1] == 1
    old.close()
    new.close()
    assert move.statuses("s") == [Status.DESTROYED] * 2
    assert move.statuses("other") == [Status.LIVE] * 2


def test_nothing_that_is_taken_in_goes_over_a_tombstone(move: Move) -> None:
    """Nor a copy that was read before the session was destroyed, and comes after that."""
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
        live = old.engine.store.load(encode_id("s")).record
    assert live is not None
    for place in (move.source, move.target):
        side = move.side(place)
        destroyed(side, "s")
        side.take([(encode_id("s"), live)])
        side.close()
    assert move.statuses("s") == [Status.DESTROYED] * 2


def test_what_is_written_after_a_step_is_newer_than_what_was_before_whatever_the_clocks_say(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute of difference between the clocks of the two engines loses no write."""
    ahead = move.side(move.source, ManualClock(move.now() + 30 * SECOND))
    canister = Canister.__new__(Canister)
    canister.engine, canister.config = ahead, ahead.config
    canister._clock, canister._policy = ahead.clock, ahead.policy
    canister.put("s", "k", "before")
    canister.close()
    move.take("begin")
    with move.both() as canister:
        stay(canister, Step.SWITCHED, monkeypatch)
        canister.put("s", "k", "after")
        assert canister.get("s", "k") == "after"
        canister.put("s", "k", "last")
        assert canister.get("s", "k") == "last"


def test_a_write_that_comes_too_late_for_its_step_is_carried_over(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of a write, while everything moved, loses nothing."""
    move.take("begin")
    with move.both() as canister:
        engine = canister.engine
        assert isinstance(engine, MigratingEngine)
        commit = engine._old.commit

        def stopped(*arguments: Any, **more: Any) -> Any:
            move.take("switch", "copy", "finish")  # its lease ends meanwhile
            return commit(*arguments, **more)

        monkeypatch.setattr(engine._old, "commit", stopped)
        canister.put("s", "k", 1)
    with move.plain(move.target) as new:
        assert new.get("s", "k") == 1


# Everything moves.


def cookie_of(manager: SessionManager, session: Any) -> str:
    set_cookie = manager.commit(session).set_cookie
    assert set_cookie is not None
    return str(set_cookie).partition(";")[0]


def test_users_counters_expiry_and_entries_move(move: Move) -> None:
    with move.plain(move.source) as old:
        manager = SessionManager(old, secret_keys=KEY)
        cookies = []
        for user in ("ann", "ann", "bob"):
            session = manager.open([])
            session.login(user)
            session.increment("n", 2)
            cookies.append(cookie_of(manager, session))
        old.put("short", "k", 1)
        old.set_expiry("short", idle="1h")
        ends = old.session_info("short").ends  # type: ignore[union-attr]
    move.take("begin")
    with move.both() as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        count_one_more(manager, cookies[2])
        move.take("switch")
        count_one_more(manager, cookies[2])
        assert len(manager.users.sessions("ann")) == 2
        move.take("copy")
        assert manager.users.end_all("ann") == 2
        move.take("finish")
    with move.plain(move.target) as new:
        manager = SessionManager(new, secret_keys=KEY)
        sessions = [manager.open([cookie]) for cookie in cookies]
        assert [session.user for session in sessions] == [None, None, "bob"]
        assert sessions[2].count("n") == 4
        assert [one.identity.user for one in manager.users.sessions("bob")] == ["bob"]
        assert new.session_info("short").ends == ends  # type: ignore[union-attr]
        assert manager.users.revocation(b"\xa3ann") is not None


def test_a_stream_that_outlasts_the_move_ends_with_its_session(move: Move) -> None:
    move.take("begin")
    with move.both() as canister:
        manager = SessionManager(canister, secret_keys=KEY)
        session = manager.open([])
        session["k"] = 1
        manager.commit(session)
        ended = threading.Event()
        assert session.handle is not None
        assert manager.hold(session, ended.set) is not None
        move.take("switch", "copy", "finish")
        assert not ended.is_set()
        with move.plain(move.target) as new:
            new.destroy(session.handle)
            eventually(ended.is_set, message="the stream has ended")


def count_one_more(manager: SessionManager, cookie: str) -> None:
    session = manager.open([cookie])
    session.increment("n")
    manager.commit(session)


def test_a_session_that_is_larger_than_allowed_moves(move: Move) -> None:
    """Merges may exceed the limit, so what moves may."""
    with move.plain(move.source) as old:
        old.update("s", {f"k{n}": "x" * 50_000 for n in range(10)})
    move.settings["max_session"] = move.settings["max_value"] = 100_000
    old, new = move.side(move.source), move.side(move.target)
    list(copying.copy(old, new, b""))
    old.close()
    new.close()
    assert move.records("s")[0] == move.records("s")[1]


# The copy, and what shows that nothing is missing.


def test_a_copy_goes_on_where_it_was_broken_off(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    with move.plain(move.source) as old:
        for number in range(1100):
            old.put(f"s{number}", "k", number)
    move.take("begin")
    seen: list[int] = []
    carry = copying._carry

    def counting(old: Side, new: Side, sessions: list[Any]) -> Any:
        if len(seen) == 2:
            seen.append(0)
            raise StoreUnavailableError("broken off")
        seen.append(len(sessions))
        return carry(old, new, sessions)

    monkeypatch.setattr(copying, "_carry", counting)
    with move.both():
        move.take("switch")
        assert "broken off" in move.refuses("copy")
        before = list(seen)
        told = run("migrate", move.source, move.target, "copy", "--json").json
        again = sum(seen) - sum(before)
        assert sum(before) + again == pytest.approx(1101, abs=20)
        assert told["carried"] == pytest.approx(1100, abs=20)
        move.take("finish")
    with move.plain(move.target) as new:
        assert new.num_local_sessions() == 1100


def test_finish_names_what_was_written_to_the_old_engine_alone(move: Move) -> None:
    """A process without migrate_to is found out, and what it wrote is not lost."""
    old = move.plain(move.source)
    move.take("begin")
    with move.both() as canister:
        canister.put("s", "k", 1)
        move.take("switch", "copy")
        old.put("overlooked", "k", 1)
        board = move.board()
        board.write({"settled": board.read().now - 70_000})  # the step was taken long ago
        board.close()
        said = move.refuses("finish")
        assert "the sessions overlooked were written to" in said
        assert "a process without migrate_to still runs" in said
        move.take("finish")
    old.close()
    with move.plain(move.target) as new:
        assert new.get("overlooked", "k") == 1


def test_sessions_that_differ_are_found(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    with move.plain(move.source) as old:
        old.put("s", "k", 1)
        old.put("t", "k", 1)
    move.take("begin")
    with move.both():
        move.take("switch", "copy")
        new = move.side(move.target)
        record = new.store.load(encode_id("s")).record
        assert record is not None
        monkeypatch.setattr(copying, "_carry", lambda *_: [])
        load_all = type(new.store).load_all
        monkeypatch.setattr(
            type(new.store),
            "load_all",
            lambda self, ids: {i: r for i, r in load_all(self, ids).items() if i != encode_id("s")},
        )
        new.close()
        assert "the sessions s differ" in move.refuses("finish")


def test_the_digest_is_of_ids_keys_and_values_alone(move: Move) -> None:
    """Equal data has one digest, whatever wrote it and when."""
    digests: list[set[int]] = []
    for data in ({"a": 1, "b": 2}, {"a": 1, "b": 3}):
        found: set[int] = set()
        for place in (move.source, move.target):
            with move.plain(place) as canister:
                canister.update("s", data)
                record = canister.engine.store.load(encode_id("s")).record
                found.add(copying.digest_of(encode_id("s"), record, canister.engine.clock.now()))
                found.add(copying.digest_of(encode_id("t"), record, canister.engine.clock.now()))
        digests.append(found)
    assert [len(found) for found in digests] == [2, 2]
    assert not digests[0] & digests[1]


def test_writes_that_are_held_back_are_not_left_behind(move: Move) -> None:
    """What a wrong clock has dated ahead is not shown yet: the move waits for it."""
    ahead = move.side(move.source, ManualClock(move.now() + 300 * SECOND))
    ahead.commit([(encode_id("s"), lambda r, m: newborn(m, ahead))])
    record = ahead.store.load(encode_id("s")).record
    assert record is not None
    ahead.close()
    mesh = move.side(move.directory)
    mesh.take([(encode_id("t"), record)])
    assert mesh.store.load(encode_id("t")) == Stored(None, held=True)
    mesh.close()
    move.take("begin")
    with move.both():
        move.take("switch", "copy")
        said = move.refuses("finish")
        assert "hold writes dated further ahead than max_clock_drift" in said
        assert " t" in said


def newborn(moment: Any, side: Side) -> Record:
    from canister import edits

    return edits.write(None, moment, side.policy, {})


# Servers that are away, members that are down, peers.


def test_a_server_that_is_away_fails_clearly_and_loses_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    with running_redis(tmp_path / "redis") as server:
        move = Move(tmp_path / "data", server.url, to_servers=True)
        move.take("begin")
        with move.both(remote_timeout="300ms") as canister:
            canister.put("s", "k", 1)
            server.signal(signal.SIGSTOP)
            calls: list[Callable[[], object]] = [
                lambda: canister.put("s", "k", 2),
                lambda: canister.get("s", "k"),
                lambda: canister.destroy("s"),
            ]
            for call in calls:
                with pytest.raises(StoreUnavailableError):
                    call()
            server.signal(signal.SIGCONT)
            eventually(lambda: reads(canister), message="the server is back")
            assert canister.get("s", "k") in (1, 2)
            canister.destroy("s")
            assert canister.get_data("s") == {}


def reads(canister: Canister) -> bool:
    try:
        return bool(canister.get("s", "k"))
    except StoreUnavailableError:
        return False


def test_a_member_without_the_setting_is_found(tmp_path: Path, shared: RedisServer, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    with pair(tmp_path) as (_, b):
        run("migrate", tmp_path / "a", shared.url, "begin")
        said = refused("migrate", tmp_path / "a", shared.url, "switch")
        assert "no process with migrate_to has been seen on" in said
        assert str(b.config.listen) in said
        with Canister(tmp_path / "b", agent=False, migrate_to=shared.url):
            said = refused("migrate", tmp_path / "a", shared.url, "switch")
            assert str(b.config.listen) not in said
            with Canister(tmp_path / "a", agent=False, migrate_to=shared.url) as canister:
                b.put("of the other member", "k", 1)
                for step in ("switch", "copy", "finish"):
                    run("migrate", tmp_path / "a", shared.url, step)
                assert canister.get("of the other member", "k") == 1
    with Canister(shared.url) as new:
        assert new.get("of the other member", "k") == 1


def test_what_comes_from_the_servers_is_known_to_all_members(
    tmp_path: Path, shared: RedisServer, monkeypatch: Any
) -> None:
    """A browser that was served by Redis is served by any member, which then asks no other."""
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    with Canister(shared.url) as old:
        old.put("s", "k", 1)
        stamp = stamp_for(old.engine.store.load(encode_id("s")).record or Record())
    with pair(tmp_path, digest_interval="1s") as (a, b):
        run("migrate", shared.url, tmp_path / "a", "begin")
        both = [
            Canister(shared.url, agent=False, migrate_to=path, listen=node.config.listen)
            for path, node in ((tmp_path / "a", a), (tmp_path / "b", b))
        ]
        assert missing(stamp, both[1].engine.store.heard_of) == []
        assert missing(stamp, b.engine.store.heard_of) != []
        for step in ("switch", "copy", "finish"):
            run("migrate", shared.url, tmp_path / "a", step)
        assert b.get("s", "k", local=True) == 1
        eventually(lambda: not missing(stamp, b.engine.store.heard_of), message="b has heard that it has all")
        assert b.engine.store.heard_of(SERVERS) > 0
        for canister in both:
            canister.close()


def test_what_is_taken_in_reaches_the_peers_at_once(tmp_path: Path, shared: RedisServer) -> None:
    """It goes like a commit, not with the next comparison."""
    with Canister(shared.url, cluster=secrets.token_hex(8)) as old:
        old.put("s", "k", 1)
        record = old.engine.store.load(encode_id("s")).record
        assert record is not None
    with pair(tmp_path, digest_interval="10m") as (a, b):
        a.node.take([(encode_id("s"), record)])
        eventually(lambda: b.get("s", "k", local=True) == 1, 5)


def test_a_cluster_is_moved_to_and_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its masters are read one after the other; a session is written to its own."""
    monkeypatch.setenv("CANISTER_CLUSTER", "")
    monkeypatch.setattr(leases, "LEASE", 0.6)
    with running_cluster(tmp_path / "redis") as servers:
        url = f"redis+cluster://{servers[0].address}"
        there = Move(tmp_path / "data", url, to_servers=True)
        with there.plain(there.source) as old:
            for number in range(300):
                old.put(f"s{number}", "k", number)
        back = copy.copy(there)
        back.source, back.target, back.to_servers = there.target, there.source, False
        for move in (there, back):
            move.take("begin")
            with move.both():
                move.take("switch", "copy", "finish")
            with move.plain(move.target) as new:
                assert [new.get(f"s{number}", "k") for number in range(300)] == list(range(300))


# What is told.


def test_no_password_is_told(shared: RedisServer, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CANISTER_CLUSTER", secrets.token_hex(8))
    url = f"redis://default:se/cr@et@{shared.address}"
    assert "se/cr" not in Config(migrate_to=url).summary()
    assert f"migrate_to=redis://{shared.address}" in Config(migrate_to=url).summary()
    data = made(tmp_path / "data")
    url = f"redis://default@{shared.address}"
    run("migrate", data, url, "begin")
    with pytest.raises(MigrationError) as refusal:
        Canister(shared.url, agent=False)
    assert "default" not in str(refusal.value)


def test_wrong_usage(shared: RedisServer, tmp_path: Path) -> None:
    data = made(tmp_path / "data")
    for words in ((data, data), (shared.url, shared.url), (data, shared.url, "jump")):
        assert "usage: canister migrate" in run("migrate", *words, code=2).err
    assert "is not a data directory" in refused("migrate", tmp_path / "nowhere", shared.url, "begin")


def test_the_page_shows_what_the_command_prints(
    tmp_path: Path, shared: RedisServer, monkeypatch: pytest.MonkeyPatch
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
        words = [shared.url if word.startswith("redis:") else word for word in shlex.split(command)]
        if len(words) == 3:  # it asks where the move is
            await_idle(words)
        assert masked(run(*words).out) == masked(shown), command
        if words[-1] == "begin":
            canister = Canister("data", agent=False, migrate_to=shared.url)
            canister.put("some-id", "cart", ["tea"])
    assert canister is not None
    canister.close()


def await_idle(words: list[str]) -> None:
    """Wait until the leases of all processes are over."""
    eventually(lambda: run(*words, "--json").json["processes"] == {}, message="the leases are over")
