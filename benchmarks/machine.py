"""What a measurement was made on: machine, versions and date."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.environments import PINS

_OWN = ("canister-sessions", "apsw", "msgspec", "uvloop", "starlette")


def describe() -> dict[str, str]:
    """Return machine, versions and date."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGESIZE') / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in _OWN),
        "rivals": ", ".join(sorted({pin for name, pins in PINS.items() if name != "plots" for pin in pins})),
        "redis": _redis(),
        "load": f"{os.getloadavg()[0]:.1f} at the start",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def _redis() -> str:
    try:
        said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        return "not installed"
    return said.stdout.split()[2].removeprefix("v=")
