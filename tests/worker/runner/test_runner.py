"""The runner as the supervisor sees it: a child process, a job in, events on a pipe, a result out."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from app.jobs.states import JobKind
from tests.worker import networks
from tests.worker.runner.hostile.archives import Mode, pack, plain
from tests.worker.runner.hostile.case import NPZ, OCTETS, TAR
from tests.worker.runner.jobs import INPUT, prepare, run_child, run_here, start
from tests.worker.runner.optimizing import prepare_job
from worker.engine.inspection.bounds import MAX_INSPECTION_BYTES
from worker.runner import inspect_dataset
from worker.runner.__main__ import run_job, write_result
from worker.runner.contract import MAX_RESULT_BYTES, RESULT_FILE, Event, RunnerResult
from worker.runner.events import Events


def _convnet(workdir: Path) -> None:
    (workdir / INPUT).write_bytes(networks.convnet().SerializeToString())


def _arrays(workdir: Path) -> None:
    with (workdir / INPUT).open("wb") as file:
        np.savez(file, image=np.zeros((6, 3, 16, 16), np.float32), label=np.arange(6))


def test_a_model_is_inspected_in_a_child(tmp_path: Path) -> None:
    _convnet(tmp_path)
    result = run_child(JobKind.INSPECT_MODEL, tmp_path, OCTETS)
    assert result.outcome == "succeeded"
    assert result.model is not None
    assert result.model.mac_count == networks.CONVNET_MACS


def test_a_dataset_is_inspected_in_a_child(tmp_path: Path) -> None:
    _arrays(tmp_path)
    result = run_child(JobKind.INSPECT_DATASET, tmp_path, NPZ)
    assert result.dataset is not None
    assert result.dataset.sample_count == 6
    assert [(spec.name, spec.dtype, spec.shape) for spec in result.dataset.arrays] == [
        ("image", "float32", [6, 3, 16, 16]),
        ("label", "int64", [6]),
    ]


def test_a_refusal_is_a_result_as_well(tmp_path: Path) -> None:
    (tmp_path / INPUT).write_bytes(b"hello")
    result = run_child(JobKind.INSPECT_MODEL, tmp_path, OCTETS)
    assert result.fault is not None
    assert (result.outcome, result.fault.code, result.retryable) == ("failed", "model_not_onnx", False)


@pytest.mark.parametrize(
    ("folder", "mode"),
    [
        pytest.param("", "w", id="plain"),
        pytest.param("./", "w", id="dot"),
        pytest.param("export/", "w", id="leading-folder"),
        pytest.param("", "w:gz", id="gzip"),
    ],
)
def test_a_tar_of_a_model_and_its_data_is_unpacked(folder: str, mode: Mode, tmp_path: Path) -> None:
    source = networks.save(networks.convnet(), tmp_path / "source", data_file="weights.bin").parent
    members = [plain(folder + path.name, path.read_bytes()) for path in sorted(source.iterdir())]
    # What tar writes for folders, and what macOS writes beside files.
    directory = tarfile.TarInfo(folder or ".")
    directory.type = tarfile.DIRTYPE
    (tmp_path / INPUT).write_bytes(pack((directory, b""), *members, plain(f"{folder}._model.onnx", b"x"), mode=mode))
    result = run_here(JobKind.INSPECT_MODEL, tmp_path, TAR)
    assert result.fault is None
    assert result.model is not None
    assert result.model.parameter_count == networks.CONVNET_PARAMETERS
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.onnx", "weights.bin"]


def test_a_single_file_is_not_copied(tmp_path: Path) -> None:
    _convnet(tmp_path)
    before = (tmp_path / INPUT).stat().st_ino
    run_here(JobKind.INSPECT_MODEL, tmp_path, OCTETS)
    assert (tmp_path / "model" / "model.onnx").stat().st_ino == before


def _wide_model(rows: int) -> bytes:
    """A product whose weight, rows x 1024 float32, lies in `weights.bin`."""
    model = networks.assemble(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT, ["N", rows])},
        {"y": (TensorProto.FLOAT, ["N", 1024])},
    )
    weight = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[rows, 1024])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    content: bytes = model.SerializeToString()
    return content


PEAK_OF_INSPECTION = """
import sys
from pathlib import Path
from worker.engine.inspection.model import inspect
found = inspect(Path(sys.argv[1]))
status = Path("/proc/self/status").read_text()  # ru_maxrss would show what the parent had when it forked
print(found.parameter_count, found.mac_count, status.split("VmHWM:")[1].split()[0])
"""


def test_a_model_over_two_gibibytes_is_inspected_without_reading_its_weights(tmp_path: Path) -> None:
    """The data file is a hole of 3 GiB. Reading it whole would show in the peak of resident memory."""
    rows = 3 << 18
    (tmp_path / "model.onnx").write_bytes(_wide_model(rows))
    with (tmp_path / "weights.bin").open("wb") as file:
        file.truncate(rows * 1024 * 4)
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_INSPECTION, str(tmp_path / "model.onnx")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    parameters, macs, peak_kibibytes = map(int, done.stdout.split())
    assert (parameters, macs) == (rows * 1024, rows * 1024)
    # Python, onnx and ONNX Runtime take some 150 MiB; a sixth of the weights would double that.
    assert peak_kibibytes < 400 << 10


def test_events_reach_the_pipe_as_lines_of_the_contract(tmp_path: Path) -> None:
    _arrays(tmp_path)
    prepare(JobKind.INSPECT_DATASET, tmp_path, NPZ)
    reader, writer = os.pipe()
    with start(tmp_path, writer) as child, os.fdopen(reader, "rb") as pipe:
        os.close(writer)
        events = [Event.model_validate_json(line) for line in pipe]
        child.communicate(timeout=60)
    assert events[0] == Event(type="phase", phase="inspecting", progress=0)
    shares = [event.progress for event in events if event.progress is not None]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_supervisor_that_is_gone_ends_the_runner_quietly(tmp_path: Path) -> None:
    _arrays(tmp_path)
    prepare(JobKind.INSPECT_DATASET, tmp_path, NPZ)
    reader, writer = os.pipe()
    os.close(reader)
    with start(tmp_path, writer) as child:
        os.close(writer)
        output, errors = child.communicate(timeout=60)
    assert (child.returncode, output, errors) == (0, b"", b"")
    assert not (tmp_path / RESULT_FILE).exists()


def test_events_without_a_pipe_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATHE_EVENT_FD", raising=False)
    Events().phase("inspecting", 0.5)


def test_events_stay_within_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setenv("LATHE_EVENT_FD", str(writer))
    events = Events()
    events.progress(1.0000001, eta_seconds=-0.5)
    events.log("a name \udcff of no encoding " + "x" * 100_000, level="warning")
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        progress, log = [Event.model_validate_json(line) for line in pipe]
    assert (progress.progress, progress.eta_seconds) == (1, 0)
    assert log.level == "warning"
    assert log.message is not None
    assert log.message.startswith("a name \\udcff of no encoding xxx")


def test_sigterm_ends_it_at_once_without_a_result(tmp_path: Path) -> None:
    """The file is a pipe that nobody fills, so the runner is still busy when the signal comes."""
    _arrays(tmp_path)
    prepare(JobKind.INSPECT_DATASET, tmp_path, NPZ)
    (tmp_path / INPUT).unlink()
    os.mkfifo(tmp_path / INPUT)
    reader, writer = os.pipe()
    with start(tmp_path, writer) as child, os.fdopen(reader, "rb") as pipe:
        os.close(writer)
        assert json.loads(pipe.readline())["phase"] == "inspecting"
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=10)
    assert child.returncode == -signal.SIGTERM
    assert not (tmp_path / RESULT_FILE).exists()


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        pytest.param(MemoryError(), "out_of_memory", False, id="python"),
        pytest.param(RuntimeError("std::bad_alloc"), "out_of_memory", False, id="library"),
        pytest.param(KeyError("/secret/path"), "internal_error", True, id="bug"),
    ],
)
def test_faults_that_are_not_the_users(
    error: Exception, code: str, retryable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    _arrays(tmp_path)
    job = prepare(JobKind.INSPECT_DATASET, tmp_path, NPZ)
    monkeypatch.setattr(inspect_dataset, "run", fail)
    result = run_job(job, tmp_path, Events())
    assert result.fault is not None
    assert (result.outcome, result.fault.code, result.retryable) == ("failed", code, retryable)
    assert "/secret/path" not in result.fault.detail


SHORT_OF_MEMORY = """
import resource, sys
import onnx, onnxruntime  # their mappings are not what should be short
from worker.runner.__main__ import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(main(sys.argv[1:]))
"""


def test_memory_that_runs_out_in_a_child_is_reported_as_that(tmp_path: Path) -> None:
    """Weights of 64 MiB, under a limit on address space that leaves no room to parse them."""
    model = networks.perceptron()
    model.graph.initializer.add(name="ballast", data_type=TensorProto.UINT8, dims=[1 << 26], raw_data=bytes(1 << 26))
    onnx.save_model(model, tmp_path / INPUT)
    prepare(JobKind.INSPECT_MODEL, tmp_path, OCTETS)
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    result = RunnerResult.model_validate_json((tmp_path / RESULT_FILE).read_bytes())
    assert result.fault is not None
    assert (result.fault.code, result.retryable) == ("out_of_memory", False)


def test_a_result_too_long_to_be_read_back_is_replaced(tmp_path: Path) -> None:
    _convnet(tmp_path)
    result = run_here(JobKind.INSPECT_MODEL, tmp_path, OCTETS)
    assert result.model is not None
    result.model.operators = {"x" * (MAX_RESULT_BYTES + 1): 1}
    write_result(result, tmp_path)
    written = RunnerResult.model_validate_json((tmp_path / RESULT_FILE).read_bytes())
    assert written.fault is not None
    assert written.fault.code == "result_too_large"


@pytest.mark.parametrize(("letters", "taken"), [(1000, True), (MAX_INSPECTION_BYTES, False)])
def test_an_inspection_that_no_honest_runner_leaves_is_not_taken(letters: int, taken: bool, tmp_path: Path) -> None:
    _convnet(tmp_path)
    result = run_here(JobKind.INSPECT_MODEL, tmp_path, OCTETS)
    assert result.model is not None
    result.model.operators = {"x" * letters: 1}
    text = result.model_dump_json()
    if taken:
        assert RunnerResult.model_validate_json(text) == result
    else:
        with pytest.raises(ValueError, match="more than one may"):
            RunnerResult.model_validate_json(text)


IMPORTED = "import sys; import worker.runner.__main__; print([name for name in sys.modules if name in {heavy!r}])"


def test_starting_imports_nothing_heavy() -> None:
    source = IMPORTED.format(heavy=["numpy", "onnx", "onnxruntime", "torch", "scipy", "safetensors"])
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_chains_that_nobody_can_follow_are_the_models_fault(tmp_path: Path) -> None:
    """Tried again it would end no better."""
    links = " ".join(f"s{number + 1} = Identity(s{number})" for number in range(1500))
    body = f"h = MatMul(x, w) s0 = Shape(h) {links} r = Reshape(h, s1500) y = MatMul(r, v)"
    text = f"g (float[N,8] x) => (float[N,4] y) {{ {body} }}"
    model = networks.prepared(text, 17, w=networks.normal(8, 16), v=networks.normal(16, 4))
    recipe = [{"pass": "prune_structured", "ratio": 0.5}]
    result = run_job(prepare_job(tmp_path, model, {}, recipe=recipe), tmp_path, Events())
    assert result.fault is not None
    assert (result.outcome, result.fault.code, result.retryable) == ("failed", "model_nested_too_deep", False)
