"""The default instance: ``canister.start(...)`` once, then ``canister.put(...)`` anywhere."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from canister.canister import Canister
from canister.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

_current: Canister | None = None


def start(path_or_url: str | Path, **settings: Any) -> Canister:
    """Open the default instance; takes what `Canister` takes.

    Raises:
        ConfigError: it is open already.
    """
    global _current
    if _current is not None:
        raise ConfigError("the default instance is open already; call canister.stop() first")
    _current = Canister(path_or_url, **settings)
    return _current


def stop() -> None:
    """Close the default instance; does nothing if there is none."""
    global _current
    instance, _current = _current, None
    if instance is not None:
        instance.close()


def _delegate(method: Callable[Concatenate[Canister, P], R]) -> Callable[P, R]:
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if _current is None:
            raise ConfigError("no default instance is open; call canister.start(path) first")
        return method(_current, *args, **kwargs)

    call.__name__ = method.__name__
    call.__doc__ = method.__doc__
    signature = inspect.signature(method)
    _, *parameters = signature.parameters.values()
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


put = _delegate(Canister.put)
update = _delegate(Canister.update)
remove = _delegate(Canister.remove)
get = _delegate(Canister.get)
peek = _delegate(Canister.peek)
get_data = _delegate(Canister.get_data)
session_info = _delegate(Canister.session_info)
set_expiry = _delegate(Canister.set_expiry)
version = _delegate(Canister.version)
clear = _delegate(Canister.clear)
destroy = _delegate(Canister.destroy)
forget = _delegate(Canister.forget)
touch = _delegate(Canister.touch)
last_access_time = _delegate(Canister.last_access_time)
last_update_time = _delegate(Canister.last_update_time)
deleted_time = _delegate(Canister.deleted_time)
record_status = _delegate(Canister.record_status)
all_sessions = _delegate(Canister.all_sessions)
num_local_sessions = _delegate(Canister.num_local_sessions)
clear_untouched_sessions = _delegate(Canister.clear_untouched_sessions)
delete_deleted_sessions = _delegate(Canister.delete_deleted_sessions)
members = _delegate(Canister.members)
resync = _delegate(Canister.resync)
is_resyncing = _delegate(Canister.is_resyncing)
num_queued = _delegate(Canister.num_queued)
