"""Unix sockets in the data directory, whatever the length of its path."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from canister.errors import ConfigError

_LONGEST = 100
"""Bytes of a socket's path that every system takes."""


@contextmanager
def socket_path(path: Path) -> Generator[str, None, None]:
    """Return a name of *path* short enough for a socket address, valid inside the block.

    Raises:
        ConfigError: the path is too long for this system.
    """
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    if not sys.platform.startswith("linux"):
        raise ConfigError(f"the data directory's path is too long for a socket: {path}; choose a shorter one")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
