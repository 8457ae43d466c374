"""Virtual environments of the rivals, one each, so that none of them touches the project's own."""

import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".bench"

PINS = {
    "plots": ("matplotlib==3.10.9",),
    "redis": ("redis==8.1.0", "hiredis==3.5.0"),
    "diskcache": ("diskcache==5.6.3",),
    "django": ("Django==5.2.19", "redis==8.1.0", "hiredis==3.5.0"),
    "flask": ("Flask==3.1.3", "Flask-Session==0.8.0", "redis==8.1.0", "hiredis==3.5.0"),
    "starlette": (
        "starlette==1.10.0",
        "starsessions==2.2.1",
        "itsdangerous==2.2.0",
        "redis==8.1.0",
        "hiredis==3.5.0",
    ),
}
"""What each environment holds; pinned, so that two runs compare the same things."""


def python_of(name: str) -> Path:
    """Return the Python of an environment, which is made if it is not there or holds other versions."""
    folder = CACHE / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join((sys.version, *PINS[name]))
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {', '.join(PINS[name])} into {folder}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *PINS[name]]
        subprocess.run(command, check=True)
        stamp.write_text(wanted)
    return python
