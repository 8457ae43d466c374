"""Runs the Python blocks of README.md and of every page in docs/.

The blocks of one page share one namespace and one temporary working directory. A block is left
out by ``<!--- skip: next -->`` on the line above it.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

_this = sys.modules[__name__]
PARSERS = (PythonCodeBlockParser(), SkipParser())


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
    directory.cleanup()


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
    setup=enter_directory,
    teardown=leave_directory,
)

pytest_collect_file = (readme + docs).pytest()
