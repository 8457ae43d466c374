"""The rivals, and a virtual environment for each, so that the project's own stays as it is."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PLACE = ROOT / ".bench" / "rivals"


class Rival(NamedTuple):
    """A rival.

    Attributes:
        title: what the table calls it.
        module: its application, in ``benchmarks.rivals.apps``.
        argument: which of the module's applications.
        requirements: what its virtual environment holds; nothing for the project's own.
    """

    title: str
    module: str
    argument: str
    requirements: tuple[str, ...]


_REDIS = "redis==5.2.1"
_DJANGO = ("django==5.2.19", _REDIS)

RIVALS = (
    Rival("Canister", "canister_app", "", ()),
    Rival("Django, database", "django_app", "db", _DJANGO),
    Rival("Django, cache on Redis", "django_app", "cache", _DJANGO),
    Rival(
        "Flask-Session, Redis",
        "flask_session_app",
        "",
        ("flask==3.1.3", "flask-session[redis]==0.8.0", _REDIS),
    ),
    Rival(
        "starsessions, Redis",
        "starsessions_app",
        "",
        ("starsessions[redis]==2.2.1", "uvicorn==0.38.0", _REDIS),
    ),
    Rival("Litestar, Redis", "litestar_app", "", ("litestar==2.25.0", "uvicorn==0.38.0", _REDIS)),
    Rival(
        "Starlette, signed cookie",
        "starlette_app",
        "",
        ("starlette==1.10.0", "itsdangerous", "uvicorn==0.38.0"),
    ),
    Rival("aiohttp-session, Redis", "aiohttp_app", "", ("aiohttp-session[aioredis]==2.12.1", _REDIS)),
    Rival("Beaker, files", "beaker_app", "", ("beaker==1.14.1",)),
    Rival("Pyramid, signed cookie", "pyramid_app", "", ("pyramid==2.1",)),
)


def python_of(rival: Rival) -> Path:
    """Return the interpreter of the rival's environment, which is made if it is not there."""
    if not rival.requirements:
        return Path(sys.executable)
    directory = PLACE / rival.module
    python, stamp = directory / "bin" / "python", directory / "installed"
    wanted = "\n".join(rival.requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *rival.requirements]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return python
