"""``canister cut``, ``heal`` and ``resync``: the links of a node to its peers."""

from argparse import ArgumentParser, Namespace

from canister.canister import Canister
from canister.cli.command import Command, declare_bytes_id, declare_json, session_id
from canister.cli.opening import open_existing
from canister.cli.output import count, print_json
from canister.errors import AgentError


def _run_cut(options: Namespace) -> None:
    _isolate(options, on=True, done="cut off from all peers until `canister heal` or a new agent")


def _run_heal(options: Namespace) -> None:
    _isolate(options, on=False, done="no longer cut off")


def _isolate(options: Namespace, *, on: bool, done: str) -> None:
    with open_existing(options) as canister:
        canister.node.isolate(on=on)
    if options.json:
        print_json({"isolated": on})
    else:
        print(done)


def _declare_resync(parser: ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="ID", nargs="*", help="fetch just these sessions; compare everything if left out"
    )
    declare_bytes_id(parser)
    declare_json(parser)


def _run_resync(options: Namespace) -> None:
    ids = [session_id(text, options) for text in options.ids]
    with open_existing(options) as canister:
        peers = _linked(canister)
        canister.resync(ids or None)
    if options.json:
        print_json({"peers": peers, "fetched": ids})
    elif ids:
        print(f"asked {count(peers, 'peer')} for {count(len(ids), 'session')}")
    else:
        print(f"comparing with {count(peers, 'peer')}; `canister status` shows the open questions")


def _linked(canister: Canister) -> int:
    """Return how many peers can be asked.

    Raises:
        AgentError: there are members, and none of them is linked.
    """
    others = [member for member in canister.members() if member.state not in ("self", "removed")]
    linked = sum(member.state != "down" for member in others)
    if others and not linked:
        raise AgentError("no member can be reached, so none was asked; see `canister status`")
    return linked


COMMANDS = (
    Command("cut", "cut a node off from all peers, to try out a split", declare_json, _run_cut),
    Command("heal", "undo `canister cut`", declare_json, _run_heal),
    Command("resync", "compare with all peers now, or fetch some sessions", _declare_resync, _run_resync),
)
