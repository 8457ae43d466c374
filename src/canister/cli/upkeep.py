"""``canister sweep`` and ``canister forget``: dropping what this node holds."""

from argparse import Namespace

from canister.cli.command import Command, NotFoundError, declare_json, declare_session, session_id
from canister.cli.opening import open_existing
from canister.cli.output import count, print_json, show_id


def _run_sweep(options: Namespace) -> None:
    with open_existing(options) as canister:
        expired = canister.clear_untouched_sessions()
        destroyed = canister.delete_deleted_sessions()
    if options.json:
        print_json({"expired": expired, "destroyed": destroyed})
    else:
        print(f"dropped {count(expired, 'expired session')} and {count(destroyed, 'tombstone')}")


def _run_forget(options: Namespace) -> None:
    session = session_id(options.id, options)
    with open_existing(options) as canister:
        if not canister.forget(session):
            raise NotFoundError(f"this node holds nothing of session {show_id(session)}")
    if options.json:
        print_json({"forgotten": session})
    else:
        print(f"forgot {show_id(session)}; the next comparison brings it back if a peer has it")


COMMANDS = (
    Command("sweep", "drop what is past its retention now", declare_json, _run_sweep),
    Command("forget", "drop this node's copy of a session", declare_session, _run_forget),
)
