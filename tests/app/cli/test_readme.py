"""What the README tells people to type, typed."""

import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnxruntime
import pytest

from app.cli.exits import HELP
from app.embedded import Stack
from examples.digits import data as digits

ROOT = Path(__file__).parents[3]
NAMED_FOLDER = Path("/tmp/digits")  # noqa: S108 - the folder that the README names


@pytest.fixture
def named_folder() -> Iterator[None]:
    """As `python -m examples.digits.data /tmp/digits` leaves it; gone again unless it was there before."""
    was_there = NAMED_FOLDER.exists()
    digits.write(NAMED_FOLDER)
    yield
    if not was_there:
        shutil.rmtree(NAMED_FOLDER)


def test_the_exit_codes_are_those_of_the_help() -> None:
    assert HELP.replace(";", ",") in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


def test_the_command_is_found_where_it_is_typed() -> None:
    """Nothing but `.venv/bin` holds it after `make`: a block that types it has that on the PATH."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    typed = [block for block in blocks if re.search(r"^lathe ", block, re.MULTILINE)]
    assert typed
    assert [block for block in typed if 'export PATH="$PWD/.venv/bin:$PATH"' not in block] == []


@pytest.mark.long
@pytest.mark.usefixtures("named_folder")
def test_five_minutes_with_python(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Five minutes with Python")[1]
    snippet = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert snippet is not None
    (tmp_path / "snippet.py").write_text(snippet[1], encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATHE_URL", stack.url)
    monkeypatch.setenv("LATHE_KEY", stack.key)

    runpy.run_path("snippet.py")

    assert capsys.readouterr().out.startswith(("met ", "unmet "))
    smaller = tmp_path / "digits-int8.onnx"
    assert smaller.stat().st_size < (ROOT / "examples/digits/digits.onnx").stat().st_size
    assert onnxruntime.InferenceSession(smaller, providers=["CPUExecutionProvider"]).get_inputs()[0].name == "image"
