"""The same checks as the Makefile's, on every Python that is supported and present."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "django6"]
nox.options.error_on_missing_interpreters = False

PINS = "requirements/dev.txt"
DJANGO_6 = "Django==6.1.3"
FOR_DJANGO = ["editables", "gunicorn", "hatchling", "httpx", "pytest", "pytest-timeout", "sybil", "uvicorn"]
"""What the tests of the Django adapter need."""


def install(session: nox.Session) -> None:
    session.install("-r", PINS)
    session.install("--no-deps", "--no-build-isolation", "-e", ".")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    install(session)
    session.run("pytest", *session.posargs)


@nox.session(python=["3.12", "3.13"])
def django6(session: nox.Session) -> None:
    """Run the tests of the Django adapter under Django 6, which Python 3.11 cannot have."""
    others = [pin for pin in Path(PINS).read_text().splitlines() if not pin.startswith("Django==")]
    constraints = Path(session.create_tmp(), "constraints.txt")
    constraints.write_text("\n".join(others))
    session.install("-c", str(constraints), DJANGO_6, *FOR_DJANGO)
    session.install("-c", str(constraints), "--no-build-isolation", "-e", ".[redis]")
    tests = ("tests/integration/test_django.py", "tests/integration/test_django_store.py")
    served = ("tests/examples/test_django.py", "tests/web/test_apps.py")
    session.run("pytest", *tests, *served, "-k", "django and not preload", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    install(session)
    session.run("mypy")
    session.run(
        "pyright",
        "--pythonpath",
        session.virtualenv.bin + "/python",
        env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )
