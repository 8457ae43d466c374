"""The how-to page about moving in: its project of Django, before and after."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.examples.test_django import BLOCK, ROOT

pytestmark = pytest.mark.integration

BEFORE = """
SESSION_ENGINE = "django.contrib.sessions.backends.db"
MIDDLEWARE[0] = "django.contrib.sessions.middleware.SessionMiddleware"
SESSION_COOKIE_NAME = "sessionid"
"""
LOG_IN = """
import django
django.setup()
from django.core.management import call_command
from django.test import Client

call_command("migrate", verbosity=0)
client = Client()
client.get("/log-in/ann")
print(client.cookies["sessionid"].value)
"""
GO_ON = """
import sys

import django
django.setup()
from django.core.management import call_command
from django.test import Client

call_command("check", fail_level="WARNING")
client, other = Client(), Client()
client.cookies["sessionid"] = other.cookies["sessionid"] = sys.argv[1]
assert client.get("/devices").json() == {"devices": 1}
client.get("/log-out")
assert client.get("/devices").status_code == 302
assert other.get("/devices").status_code == 302
"""


def run(directory: Path, program: str, *arguments: str) -> str:
    environ = os.environ | {
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONWARNINGS": "error",
        "SECRET_KEY": "key-0123456789-abcdefghijklmnopqrs",
    }
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_a_project_of_django_moves_in_as_the_page_says(tmp_path: Path) -> None:
    for name, text in BLOCK.findall((ROOT / "docs" / "howto" / "django.md").read_text()):
        (tmp_path / name).write_text(text)
    settings = tmp_path / "settings.py"
    project = settings.read_text()
    settings.write_text(project + BEFORE)
    cookie = run(tmp_path, LOG_IN)
    [after] = re.findall(
        r"```python\n# settings.py\n(.*?)```", (ROOT / "docs/howto/moving-in.md").read_text(), re.DOTALL
    )
    settings.write_text(project + after)
    run(tmp_path, GO_ON, cookie)
