"""Which engine a path or a URL stands for."""

from pathlib import Path

from canister.clock import Clock, SystemClock
from canister.config import Config
from canister.engine import Engine
from canister.errors import ConfigError
from canister.node import Node


def open_engine(
    path_or_url: str | Path, config: Config, clock: Clock | None, *, may_run_agent: bool
) -> Engine:
    """Open a data directory, or the sessions on servers.

    Args:
        path_or_url: a data directory, or a URL of Redis.
        config: the settings.
        clock: where the time comes from; this machine or the servers by default.
        may_run_agent: whether this process stands as a candidate for running a data directory's agent.

    Raises:
        ConfigError: a setting is wrong, or nothing knows the URL.
        StoreError: the data directory or the servers cannot be used.
    """
    if "://" not in str(path_or_url):
        return Node(Path(path_or_url), config, clock or SystemClock(), may_run_agent=may_run_agent)
    try:
        from canister.server_engine import ServerEngine
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("redis", "hiredis", "greenlet"):
            raise
        raise ConfigError(
            f"sessions on Redis need the package {error.name}: pip install 'canister-sessions[redis]'"
        ) from error
    return ServerEngine(str(path_or_url), config, clock)
