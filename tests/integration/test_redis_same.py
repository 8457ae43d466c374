"""The tests of the library's verbs, of the session manager and of some adapters, run on a Redis server."""

import secrets
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from tests.integration import test_asgi, test_asgi_not_knowing, test_litestar_store, test_pyramid
from tests.redis_servers import RedisServer, running_redis
from tests.unit import test_api, test_api_expiry, test_api_input
from tests.unit.sessions import test_bad_tokens, test_commits, test_ends, test_manager, test_not_knowing
from tests.unit.sessions.kit import KEY

from canister import Canister
from canister.integrations.litestar import CanisterStore
from canister.sessions import SessionManager
from canister.testing.clock import ManualClock

pytestmark = [pytest.mark.integration, pytest.mark.anyio]

EXCEPTIONS = {
    # There is one copy, so none can be dropped or be this process's only one, and nobody is behind.
    "test_forget_drops_the_copy",
    "test_a_single_node_is_its_only_member",
    "test_a_wrong_secret_with_an_issue_stamp_not_heard_is_not_decided",
    # The servers drop what is past its time, by their own clock.
    "test_only_live_sessions_are_counted_and_listed",
    "test_clear_untouched_sessions",
    "test_delete_deleted_sessions",
    "test_a_session_that_was_swept_during_the_request_is_not_created",
    "test_what_has_ended_is_swept",
    # No session is kept in memory.
    "test_a_mac_is_checked_once_as_long_as_the_session_stays_in_memory",
    # A key must be configured.
    "test_a_node_alone_needs_no_key",
    "test_the_example_runs",
}
"""What holds for data directories only. A test that looks into one is skipped as soon as it does."""


def adopt(module: ModuleType) -> None:
    """Take over the tests of a module, to be run with the fixtures of this one."""
    origin = module.__name__.rpartition(".")[2]
    for name, member in vars(module).items():
        if name.startswith("test_") and callable(member) and name not in EXCEPTIONS:
            globals()[f"{origin}_{name.removeprefix('test_')}"] = member


for _module in (test_api, test_api_expiry, test_api_input):
    adopt(_module)
for _module in (test_commits, test_bad_tokens, test_ends, test_not_knowing, test_manager):
    adopt(_module)
for _module in (test_asgi, test_asgi_not_knowing, test_litestar_store, test_pyramid):
    adopt(_module)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def skip(self: Canister) -> None:
        pytest.skip("looks into a data directory")

    monkeypatch.setattr(Canister, "node", property(skip))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def node(request: pytest.FixtureRequest, server: RedisServer, clock: ManualClock) -> Iterator[Canister]:
    """Yield sessions of the test's own, with the settings that the test's module has for them."""
    absolute = getattr(sys.modules[request.function.__module__], "ABSOLUTE", "30d")
    settings = {"absolute_lifetime": absolute, "cluster": secrets.token_hex(8)}
    with Canister(server.url, clock=clock, **settings) as node:
        yield node


@pytest.fixture
def cut_off() -> Canister:
    pytest.skip("cannot be cut off from itself")


@pytest.fixture
def canister(node: Canister) -> Canister:
    return node


@pytest.fixture
def store(canister: Canister) -> CanisterStore:
    return CanisterStore(canister)


@pytest.fixture
def manager(canister: Canister) -> SessionManager:
    return SessionManager(canister, secret_keys=KEY)
