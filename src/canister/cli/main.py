"""The ``canister`` command: finds the command, runs it, and turns errors into exit codes."""

import io
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from canister import __version__
from canister.cli import (
    certs,
    check,
    heals,
    links,
    members,
    migrate,
    node,
    plan,
    reading,
    status,
    upkeep,
    writing,
)
from canister.cli.command import Command, NotFoundError, UsageError
from canister.errors import CanisterError, StoreError

OK, NOT_FOUND, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130

_DESCRIPTION = "Runs and looks after the nodes of Canister, a distributed session manager."

COMMANDS: dict[str, Command] = {
    command.name: command
    for group in (node, status, reading, writing, members, links, heals, upkeep, migrate, certs, check, plan)
    for command in group.COMMANDS
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: what stands after the program's name; ``sys.argv`` by default.

    Raises:
        SystemExit: after ``--help`` and ``--version``, and on wrong usage (code 2).
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    length = next((n for n in (2, 1) if " ".join(words[:n]) in COMMANDS), 0)
    command = COMMANDS.get(" ".join(words[:length]))
    if command is None:
        is_group = words[:1] == ["certs"]
        _top_parser("certs " if is_group else "").parse_args(words[is_group:])
        raise AssertionError("argparse accepts no command that is not in COMMANDS")
    parser = _parser(command)
    options = parser.parse_intermixed_args(words[length:])  # so that options may stand anywhere
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command.run(options)
        if sys.stdout is not None:  # closed by whoever began the process
            sys.stdout.flush()
    except UsageError as error:
        parser.error(str(error))
    except NotFoundError as error:
        return _fail(error, NOT_FOUND)
    except BrokenPipeError:
        _discard_output()
    except PermissionError as error:
        told = f"{error.filename}: {error.strerror}; check its owner and permissions"
        return _fail(StoreError(told), FAILED)
    except (CanisterError, OSError) as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK


def _top_parser(group: str = "") -> ArgumentParser:
    """Return what explains the commands, or those whose first word is *group*."""
    shown = {name.removeprefix(group): c for name, c in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, shown))
    listing = "\n".join(f"  {name.ljust(width)}  {command.summary}" for name, command in shown.items())
    parser = ArgumentParser(
        prog=f"canister {group}".rstrip(),
        usage=f"canister {group}{'|'.join(shown)} ..." if group else "canister [--version] COMMAND ...",
        description=None if group else _DESCRIPTION,
        epilog=f"commands:\n{listing}\n\n`canister {group}COMMAND --help` explains one.",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if not group:
        parser.add_argument("--version", action="version", version=f"canister {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=shown, help="one of those below")
    return parser


def _parser(command: Command) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"canister {command.name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        allow_abbrev=False,
    )
    if command.datadir:
        parser.add_argument("datadir", metavar="DATADIR", help="the data directory of the node")
    command.declare(parser)
    return parser


def _fail(error: Exception, code: int) -> int:
    """Tell an error in one line."""
    print("canister:", " ".join(str(error).splitlines()), file=sys.stderr)
    return code


def _discard_output() -> None:
    """Nobody reads any more: let what is still buffered go nowhere, without a word."""
    if sys.stdout is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
