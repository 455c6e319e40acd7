"""The demo, as `make demo` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = ("size", "latency p50", "throughput", "peak memory", "top1", "agreement", "time in int8")


@pytest.mark.long
def test_the_demo_does_the_main_job_and_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [row for row in ROWS if row not in ended.stdout] == []
    assert "verdict: met" in ended.stdout
    assert "onnxruntime on one sample: " in ended.stdout
    assert list(tmp_path.iterdir()) == []
