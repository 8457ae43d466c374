"""``canister migrate``: moving all sessions between a data directory and Redis while they are in use."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canister.canister import Canister
from canister.cli.command import Command, UsageError, declare_json
from canister.cli.opening import open_existing
from canister.cli.output import count, print_json, print_pairs
from canister.config import Config, load_config
from canister.migration.copying import Verified
from canister.opening import check_clocks, is_url, open_side, settings_of_servers
from canister.store.datadir import DataDir

if TYPE_CHECKING:  # needs the package redis
    from canister.migration.moving import Move

_STEPS = ("begin", "switch", "copy", "finish", "cancel")
_PATIENCE = timedelta(seconds=10)
"""How long the servers may take; a page of sessions is more than a request."""
_WIDTH = 30
_AT = {"none": "not begun"}
"""What a process is called that goes by a step whose name says little."""


class _Bar:
    """Shows how far something is: a bar on a terminal, else a line for each tenth; nothing with --json."""

    def __init__(self, what: str, *, silent: bool) -> None:
        self._what = what
        self._silent = silent
        self._is_terminal = sys.stderr.isatty()
        self._tenths = 0

    def show(self, share: float, more: str = "") -> None:
        """Show a share from 0 to 1."""
        if self._silent:
            return
        text = f"{share:4.0%}{more}"
        if self._is_terminal:
            bar = ("#" * round(share * _WIDTH)).ljust(_WIDTH, "-")
            print(f"\r{self._what} [{bar}] {text}", end="", file=sys.stderr, flush=True)
        elif int(share * 10) > self._tenths:
            self._tenths = int(share * 10)
            print(f"{self._what} {text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar's line."""
        if self._is_terminal and not self._silent:
            print(file=sys.stderr)


def _declare(parser: ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="FROM",
        type=_place,
        help="a data directory, a URL of Redis, or env:NAME, the environment variable that holds either",
    )
    parser.add_argument("target", metavar="TO", type=_place, help="the other of the two")
    parser.add_argument(
        "step", metavar="STEP", nargs="?", choices=_STEPS, help=f"one of {', '.join(_STEPS)}; without: status"
    )
    declare_json(parser)


def _place(text: str) -> str:
    """Return where sessions are; in the environment a password is not in the list of processes."""
    name = text.removeprefix("env:")
    if name == text:
        return text
    if not os.environ.get(name):
        raise ArgumentTypeError(f"the environment variable {name} is not set")
    return os.environ[name]


def _run(options: Namespace) -> None:
    with _opened(options) as move:
        if options.step is not None:
            _ACTIONS[options.step](move, options)
        else:
            _print_state(move, options)


@contextmanager
def _opened(options: Namespace) -> Generator["Move"]:
    to_servers = is_url(options.target)
    if is_url(options.source) == to_servers:
        raise UsageError("FROM and TO are a data directory and a URL of Redis, either way")
    directory, url = options.source, options.target
    if not to_servers:
        directory, url = url, directory
    if not to_servers and options.step == "begin" and not DataDir(Path(directory)).database.exists():
        # Servers that cannot be used are told of before a directory is made for their sessions.
        open_side(url, _patient(load_config({})), None, may_run_agent=False).close()
        opened = Canister(directory, agent=False, serves=False)
    else:
        opened = open_existing(Namespace(datadir=directory))
    with opened as canister:
        config = _patient(canister.config)
        with closing(open_side(url, config, None, may_run_agent=False)) as servers:
            from canister.migration.board import Board
            from canister.migration.moving import Move

            check_clocks(canister.node, servers)
            places = (directory, str(servers.store)) if to_servers else (str(servers.store), directory)
            with closing(Board(url, config.cluster, config.remote_timeout.total_seconds())) as board:
                yield Move(canister.node, servers, board, places, to_servers=to_servers)


def _patient(config: Config) -> Config:
    """Return the settings of both engines, with time enough for a page of sessions."""
    return replace(settings_of_servers(config), remote_timeout=max(config.remote_timeout, _PATIENCE))


def _begin(move: "Move", options: Namespace) -> None:
    move.begin()
    _tell(
        options,
        "begun: now deploy the setting migrate_to=TO to every process that serves FROM; when none runs "
        "without it, take the step `switch`",
    )


def _switch(move: "Move", options: Namespace) -> None:
    move.switch()
    _tell(options, "switched: all processes write to TO now, and read both; the next step is `copy`")


def _copy(move: "Move", options: Namespace) -> None:
    bar = _Bar("copying", silent=options.json)
    carried = 0
    for progress in move.copy():
        carried = progress.carried
        bar.show(progress.share, f", {count(carried, 'session')}")
    bar.show(1, f", {count(carried, 'session')}")
    bar.end()
    _tell(
        options,
        f"copied: {count(carried, 'session')} carried over, the others are there already; the next step is "
        "`finish`",
        carried=carried,
    )


def _finish(move: "Move", options: Namespace) -> None:
    bar = _Bar("comparing", silent=options.json)
    facts: dict[str, Any] = {}
    for found in move.finish():
        if isinstance(found, Verified):
            facts = {
                "sessions": found.sessions,
                "digest_of_both": found.digest_of_both,
                "digest_of_target": found.digest_of_new,
            }
        else:
            bar.show(found)
    bar.end()
    if facts and not options.json:
        print(f"compared {count(facts['sessions'], 'live session')} of FROM")
        print_pairs(
            [
                ("digest, read from both", facts["digest_of_both"]),
                ("digest, read from TO", facts["digest_of_target"]),
            ]
        )
    _tell(
        options,
        "finished: all sessions are in TO; now deploy TO alone, without migrate_to, and then stop FROM",
        **facts,
    )


def _cancel(move: "Move", options: Namespace) -> None:
    move.cancel()
    _tell(options, "cancelled: the sessions stay in FROM")


def _tell(options: Namespace, text: str, **facts: Any) -> None:
    if options.json:
        print_json({"done": options.step, **facts})
    else:
        print(text)


def _print_state(move: "Move", options: Namespace) -> None:
    state = move.state()
    steps = Counter(holder.step.name.lower() for holder in state.holders if holder.until > state.now)
    step = state.step.name.lower()
    if options.json:
        print_json({"step": step, "processes": dict(steps), "copied": state.copied})
        return
    processes = ", ".join(f"{number} {_AT.get(name, name)}" for name, number in sorted(steps.items()))
    print_pairs(
        [
            ("step", step),
            ("next", move.next_step() or "-"),
            ("processes", processes or "none active"),
            ("copied", count(state.copied, "session")),
        ]
    )


_ACTIONS: dict[str, Callable[["Move", Namespace], None]] = {
    "begin": _begin,
    "switch": _switch,
    "copy": _copy,
    "finish": _finish,
    "cancel": _cancel,
}

COMMANDS = (
    Command("migrate", "move all sessions between a directory and Redis", _declare, _run, datadir=False),
)
