"""``canister get``, ``canister info`` and ``canister sessions``: looking at sessions.

Looking is not an access: none of these keeps a session alive.
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime
from itertools import islice
from typing import Any

from canister.canister import Canister, SessionId
from canister.cli.command import Command, NotFoundError, declare_json, declare_session, session_id
from canister.cli.opening import open_existing
from canister.cli.output import print_json, print_pairs, show_id, show_time, show_value
from canister.life import Status
from canister.views import RecordStatus, SessionInfo

_LONGEST_COUNT = 19
"""Digits of a count that may be more than there can be."""


def live_session(canister: Canister, session: SessionId) -> SessionInfo:
    """Return a live session.

    Raises:
        NotFoundError: there is none.
        CannotTellError: it may exist on a member that cannot be asked.
    """
    info = canister.session_info(session)
    if info is None:
        raise NotFoundError(f"there is no live session {show_id(session)}")
    return info


def live_key(canister: Canister, session: SessionId, key: str) -> object:
    """Return the value of a key of a live session.

    Raises:
        NotFoundError: there is no such session or key.
        CannotTellError: the session may exist on a member that cannot be asked.
    """
    data = live_session(canister, session).data
    if key not in data:
        raise NotFoundError(f"session {show_id(session)} has no key {key!r}")
    return data[key]


def _declare_get(parser: ArgumentParser) -> None:
    declare_session(parser)
    parser.add_argument("key", metavar="KEY", nargs="?", help="a key of type str; all keys if left out")


def _run_get(options: Namespace) -> None:
    session = session_id(options.id, options)
    with open_existing(options, serves=True) as canister:
        if options.key is None:
            _print_data(live_session(canister, session).data, as_json=options.json)
        elif options.json:
            print_json(live_key(canister, session, options.key))
        else:
            print(show_value(live_key(canister, session, options.key)))


def _print_data(data: dict[Any, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        print_pairs(sorted((show_value(key), show_value(value)) for key, value in data.items()))


def _run_info(options: Namespace) -> None:
    session = session_id(options.id, options)
    with open_existing(options, serves=True) as canister:
        info = canister.session_info(session)
        status = canister.record_status(session)
    if status.status is Status.UNKNOWN:
        raise NotFoundError(f"this node holds nothing of session {show_id(session)}")
    if options.json:
        shown = {name: show_time(at) if at else None for name, at in _times(status, info)}
        keys = sorted(info.data, key=repr) if info else []
        print_json({"id": session, "status": str(status.status), **shown, "keys": keys})
        return
    print_pairs(
        [
            ("session", show_id(session)),
            ("status", str(status.status)),
            *((name, show_time(at)) for name, at in _times(status, info)),
            ("keys", ", ".join(sorted(map(show_value, info.data))) if info else "-"),
        ]
    )


def _times(status: RecordStatus, info: SessionInfo | None) -> list[tuple[str, datetime | None]]:
    return [
        ("created", status.created),
        ("accessed", status.accessed),
        ("updated", status.updated),
        ("cleared", info.cleared if info else None),
        ("destroyed", status.deleted if status.status is Status.DESTROYED else None),
    ]


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text) if len(text) < _LONGEST_COUNT else sys.maxsize


def _declare_sessions(parser: ArgumentParser) -> None:
    parser.add_argument("--limit", type=_count, metavar="N", help="print at most N ids")
    declare_json(parser)


def _run_sessions(options: Namespace) -> None:
    with open_existing(options, serves=True) as canister:
        for session in islice(canister.all_sessions(), options.limit):
            if options.json:
                print_json(session)
            else:
                print(show_id(session))


COMMANDS = (
    Command("get", "print the value of a key, or of all keys", _declare_get, _run_get),
    Command("info", "print the status, the times and the keys of a session", declare_session, _run_info),
    Command("sessions", "list the ids of the live sessions on this node", _declare_sessions, _run_sessions),
)
