"""``canister members`` and ``canister remove-member``: who belongs to the cluster."""

from argparse import ArgumentParser, Namespace
from typing import Any

from canister.agent.control import MemberState
from canister.cli.command import Command, NotFoundError, declare_json
from canister.cli.opening import open_existing
from canister.cli.output import print_json, print_table

MEMBER_HEADS = ("ADDRESS", "STATE", "LAG", "CLOCK OFFSET")


def member_row(member: MemberState) -> tuple[str, str, str, str]:
    """Return a member as a row under `MEMBER_HEADS`."""
    return member.address, member.state, _seconds(member.lag), _seconds(member.clock_offset)


def _seconds(duration: float | None) -> str:
    return "-" if duration is None else f"{duration:z.3f} s"


def member_facts(member: MemberState) -> dict[str, Any]:
    """Return a member as JSON shows it; durations in seconds."""
    return {
        "address": member.address,
        "state": member.state,
        "node": member.node,
        "lag": member.lag,
        "clock_offset": member.clock_offset,
        "keys_fit": member.keys_fit,
    }


def _run_members(options: Namespace) -> None:
    with open_existing(options) as canister:
        members = canister.members()
    if options.json:
        print_json([member_facts(member) for member in members])
    else:
        print_table(MEMBER_HEADS, map(member_row, members))


def _declare_remove(parser: ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="host:port, as `canister members` prints it")
    declare_json(parser)


def _run_remove(options: Namespace) -> None:
    with open_existing(options) as canister:
        known = {member.address for member in canister.members() if member.state != "removed"}
        if options.address not in known:
            raise NotFoundError(f"{options.address} is not a member; see `canister members`")
        canister.node.remove_member(options.address)
    if options.json:
        print_json({"removed": options.address})
    else:
        print(f"removed {options.address}; it may return with empty data only")


COMMANDS = (
    Command("members", "list the members of the cluster", declare_json, _run_members),
    Command("remove-member", "take a member out of the cluster for good", _declare_remove, _run_remove),
)
