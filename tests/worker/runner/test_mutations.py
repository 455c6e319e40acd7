"""Files with random bytes changed end in a clear fault or in a correct result, never in a crash or a fault of ours."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.worker import networks
from tests.worker.runner.hostile.archives import pack, plain
from tests.worker.runner.hostile.case import NPZ, OCTETS, SAFETENSORS, TAR

MUTATIONS = 200
# One child for all mutations of a file: starting Python two hundred times would take minutes. A crash of the libraries
# ends the child, not pytest, and the number of outcomes printed tells at which mutation.
CHILD = """
import json, shutil, sys
from pathlib import Path
import numpy as np
from app.jobs.states import JobKind
from tests.worker.runner.jobs import INPUT, run_here

kind, media_type, source, folder, count = sys.argv[1:]
original = np.fromfile(source, np.uint8)
generator = np.random.default_rng(20)
for number in range(int(count)):
    mutated = original.copy()
    places = generator.integers(0, len(mutated), generator.integers(1, 9))
    mutated[places] = generator.integers(0, 256, len(places))
    if number % 10 == 0:
        mutated = mutated[: generator.integers(1, len(mutated))]
    workdir = Path(folder) / str(number)
    workdir.mkdir()
    mutated.tofile(workdir / INPUT)
    result = run_here(JobKind(kind), workdir, media_type)
    print(json.dumps([result.outcome, result.fault and result.fault.code, result.fault and result.fault.remedy]))
    sys.stdout.flush()
    shutil.rmtree(workdir)
"""


def _npz(compressed: bool) -> bytes:
    stream = io.BytesIO()
    arrays = {"image": np.arange(96, dtype=np.float32).reshape(4, 24), "label": np.arange(4)}
    if compressed:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    else:
        np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _safetensors() -> bytes:
    content: bytes = save({"image": np.arange(96, dtype=np.float32).reshape(4, 24), "label": np.arange(4)})
    return content


SOURCES: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "perceptron": ("inspect_model", OCTETS, lambda: networks.perceptron().SerializeToString()),
    "function": ("inspect_model", OCTETS, lambda: networks.with_function().SerializeToString()),
    "branches": ("inspect_model", OCTETS, lambda: networks.with_branches().SerializeToString()),
    "quantized": ("inspect_model", OCTETS, lambda: networks.quantized_product().SerializeToString()),
    "tar": ("inspect_model", TAR, lambda: pack(plain("m.onnx", networks.perceptron().SerializeToString()))),
    "tar-gz": ("inspect_model", TAR, lambda: pack(plain("m.onnx", bytes(range(256)) * 4), mode="w:gz")),
    "npz": ("inspect_dataset", NPZ, lambda: _npz(compressed=False)),
    "npz-compressed": ("inspect_dataset", NPZ, lambda: _npz(compressed=True)),
    "safetensors": ("inspect_dataset", SAFETENSORS, _safetensors),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_mutated_files_end_in_a_clear_fault_or_a_result(name: str, tmp_path: Path) -> None:
    kind, media_type, build = SOURCES[name]
    source = tmp_path / "source"
    source.write_bytes(build())
    done = subprocess.run(
        [sys.executable, "-c", CHILD, kind, media_type, str(source), str(tmp_path), str(MUTATIONS)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(outcomes)) == (0, MUTATIONS), done.stderr[-4000:]
    for outcome, code, remedy in outcomes:
        assert (outcome == "succeeded") == (code is None)
        assert code != "internal_error", done.stderr[-4000:]
        assert code is None or remedy
    # A mutation lands in a name or a number about as often as in the structure: neither side may swallow the other.
    assert any(code for _, code, _ in outcomes)
