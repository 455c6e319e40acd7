"""The command line in this process, against the whole service as `lathe serve` runs it."""

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.embedded import Stack
from examples.digits import data as digits


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON document and nothing else."""
        return json.loads(self.stdout)


LatheCommand = Callable[..., Outcome]
PASS = "quantize_static"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The digits example: `model`, `calibration`, `evaluation`."""
    calibration, evaluation = digits.write(tmp_path_factory.mktemp("digits"))
    model = Path(digits.__file__).with_name("digits.onnx")
    return {"model": model, "calibration": calibration, "evaluation": evaluation}


@pytest.fixture
def bare_lathe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> LatheCommand:
    """`bare_lathe(*arguments)`: run the command where no service, no key and no data folder are known."""
    for name in ("LATHE_URL", "LATHE_KEY", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LATHE_DATA_FOLDER", str(tmp_path / "no-such-folder"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["lathe", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        else:
            code = 0
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def lathe(bare_lathe: LatheCommand, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> LatheCommand:
    """`lathe(*arguments)`: run the command against the service, with its first key."""
    monkeypatch.setenv("LATHE_URL", stack.url)
    monkeypatch.setenv("LATHE_KEY", stack.key)
    return bare_lathe


@pytest.fixture(scope="session")
def finished() -> dict[str, Any]:
    """The job that the first test which reads one has made."""
    return {}


@pytest.fixture
def job(lathe: LatheCommand, files: dict[str, Path], finished: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A job of `PASS` that met its contract; `downloaded_sha256` is of the file that came with it."""
    if not finished:
        arguments = ["optimize", files["model"], "--pass", PASS, "--calibration", files["calibration"]]
        arguments += ["--evaluation", files["evaluation"], "--metric", "top1", "--labels", "label"]
        arguments += ["--max-drop", "0.05", "--threads", "1", "--budget", "60"]
        outcome = lathe(*arguments, "--download", tmp_path / "smaller.onnx", "--json")
        assert outcome.code == 0, outcome.stderr
        finished |= outcome.json
        finished["downloaded_sha256"] = hashlib.sha256((tmp_path / "smaller.onnx").read_bytes()).hexdigest()
    return finished
