"""``canister status``: what a node and its agent know."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime
from typing import Any

from canister.agent.control import AgentStatus
from canister.cli.command import Command, declare_json
from canister.cli.members import MEMBER_HEADS, member_facts, member_row
from canister.cli.opening import open_existing
from canister.cli.output import count, print_json, print_pairs, print_table, utc
from canister.clock import SECOND, SystemClock, instant, to_datetime
from canister.errors import AgentError

_STEP = 10 * SECOND


def _instant(text: str) -> int:
    try:
        at = instant(datetime.fromisoformat(text))
        to_datetime(at)  # as UTC it may be before the first year or after the last
    except (ValueError, OverflowError) as error:
        raise ArgumentTypeError(
            f"{text!r} is not an ISO time with a zone, such as 2026-11-24T08:30:00Z"
        ) from error
    return at


def _declare(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--at",
        type=_instant,
        metavar="ISO-TIME",
        help="take the digest as of this instant (default: the last full ten seconds)",
    )
    declare_json(parser)


def _run(options: Namespace) -> None:
    now = SystemClock().now()
    at: int = now - now % _STEP if options.at is None else options.at
    with open_existing(options) as canister:
        local = {
            "data_directory": options.datadir,
            "cluster": canister.config.cluster,
            "sessions": canister.num_local_sessions(),
        }
        try:
            status = canister.node.status(at)
        except AgentError:
            _print(local, None, at, as_json=options.json)
            raise
    _print(local, status, at, as_json=options.json)


def _print(local: dict[str, Any], status: AgentStatus | None, at: int, *, as_json: bool) -> None:
    if as_json:
        print_json({**local, **_facts(status, at)})
        return
    pairs = [
        ("data directory", str(local["data_directory"])),
        ("cluster", str(local["cluster"])),
        ("sessions", f"{local['sessions']} live"),
    ]
    if status is None:
        print_pairs([*pairs, ("agent", "none")])
        return
    print_pairs(
        [
            *pairs,
            ("agent", f"pid {status.pid}"),
            ("digest", f"{status.digest} as of {utc(to_datetime(at))}"),
            ("open questions", str(status.queued)),
            ("refused", _refused(status)),
            ("secret keys", _keys(status)),
            ("isolated", "yes; `canister heal` lets the node back" if status.isolated else "no"),
        ]
    )
    print()
    print_table(MEMBER_HEADS, map(member_row, status.members))


def _refused(status: AgentStatus) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(status.refused.items())) or "none"


def _keys(status: AgentStatus) -> str:
    known = [member for member in status.members if member.keys_fit is not None]
    misfits = [member.address for member in known if not member.keys_fit]
    if misfits:
        return f"DO NOT FIT those of {', '.join(misfits)}; give all nodes the same"
    return f"fit those of {count(len(known), 'other node')}" if known else "not compared with any other node"


def _facts(status: AgentStatus | None, at: int) -> dict[str, Any]:
    if status is None:
        return {"agent_pid": None}
    return {
        "agent_pid": status.pid,
        "digest": status.digest,
        "as_of": utc(to_datetime(at)),
        "open_questions": status.queued,
        "refused": status.refused,
        "isolated": status.isolated,
        "members": [member_facts(member) for member in status.members],
    }


COMMANDS = (Command("status", "show members, sessions and the digest of a node", _declare, _run),)
