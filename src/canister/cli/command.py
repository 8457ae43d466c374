"""What a command is, and what its run may raise to end with another code than 0 or 3."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import NamedTuple

from canister.canister import SessionId


class Command(NamedTuple):
    """A command: its name, what it does in one line, its arguments beside the data directory.

    The name may be two words; *datadir* tells whether it is about a data directory.
    """

    name: str
    summary: str
    declare: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    datadir: bool = True


class NotFoundError(Exception):
    """What the command was to act on is not there: exit code 1."""


class UsageError(Exception):
    """The arguments do not fit together: exit code 2."""


def declare_json(parser: ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def declare_bytes_id(parser: ArgumentParser) -> None:
    """Declare ``--bytes-id``."""
    parser.add_argument(
        "--bytes-id", action="store_true", help="the id is of type bytes and given as hex digits"
    )


def declare_session(parser: ArgumentParser) -> None:
    """Declare the session id, ``--bytes-id`` and ``--json``."""
    parser.add_argument("id", metavar="ID", help="the session id")
    declare_bytes_id(parser)
    declare_json(parser)


def session_id(text: str, options: Namespace) -> SessionId:
    """Return a session id as given on the command line.

    Raises:
        UsageError: ``--bytes-id`` was given and *text* is not hex.
    """
    if not options.bytes_id:
        return text
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"with --bytes-id the id is given as hex digits, not {text!r}") from error
