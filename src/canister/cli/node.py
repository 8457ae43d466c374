"""``canister node``: the agent of a data directory in a process of its own."""

import logging
import os
import select
import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from canister.canister import Canister
from canister.cli.command import Command
from canister.clock import SystemClock
from canister.config import Config
from canister.errors import AgentError

logger = logging.getLogger("canister.cli")

_POLL = 0.5
"""Seconds between two looks at who the agent is."""
_NOT_OPTIONS = ("seeds", "migrate_to")
"""Fields that are no options: one has a form of its own, the other is for processes that serve sessions."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Wait = Callable[[float | None], bool]
"""Waits some seconds, for ever with None; returns whether the process is to stop."""


def _declare(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="what is logged to standard error (default: info)",
    )
    settings = parser.add_argument_group(
        "settings", "each as in `canister.config.Config`; durations as text such as 20m"
    )
    settings.add_argument(
        "--seed",
        dest="seeds",
        metavar="HOST:PORT",
        action="append",
        help="a member to meet first; may be repeated",
    )
    for field in fields(Config):
        option = "--" + field.name.replace("_", "-")
        if field.type is bool:
            settings.add_argument(option, action="store_true", default=None)
        elif field.name not in _NOT_OPTIONS:
            metavar = "HOST:PORT" if field.name in ("listen", "advertise") else "VALUE"
            settings.add_argument(option, metavar=metavar)


def _run(options: Namespace) -> None:
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    given: dict[str, Any] = {field.name: getattr(options, field.name, None) for field in fields(Config)}
    settings = {name: value for name, value in given.items() if value is not None}
    with _stop_signals() as wait, Canister(options.datadir, serves=False, **settings) as canister:
        agent = _agent_of(canister)
        what = _what(canister, agent)
        print(
            f"canister node {options.datadir}: pid {os.getpid()}, {what}; {canister.config.summary()}",
            flush=True,
        )
        while agent != os.getpid():
            if wait(_POLL):
                return
            before, agent = agent, _agent_of(canister)
            if agent != before:
                logger.info("%s", _what(canister, agent))
        wait(None)


def _agent_of(canister: Canister) -> int | None:
    """Return the process id of the node's agent, None if it does not answer."""
    try:
        return canister.node.status(SystemClock().now()).pid
    except AgentError:
        return None


def _what(canister: Canister, agent: int | None) -> str:
    if agent is None:
        return "the node's agent does not answer, this process takes over when it ends"
    if agent != os.getpid():
        return f"process {agent} is the node's agent already, this process takes over when it ends"
    listen = canister.config.listen
    return f"listens on {listen}" if listen else "listens nowhere (this machine alone; see --listen)"


@contextmanager
def _stop_signals() -> Generator[Wait]:
    """Turn SIGINT and SIGTERM into the answer of a wait; after the first one they are ignored at the end."""
    reading, writing = os.pipe()

    def wait(seconds: float | None) -> bool:
        return bool(select.select([reading], [], [], seconds)[0])

    # A handler may run anywhere, so it must take no lock: it writes into a pipe.
    def stop(*_: object) -> None:
        os.write(writing, b".")

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield wait
    finally:
        # A process that ends well on one signal is not to be killed by the next one on its last steps.
        ends = wait(0)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)
        os.close(reading)
        os.close(writing)


COMMANDS = (Command("node", "run the agent of a data directory until SIGINT or SIGTERM", _declare, _run),)
