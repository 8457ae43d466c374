"""Which engine a path or a URL stands for."""

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from canister.clock import Clock, SystemClock
from canister.config import Config
from canister.engine import Engine
from canister.errors import ClockError, ConfigError
from canister.migration.engine import MigratingEngine, Side
from canister.migration.leases import Leases
from canister.migration.marks import check_mark
from canister.node import Node

_REDIS = re.compile(r"rediss?(\+\w+)?:", re.IGNORECASE)


def open_engine(
    path_or_url: str | Path, config: Config, clock: Clock | None, *, may_run_agent: bool, serves: bool = True
) -> Engine:
    """Open a data directory, or the sessions on servers; both while they move from one to the other.

    Args:
        path_or_url: a data directory, or a URL of Redis.
        config: the settings.
        clock: where the time comes from; this machine or the servers by default.
        may_run_agent: whether this process stands as a candidate for running a data directory's agent.
        serves: whether this process serves sessions.

    Raises:
        ConfigError: a setting is wrong, or nothing knows the URL.
        MigrationError: the sessions are moving, and not between what would be opened.
        StoreError: the data directory or the servers cannot be used.
    """
    if "" in (path_or_url, config.migrate_to):
        raise ConfigError("the path of the data directory is empty; '.' is the working directory")
    if serves and config.migrate_to is not None:
        return _open_both(path_or_url, config.migrate_to, config, clock, may_run_agent=may_run_agent)
    engine = open_side(path_or_url, config, clock, may_run_agent=may_run_agent)
    if serves:
        try:
            check_mark(engine, on_servers=is_url(path_or_url))
        except BaseException:
            engine.close()
            raise
    return engine


def is_url(path_or_url: str | Path) -> bool:
    """Tell whether this is where servers are, not a data directory."""
    return "://" in str(path_or_url)


def open_side(path_or_url: str | Path, config: Config, clock: Clock | None, *, may_run_agent: bool) -> Side:
    """Open one engine, whatever its sessions are doing; takes and raises what `open_engine` does."""
    if not is_url(path_or_url):
        if _REDIS.match(str(path_or_url)):  # it may hold a password, so it is not shown
            raise ConfigError(
                "this begins as a URL of Redis and is none: '//' is missing behind the scheme; a data "
                "directory of such a name is './redis:...'"
            )
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


def settings_of_servers(config: Config) -> Config:
    """Return the settings of two engines without those that are for the data directory only."""
    return replace(
        config,
        listen=None,
        advertise=None,
        seeds=(),
        tls_ca=None,
        tls_cert=None,
        tls_key=None,
        durability="normal",
    )


def check_clocks(mesh: Side, servers: Side) -> None:
    """Refuse to move sessions between engines whose clocks do not agree.

    Raises:
        ClockError: what one writes could be held back, or lose to what is older, in the other.
    """
    offset = abs(mesh.clock.now() - servers.clock.now())
    if offset > servers.policy.drift:
        raise ClockError(
            f"the clocks of this machine and of {servers.store} are {offset / 1e6:.0f} s apart, more than "
            "max_clock_drift; set them right before sessions move"
        )


def _open_both(
    source: str | Path, target: str | Path, config: Config, clock: Clock | None, *, may_run_agent: bool
) -> Engine:
    to_servers = is_url(target)
    if is_url(source) == to_servers:
        raise ConfigError("sessions move between a data directory and a URL of Redis, either way")
    directory, url = (source, target) if to_servers else (target, source)
    with ExitStack() as opened:
        servers = open_side(url, settings_of_servers(config), clock, may_run_agent=False)
        opened.callback(servers.close)
        from canister.migration.board import Board  # needs the package redis, as the servers did

        mesh = open_side(directory, config, clock, may_run_agent=may_run_agent)
        opened.callback(mesh.close)
        check_clocks(mesh, servers)
        board = Board(str(url), config.cluster, config.remote_timeout.total_seconds())
        opened.callback(board.close)
        leases = Leases(board, mesh.store.node, to_servers=to_servers)
        leases.step()  # registers, before anything is read or written
        opened.pop_all()
    old, new = (mesh, servers) if to_servers else (servers, mesh)
    return MigratingEngine(old, new, config, leases, to_servers=to_servers)
