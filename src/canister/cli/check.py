"""``canister check``: an application's settings against what published guidance asks."""

import asyncio
import importlib
import inspect
import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from canister.addresses import without_secrets
from canister.checks.finding import Finding, Verdict
from canister.checks.points import check
from canister.checks.subject import Settings
from canister.cli.command import Command, UsageError, declare_json
from canister.cli.output import print_json, print_table
from canister.config import load_config
from canister.errors import CanisterError
from canister.opening import is_url
from canister.sessions import CookieSettings
from canister.sessions.manager import session_managers


class ChecksFailedError(CanisterError):
    """At least one point does not hold."""


def _declare(parser: ArgumentParser) -> None:
    parser.add_argument(
        "app",
        metavar="APP",
        nargs="?",
        help="the application, or a function that makes it, as module:name; "
        "without it, the settings of environment and canister.toml",
    )
    declare_json(parser)


def _run(options: Namespace) -> None:
    found = list(_check(options.app))
    if options.json:
        print_json([finding._asdict() | {"verdict": str(finding.verdict)} for finding in found])
    else:
        print_table(["POINT", "VERDICT", "ASKS", "EVIDENCE"], [_row(finding) for finding in found])
    failed = [finding.point for finding in found if finding.verdict is Verdict.FAIL]
    if failed:
        raise ChecksFailedError(f"{len(failed)} of {len(found)} points failed: {', '.join(failed)}")


def _check(app: str | None) -> list[Finding]:
    settings = Settings(load_config({}), CookieSettings()) if app is None else _settings_of(app)
    logging.disable()  # what is provoked here is no news
    try:
        return list(check(settings))
    finally:
        logging.disable(logging.NOTSET)


def _settings_of(app: str) -> Settings:
    if is_url(app):
        raise UsageError(f"{without_secrets(app)} is no application; name one as module:name")
    before = set(session_managers())
    module, _, name = app.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        application: Any = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            application = getattr(application, part)
        if not set(session_managers()) - before and _is_factory(application):
            application = application()
    except CanisterError:
        raise
    except (Exception, SystemExit) as error:  # whatever a module does as it is imported
        raise UsageError(f"{app} cannot be imported: {type(error).__name__}: {error}") from error
    trouble = ""
    if not set(session_managers()) - before and _is_asgi(application):
        trouble = asyncio.run(_start(application))
    managers = [manager for manager in session_managers() if manager not in before]
    if len(managers) != 1:
        raise UsageError(f"{app} has {len(managers)} session managers; one is needed{trouble}")
    return Settings.of(managers[0])


def _is_factory(application: Any) -> bool:
    """Tell whether it is a function that has to be given nothing, as no application is: it makes one."""
    if not inspect.isfunction(application) or inspect.iscoroutinefunction(application):
        return False
    return all(
        parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
        for parameter in inspect.signature(application).parameters.values()
    )


def _is_asgi(application: Any) -> bool:
    call = getattr(application, "__call__", application)  # noqa: B004 - its signature is what counts
    return inspect.iscoroutinefunction(application) or inspect.iscoroutinefunction(call)


async def _start(application: Any) -> str:
    """Start and stop an ASGI application, which makes its middleware; return what it raised, as a clause.

    One that takes no scope of this kind raises: servers then go on without (ASGI, Lifespan Protocol).
    """
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(events)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"].endswith(".failed"):
            raise CanisterError(f"the application does not start: {message.get('message')}")

    try:
        await application({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    except CanisterError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an application does
        return f"; starting it raised {type(error).__name__}: {error}"
    return ""


def _row(finding: Finding) -> list[str]:
    return [finding.point, finding.verdict, finding.asks, finding.evidence]


COMMANDS = (
    Command(
        "check",
        "check an application against OWASP, ASVS, NIST, RFC 6265bis",
        _declare,
        _run,
        datadir=False,
    ),
)
