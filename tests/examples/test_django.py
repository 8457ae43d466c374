"""The how-to page for Django as the project it describes, and the example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.examples.shopping import go_shopping
from tests.integration.cluster import eventually, free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)
VISIT = """
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client

call_command("check", fail_level="WARNING")
call_command("migrate", verbosity=0)
client, other = Client(), Client()
assert client.get("/").json() == {"visits": 1, "pages": ["/"]}
assert client.get("/").json() == {"visits": 2, "pages": ["/", "/"]}
client.get("/log-in/ann")
other.get("/log-in/ann")
assert client.get("/devices").json() == {"devices": 2}
assert client.post("/devices").json() == {"devices": 1}
assert other.get("/devices").status_code == 302
assert client.get("/later").content == b"ok"
assert client.session["later"]
client.force_login(User.objects.create_superuser("root"))
page = f"/admin/sessions/{User.objects.get(username='root').pk}/"
assert b"this one" in client.get(page).content
client.get("/log-out")
assert client.get("/").json() == {"visits": 1, "pages": ["/"]}
call_command("clearsessions")
"""


def test_the_page_describes_a_project_that_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "django.md").read_text()
    blocks = BLOCK.findall(page)
    assert len(blocks) == page.count("```python"), "every block is run"
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    environ = os.environ | {
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONWARNINGS": "error",
        "SECRET_KEY": "key-0123456789-abcdefghijklmnopqrs",
    }
    run = subprocess.run(
        [sys.executable, "-c", VISIT], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_shop(tmp_path: Path) -> None:
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        shop = subprocess.Popen(
            [sys.executable, ROOT / "examples" / "django_shop.py", str(port), tmp_path / "data"],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

            def answers() -> bool:
                assert shop.poll() is None, (tmp_path / "log").read_text()
                try:
                    return client.get("/").is_success
                except httpx.TransportError:
                    return False

            eventually(answers, 30.0, "the shop")
            with httpx.Client(base_url=client.base_url, trust_env=False) as phone:
                go_shopping(client, phone)
    finally:
        shop.terminate()
        shop.wait(20)
    assert "Traceback" not in (tmp_path / "log").read_text()
