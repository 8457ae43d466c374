"""Sessions that are held back, in numbers: nobody waits for them."""

from pathlib import Path

import pytest

from canister.config import Config
from canister.store.sqlite import _HELD_PAGE, SqliteStore
from canister.testing.clock import ManualClock
from canister.testing.contract import POLICY, made_elsewhere

MANY = 2 * _HELD_PAGE + 10


def test_some_are_looked_at_in_turn_and_what_is_not_due_takes_no_turn_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(1_800_000_000_000_000)
    store = SqliteStore(tmp_path, Config(), clock)
    due = clock.now() + POLICY.drift + 1000
    store.merge([(b"%06d" % n, made_elsewhere(due + n, k=b"1")) for n in range(MANY)], {})
    transact, commits = store._transact, list[object]()
    monkeypatch.setattr(store, "_transact", lambda act: (commits.append(act), transact(act))[1])
    assert [store.release() for _ in range(3)] == [0, 0, 0]
    assert commits == []
    clock.advance(1000 + MANY)
    assert [store.release() for _ in range(4)] == [_HELD_PAGE, _HELD_PAGE, 10, 0]
    assert len(commits) == 3
    assert len(list(store.scan())) == MANY
    store.close()
