"""What processes have used: processor time from /proc, network bytes from ``ss``. Linux only."""

import os
import re
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_ENDS = re.compile(r"^\S+\s+\d+\s+\d+\s+(\S+)\s+(\S+)")


class Used(NamedTuple):
    """What a process has used so far."""

    seconds: float
    sockets: dict[str, int]
    """Bytes sent and received by TCP socket, without the headers of packets."""


def used(pids: Collection[int]) -> dict[int, Used]:
    """Return what processes have used so far."""
    sockets = _sockets()
    return {pid: Used(_processor(pid), sockets.get(pid, {})) for pid in pids}


def seconds(before: dict[int, Used], after: dict[int, Used], pids: Collection[int]) -> float:
    """Return the processor seconds of some processes between two looks."""
    return sum(after[pid].seconds - before[pid].seconds for pid in pids)


def moved(before: dict[int, Used], after: dict[int, Used], pids: Collection[int]) -> int:
    """Return the bytes that some processes sent and received between two looks, on sockets still open."""
    return sum(
        count - before[pid].sockets.get(socket, 0)
        for pid in pids
        for socket, count in after[pid].sockets.items()
    )


def _processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def _sockets() -> dict[int, dict[str, int]]:
    program = shutil.which("ss")
    if program is None:
        raise SystemExit("ss is not installed, which counts network bytes (Debian: iproute2)")
    said = subprocess.run([program, "-tinpHO"], capture_output=True, text=True, check=True).stdout
    found: dict[int, dict[str, int]] = {}
    for line in said.splitlines():
        ends = _ENDS.match(line)
        count = sum(int(number) for number in re.findall(r"bytes_(?:sent|received):(\d+)", line))
        for pid in set(re.findall(r"pid=(\d+)", line)):
            if ends is not None:
                found.setdefault(int(pid), {})[f"{ends[1]} {ends[2]}"] = count
    return found
