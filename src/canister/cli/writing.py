"""``canister put``, ``remove``, ``clear`` and ``destroy``: changing sessions."""

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from canister.cli.command import Command, UsageError, declare_session, session_id
from canister.cli.opening import open_existing
from canister.cli.output import print_json, show_id
from canister.cli.reading import live_key, live_session


def _declare_key(parser: ArgumentParser) -> None:
    declare_session(parser)
    parser.add_argument("key", metavar="KEY", help="a key of type str")


def _declare_put(parser: ArgumentParser) -> None:
    _declare_key(parser)
    parser.add_argument("value", metavar="VALUE")
    parser.add_argument(
        "--as",
        dest="format",
        choices=("text", "json"),
        default="text",
        help="what VALUE is (default: text, stored as a str)",
    )


def _run_put(options: Namespace) -> None:
    session = session_id(options.id, options)
    value = _from_json(options.value) if options.format == "json" else options.value
    with open_existing(options, serves=True) as canister:
        previous = canister.put(session, options.key, value)
    if options.json:
        print_json({"previous": previous})
    else:
        print(f"stored {options.key!r} in {show_id(session)}")


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"VALUE is not JSON: {error}") from error


def _run_remove(options: Namespace) -> None:
    session = session_id(options.id, options)
    with open_existing(options, serves=True) as canister:
        live_key(canister, session, options.key)
        previous = canister.remove(session, options.key)
    if options.json:
        print_json({"previous": previous})
    else:
        print(f"removed {options.key!r} from {show_id(session)}")


def _run_clear(options: Namespace) -> None:
    session = session_id(options.id, options)
    with open_existing(options, serves=True) as canister:
        live_session(canister, session)  # clearing one that is not there would make it
        canister.clear(session)
    _confirm("cleared", options)


def _run_destroy(options: Namespace) -> None:
    session = session_id(options.id, options)
    with open_existing(options, serves=True) as canister:
        canister.destroy(session)
    _confirm("destroyed", options)


def _confirm(done: str, options: Namespace) -> None:
    session = session_id(options.id, options)
    if options.json:
        print_json({done: session})
    else:
        print(f"{done} {show_id(session)}")


COMMANDS = (
    Command("put", "store a value, creating the session if there is none", _declare_put, _run_put),
    Command("remove", "remove one key of a session", _declare_key, _run_remove),
    Command("clear", "empty a session; it lives on", declare_session, _run_clear),
    Command("destroy", "end a session for good, on all nodes", declare_session, _run_destroy),
)
