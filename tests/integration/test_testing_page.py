"""Runs the tests that docs/howto/testing.md shows, as a project that has them would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "testing.md").read_text("utf-8")
FREE_PORTS = """
import socket

@pytest.fixture
def free_ports():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
"""


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    rewriting = [block for block in blocks if block.startswith("pytest.register_assert_rewrite")]
    (tmp_path / "conftest.py").write_text("import pytest\n" + "".join(rewriting))
    code = "".join(block for block in blocks if block not in rewriting)
    (tmp_path / "test_page.py").write_text(code + FREE_PORTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings =\n    ignore::DeprecationWarning\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = re.findall(r"^def (test_\w+)", PAGE, re.MULTILINE)
    assert len(shown) == 6
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(shown)
    assert "skipped" not in ran.stdout
