"""What moves, how it is copied, and what shows that nothing is missing."""

import threading
from typing import Any

import pytest
from tests.integration.cluster import eventually
from tests.integration.moves import KEY, Move
from tests.integration.test_cli_kit import run

from canister import StoreUnavailableError
from canister.clock import SECOND
from canister.codec import encode_id
from canister.migration import copying
from canister.migration.engine import Side
from canister.record import Record
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock
from canister.testing.contract import told

pytestmark = pytest.mark.integration


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
                found.add(copying.content_digest(encode_id("s"), record, canister.engine.clock.now()))
                found.add(copying.content_digest(encode_id("t"), record, canister.engine.clock.now()))
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
    assert told(mesh.store, encode_id("t")) == (None, True)
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
