"""Runs the Python blocks of README.md and of every page in docs/.

The blocks of one page share one namespace and one temporary working directory. A block is left
out by ``<!--- skip: next -->`` on the line above it.
"""

import contextlib
import gc
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.sybil import SybilCollection

_this = sys.modules[__name__]
PARSERS = (PythonCodeBlockParser(), SkipParser())
WITH_REDIS = ("howto/redis.md", "howto/moving-in.md")


def enter_directory(namespace: dict[str, Any]) -> None:
    directory = TemporaryDirectory(prefix="canister-docs-")
    # pytest drops it when it loads another conftest.py, and some frameworks ask which module calls them.
    sys.modules.setdefault(__name__, _this)
    namespace["_page"] = (Path.cwd(), directory)
    namespace["__name__"] = "builtins"  # frameworks look for the module of a function
    os.chdir(directory.name)


def leave_directory(namespace: dict[str, Any]) -> None:
    before, directory = namespace["_page"]
    os.chdir(before)
    close_all_in(Path(directory.name).resolve())
    directory.cleanup()


def close_all_in(directory: Path) -> None:
    """Close what a page has left open, as the end of its process would: its agents use the directory."""
    from canister import Canister

    for canister in [found for found in gc.get_objects() if type(found) is Canister]:
        data = canister.engine.key_directory
        if data is not None and directory in data.parents:
            canister.close()


def enter_with_redis(namespace: dict[str, Any]) -> None:
    """Start the server that REDIS_URL names on the pages that need one."""
    from tests.redis_servers import running_redis

    enter_directory(namespace)
    namespace["_servers"] = stack = contextlib.ExitStack()
    namespace["redis_url"] = ""
    if shutil.which("redis-server") or os.environ.get("CI"):
        server = stack.enter_context(running_redis(Path.cwd()))
        namespace["redis_url"] = os.environ["REDIS_URL"] = server.url
        stack.callback(os.environ.pop, "REDIS_URL")


def leave_with_redis(namespace: dict[str, Any]) -> None:
    namespace["_servers"].close()
    leave_directory(namespace)


def enter_moving(namespace: dict[str, Any]) -> None:
    """Begin what the page about moving shows, up to its first Python block."""
    from canister import Canister
    from canister.cli.main import main

    enter_with_redis(namespace)
    if namespace["redis_url"]:
        Canister("data", agent=False).close()
        assert main(["migrate", "data", namespace["redis_url"], "begin", "--json"]) == 0


readme = Sybil(
    PARSERS,
    pattern="README.md",
    exclude="*/README.md",
    setup=enter_directory,
    teardown=leave_directory,
)
docs = Sybil(
    PARSERS,
    path="docs",
    pattern="*.md",
    excludes=[*WITH_REDIS, "howto/migrate.md"],
    setup=enter_directory,
    teardown=leave_directory,
)
redis = Sybil(
    PARSERS,
    path="docs",
    patterns=WITH_REDIS,
    setup=enter_with_redis,
    teardown=leave_with_redis,
)
moving = Sybil(
    PARSERS,
    path="docs/howto",
    pattern="migrate.md",
    setup=enter_moving,
    teardown=leave_with_redis,
)

pytest_collect_file = SybilCollection([readme, docs, redis, moving]).pytest()
