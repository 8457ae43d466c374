"""The tests of the library's verbs and of the session manager, run while the sessions move, either way.

Every write is done by a process of the other step than the one before: the first to the old engine, the next
to the new one, and so on.
"""

import itertools
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.integration import test_redis_same
from tests.integration.test_redis_same import cut_off, no_data_directory, server
from tests.redis_servers import RedisServer
from tests.unit import test_api, test_api_expiry
from tests.unit.sessions import test_commits, test_ends, test_manager
from tests.unit.sessions.kit import KEY

from canister import Canister
from canister.migration.board import Board
from canister.migration.engine import MigratingEngine
from canister.migration.marks import Mark, Step
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock

pytestmark = pytest.mark.integration

__all__ = ["cut_off", "no_data_directory", "server"]

EXCEPTIONS = test_redis_same.EXCEPTIONS | {
    # The clock stands still there: what is written to one engine is a microsecond after what the other holds.
    "test_session_info",
    "test_last_access_and_update_times",
    "test_deleted_time",
    "test_record_status_of_all_five_states",
    "test_a_put_on_an_expired_session_starts_afresh",
}


def adopt(module: ModuleType) -> None:
    """Take over the tests of a module, to be run with the fixtures of this one."""
    origin = module.__name__.rpartition(".")[2]
    for name, member in vars(module).items():
        if name.startswith("test_") and callable(member) and name not in EXCEPTIONS:
            globals()[f"{origin}_{name.removeprefix('test_')}"] = member


for _module in (test_api, test_api_expiry, test_commits, test_ends, test_manager):
    adopt(_module)


@pytest.fixture(params=["to servers", "to a directory"])
def to_servers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "to servers")


@pytest.fixture
def node(
    request: pytest.FixtureRequest,
    server: RedisServer,
    clock: ManualClock,
    tmp_path: Path,
    to_servers: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Canister]:
    """Yield sessions of the test's own, with the settings that the test's module has for them."""
    absolute = getattr(sys.modules[request.function.__module__], "ABSOLUTE", "30d")
    settings = {"absolute_lifetime": absolute, "cluster": secrets.token_hex(8)}
    board = Board(server.url, settings["cluster"], 2)
    board.put_up(Mark("a", "b", to_servers, Step.BEGUN))
    board.close()
    places = (tmp_path / "data", server.url)
    source, target = places if to_servers else reversed(places)
    take_turns(monkeypatch)
    with Canister(source, migrate_to=target, agent=False, clock=clock, **settings) as node:
        yield node


def take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each commit be that of a process of the other step than the one before."""
    turns = itertools.cycle([Step.BEGUN, Step.SWITCHED])
    commit = MigratingEngine.commit

    def turning(self: MigratingEngine, *arguments: Any, **more: Any) -> Any:
        step = next(turns)
        with monkeypatch.context() as patch:
            patch.setattr(self._leases, "step", lambda: step)
            return commit(self, *arguments, **more)

    monkeypatch.setattr(MigratingEngine, "commit", turning)


@pytest.fixture
def canister(node: Canister) -> Canister:
    return node


@pytest.fixture
def manager(canister: Canister) -> SessionManager:
    return SessionManager(canister, secret_keys=KEY)
