"""The default instance: the functions of the module do what the methods of a node do."""

import inspect
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import canister
from canister import Canister, ConfigError, Status, default
from canister.testing.clock import ManualClock

VERBS = sorted(
    name
    for name, member in vars(Canister).items()
    if inspect.isfunction(member) and not name.startswith("_") and name != "close"
)


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    """Leave no default instance behind."""
    yield
    canister.stop()


@pytest.mark.parametrize("name", VERBS)
def test_every_method_is_a_function_of_the_module(name: str) -> None:
    """Each has the name and the documentation of its method, and none is missing."""
    function = getattr(canister, name)
    assert function is getattr(default, name)
    assert function.__name__ == name
    assert function.__doc__ == getattr(Canister, name).__doc__
    _, *parameters = inspect.signature(getattr(Canister, name)).parameters.values()
    assert list(inspect.signature(function).parameters.values()) == parameters


@pytest.mark.parametrize("name", VERBS)
def test_without_start_every_function_says_what_to_do(name: str) -> None:
    """Nothing is opened by chance in the working directory."""
    with pytest.raises(ConfigError, match=r"call canister\.start\(path\) first"):
        getattr(canister, name)()


def test_the_functions_work_on_the_started_instance(tmp_path: Path) -> None:
    """What is written through the module is what the instance holds."""
    clock = ManualClock()
    node = canister.start(tmp_path, clock=clock)
    assert canister.put("s", "k", 1) is None
    canister.update("s", {"a": 2, "b": 3})
    assert canister.remove("s", "b") == 3
    assert node.get_data("s") == canister.get_data("s") == {"k": 1, "a": 2}
    assert canister.get("s", "k") == canister.peek("s", "k") == 1
    assert canister.get("s", "none", default=5, local=True) == 5
    assert canister.set_expiry("s", idle=timedelta(hours=1))
    assert canister.touch("s")
    assert canister.session_info("s") == node.session_info("s")
    assert canister.version("s") == node.version("s")
    assert canister.last_access_time("s") == node.last_access_time("s")
    assert canister.last_update_time("s") == node.last_update_time("s")
    assert list(canister.all_sessions()) == ["s"]
    assert canister.num_local_sessions() == 1
    assert canister.members() == node.members()
    canister.resync()
    assert (canister.num_queued(), canister.is_resyncing()) == (0, False)
    canister.clear("s")
    assert canister.record_status("s").status is Status.CLEARED
    canister.destroy("s")
    assert canister.deleted_time("s") == node.deleted_time("s") is not None
    canister.put("old", "k", 1)
    clock.advance(timedelta(days=31))
    assert (canister.clear_untouched_sessions(), canister.delete_deleted_sessions()) == (1, 1)
    canister.put("t", "k", 1)
    assert canister.forget("t")


@pytest.mark.parametrize("wrong", [{"session_timeout": "soon"}, {"timeout": 5}])
def test_a_start_that_fails_leaves_nothing_open(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """After a wrong setting was put right, start works."""
    with pytest.raises(ConfigError):
        canister.start(tmp_path, **wrong)
    with canister.start(tmp_path, session_timeout="5m") as node:
        assert node.config.session_timeout == timedelta(minutes=5)


def test_there_is_one_default_instance(tmp_path: Path) -> None:
    """A second start is refused, and leaves the first one as it was; after stop another may follow."""
    canister.start(tmp_path / "one")
    canister.put("s", "k", 1)
    with pytest.raises(ConfigError, match="open already"):
        canister.start(tmp_path / "two")
    assert not (tmp_path / "two").exists()
    assert canister.get("s", "k") == 1
    canister.stop()
    canister.stop()
    reads: list[Callable[[], object]] = [canister.members, lambda: canister.get("s", "k")]
    for read in reads:
        with pytest.raises(ConfigError):
            read()
    canister.start(tmp_path / "two")
    assert canister.get("s", "k") is None
