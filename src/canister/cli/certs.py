"""``canister certs init``, ``issue`` and ``show``: certificates for links with TLS."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from canister.cli.command import Command, declare_json
from canister.cli.output import print_json, print_pairs, utc
from canister.config import Config
from canister.errors import ConfigError

_MOST_DAYS = 36_500


def _certs() -> ModuleType:
    try:
        from canister import certs
    except ImportError as error:
        raise ConfigError(
            "making and reading certificates needs the package cryptography: "
            "pip install 'canister-sessions[tls]'"
        ) from error
    return certs


def _days(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) <= _MOST_DAYS):
        raise ArgumentTypeError(f"{text!r} is not a number of days from 1 to {_MOST_DAYS}")
    return int(text)


def _declare_init(parser: ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", type=Path, help="where ca.key and ca.crt go")
    parser.add_argument("--cluster", metavar="NAME", help="name of the cluster (default: canister)")
    parser.add_argument("--days", type=_days, metavar="N", help="for how long it is valid (default: 3650)")
    declare_json(parser)


def _run_init(options: Namespace) -> None:
    certs = _certs()
    cluster = Config(cluster=options.cluster or Config().cluster).cluster
    file = certs.make_authority(options.dir, cluster, options.days or certs.CA_DAYS)
    _print_made(file, options)


def _declare_issue(parser: ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", type=Path, help="the directory of `canister certs init`")
    parser.add_argument(
        "--host",
        metavar="HOST",
        action="append",
        required=True,
        help="name or IP address by which the members call the node; may be repeated",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="where the files go (default: DIR/HOST)")
    parser.add_argument("--days", type=_days, metavar="N", help="for how long it is valid (default: 365)")
    declare_json(parser)


def _run_issue(options: Namespace) -> None:
    certs = _certs()
    _print_made(certs.issue(options.dir, options.host, options.out, options.days or certs.NODE_DAYS), options)


def _declare_show(parser: ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="certificates in PEM")
    declare_json(parser)


def _run_show(options: Namespace) -> None:
    certs = _certs()
    found = [(file, shown) for file in options.files for shown in certs.show(file)]
    if options.json:
        print_json([_facts(file, shown) for file, shown in found])
        return
    for number, (file, shown) in enumerate(found):
        if number:
            print()
        _print(file, shown)


def _print_made(file: Path, options: Namespace) -> None:
    (shown, *_) = _certs().show(file)
    if options.json:
        print_json(_facts(file, shown))
    else:
        print(f"made {file} and {file.with_suffix('.key').name}, valid until {utc(shown.ends)}")


def _print(file: Path, shown: Any) -> None:
    print_pairs(
        [
            ("file", str(file)),
            ("subject", shown.subject),
            ("issuer", shown.issuer),
            ("names", ", ".join(shown.names) or "-"),
            ("valid from", utc(shown.begins)),
            ("valid until", f"{utc(shown.ends)} ({_days_left(shown)} days left)"),
            ("fingerprint", f"sha256 {shown.fingerprint}"),
        ]
    )


def _facts(file: Path, shown: Any) -> dict[str, Any]:
    return {
        "file": str(file),
        "subject": shown.subject,
        "issuer": shown.issuer,
        "names": shown.names,
        "valid_from": utc(shown.begins),
        "valid_until": utc(shown.ends),
        "days_left": _days_left(shown),
        "fingerprint": shown.fingerprint,
    }


def _days_left(shown: Any) -> int:
    days: int = (shown.ends - datetime.now(UTC)).days
    return days


COMMANDS = (
    Command("certs init", "make an authority for the certificates of nodes", _declare_init, _run_init, False),
    Command("certs issue", "make a node's key and certificate", _declare_issue, _run_issue, False),
    Command("certs show", "tell what certificates say", _declare_show, _run_show, False),
)
