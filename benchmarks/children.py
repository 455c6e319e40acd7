"""Work in a process of its own: its memory, its threads and its crashes are nobody else's."""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[1]
LIMIT_SECONDS = 3600.0
MOST_MESSAGE_CHARACTERS = 300
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    # Waiting threads of torch would take turns of the cores that others compute on.
    "OMP_WAIT_POLICY": "passive",
    "ORT_DISABLE_TELEMETRY": "1",
    # What keeps NNCF from sending usage statistics.
    "CI": "true",
}


class ChildFailed(Exception):
    """The work raised, or its process died: the message is the last that was heard of it."""


@dataclass(frozen=True)
class Answer:
    """What the work returned. `peak_bytes` is VmHWM at its end, `baseline_bytes` the same before its beginning."""

    value: dict[str, Any]
    peak_bytes: int
    baseline_bytes: int


def run_in_child(function: str, arguments: dict[str, Any], limit_seconds: float = LIMIT_SECONDS) -> Answer:
    """Call `module:function` with JSON arguments in a fresh process. It returns what JSON can say.

    Its temporary folder is removed afterwards; what should last has to be written elsewhere.

    Raises:
        ChildFailed: it raised, died, or took longer than `limit_seconds`.

    """
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as name:
        folder = Path(name)
        asked, answered, heard = folder / "request.json", folder / "answer.json", folder / "output.txt"
        asked.write_text(json.dumps({"function": function, "arguments": arguments, "parent": os.getpid()}))
        command = [sys.executable, "-m", "benchmarks.children", str(asked), str(answered)]
        environment = {**os.environ, **ENVIRONMENT, "TMPDIR": name}
        with heard.open("wb") as output:
            child = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
            status = _wait(child, limit_seconds)
        if not answered.exists():
            last = _shortened(heard.read_text(errors="replace"))
            raise ChildFailed(f"its process ended with status {status}: {last}")
        content = json.loads(answered.read_text())
    if "failure" in content:
        raise ChildFailed(content["failure"])
    return Answer(**content)


def _wait(child: subprocess.Popen[bytes], limit_seconds: float) -> int:
    with child:
        try:
            return child.wait(limit_seconds)
        except subprocess.TimeoutExpired as error:
            child.kill()
            raise ChildFailed(f"took more than {limit_seconds:.0f} s") from error


def _peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def _shortened(message: str) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    return (lines[-1] if lines else "nothing was heard of it")[:MOST_MESSAGE_CHARACTERS]


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    module, _, name = request["function"].partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
        baseline = _peak_bytes()
        value = function(**request["arguments"])
    except Exception as error:  # whatever a library raises is what is reported of it
        traceback.print_exc()
        return {"failure": _shortened(f"{type(error).__name__}: {' '.join(str(error).split())}")}
    return {"value": value, "peak_bytes": _peak_bytes(), "baseline_bytes": baseline}


def main() -> None:
    asked, answered = Path(sys.argv[1]), Path(sys.argv[2])
    request = json.loads(asked.read_text())
    die_with_parent(request["parent"])
    content = json.dumps(_answer(request))
    partial = answered.with_suffix(".partial")
    partial.write_text(content)
    partial.replace(answered)


if __name__ == "__main__":
    main()
