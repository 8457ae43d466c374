"""Files that the processes of a node share as memory: to look at one, or to write to it, is no system call.

What a process wrote is in the file when it is killed; after a power cut it need not be.
"""

import errno
import mmap
import os
from pathlib import Path

from canister.errors import DiskFullError, StoreError


def make_room(path: Path, size: int) -> None:
    """Make a file, or complete it with zeros.

    They are written: a page of a map that has no room on the disk kills the process.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            have = os.fstat(handle).st_size
            while have < size:
                have += os.pwrite(handle, bytes(size - have), have)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"the disk holding {path} is full; nothing was written; free some space"
            ) from error
        raise StoreError(f"{path} cannot be made: {error.strerror}") from error


def shared_memory(path: Path, size: int) -> mmap.mmap:
    """Return the first bytes of a file, which `make_room` has made, as memory.

    Raises:
        StoreError: the file cannot be opened.
    """
    try:
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), size)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be mapped: {error}") from error
