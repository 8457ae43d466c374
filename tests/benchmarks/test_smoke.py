"""Every benchmark runs, with tiny numbers and without the rivals; no time is asserted.

`make bench-smoke` does the same with the rivals.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.catalog import BENCHMARKS

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_runs(name: str, tmp_path: Path) -> None:
    kept = tmp_path / "results.json"
    smoke = ["--scale", "500", "--turns", "2", "--no-rivals", "--only", name, "--json", kept]
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", *smoke], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    results = json.loads(kept.read_text())["results"]
    assert results
    assert all(result["ours"] and result["name"] == name for result in results)
    assert all(result["operation"] in ran.stdout for result in results)
