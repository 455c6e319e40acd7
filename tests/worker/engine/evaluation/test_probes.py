"""Probes in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.jobs.report import Latency
from app.recipes.request import Metric
from tests.conftest import ROUND_SECONDS
from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation.child import Bounds, MeasurementFailed, run_probe, run_script
from worker.engine.evaluation.metrics import MetricMismatch
from worker.engine.evaluation.nursery import the_nursery
from worker.engine.evaluation.one_call import Footprint, OneCall
from worker.engine.evaluation.requests import ComparisonAnswer, KernelReport, Turns, TurnsAnswer
from worker.engine.faults import UserFault
from worker.engine.feeds import Feeds, match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.profiling import kind_of
from worker.engine.stored_arrays import ArrayStore

X = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
# Rounds that last until a probe is looked at, which is after half a second.
LONG = 0.25


def _perceptron(folder: Path, seed: int = 0) -> ModelFile:
    return ModelFile(networks.save(networks.perceptron(seed, width=1 << 16), folder))


def feeds_of(model: ModelFile, x: np.ndarray = X) -> Feeds:
    return match_arrays(inputs_of(model.structure()), {"x": x}, "data")


def one_call(model: ModelFile, folder: Path) -> OneCall:
    feed = feeds_of(model).describe(ArrayStore(folder / "store"))
    return OneCall(model=str(model.path), feed=feed, threads=1, seconds=0.5, folder=str(folder))


def test_a_footprint_holds_the_weights(tmp_path: Path) -> None:
    model = _perceptron(tmp_path / "model")
    found = run_probe("footprint", one_call(model, tmp_path), Footprint, Bounds(tmp_path / "probe", 60))
    # 3.3 MB of weights must be resident; what the runtime needs beside them stays below a tenth of a gigabyte.
    assert model.size_bytes() < found.peak_memory_bytes - found.baseline_memory_bytes < 100e6
    assert found.outputs["y"].shape == [1, 4]


def test_kernel_shares_add_up_and_float_products_are_named(tmp_path: Path) -> None:
    model = _perceptron(tmp_path / "model")
    found = run_probe("kernels", one_call(model, tmp_path), KernelReport, Bounds(tmp_path / "probe", 60))
    kernels = found.kernels
    total = kernels.int8_share + kernels.float_share + kernels.conversion_share + kernels.other_share
    assert total == pytest.approx(1.0)
    assert sum(len(names) for names in found.float_nodes.values()) == 2
    assert not found.quantized


@pytest.mark.parametrize(
    ("operator", "types", "kind"),
    [
        ("QLinearConv", ["uint8", "int8"], "int8"),
        ("MatMulIntegerToFloat", ["uint8", "float"], "int8"),
        ("MaxPool", ["uint8"], "int8"),
        ("DequantizeLinear", ["uint8", "float"], "conversion"),
        ("FusedConv", ["float"], "float"),
        ("Reshape", ["float", "int64"], "other"),
        ("Equal", ["int64", "bool"], "other"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kernels_are_told_apart(operator: str, types: list[str], kind: str) -> None:
    assert kind_of(operator, {"input_type_shape": [{name: [1]} for name in types]}) == kind


def test_turns_give_every_model_as_many_rounds(tmp_path: Path) -> None:
    models = [_perceptron(tmp_path / str(seed), seed) for seed in range(2)]
    feed = feeds_of(models[0]).describe(ArrayStore(tmp_path / "store"))
    request = Turns(
        models=[str(model.path) for model in models],
        feeds=[feed, feed],
        threads=1,
        seconds=1.0,
        rounds=5,
        round_seconds=ROUND_SECONDS,
    )
    found = run_probe("latency", request, TurnsAnswer, Bounds(tmp_path / "probe", 60))
    rounds = [len(latency.round_medians_ms) for latency in found.latencies]
    assert rounds[0] == rounds[1]
    assert found.ratios[0].value == 1.0
    assert found.latencies[0].p50_ms <= found.latencies[0].p99_ms


def _compare(
    tmp_path: Path, metric: Metric, x: np.ndarray = X, candidate_seed: int = 0, labels: np.ndarray | None = None
) -> ComparisonAnswer:
    models = (networks.perceptron(0, width=1 << 16), networks.perceptron(candidate_seed, width=1 << 16))
    given = {"label": np.arange(len(x)) % 4 if labels is None else labels}
    request = comparison(tmp_path, models, {"x": x}, metric.model_dump(), given)
    return run_probe("comparison", request, ComparisonAnswer, Bounds(tmp_path / "probe", 60))


def test_a_copy_agrees_with_its_original(tmp_path: Path) -> None:
    found = _compare(tmp_path, Metric(name="top1", output="y", labels="label"))
    by_name = {quality.name: quality.value for quality in found.candidate}
    assert found.drop == found.drop_low == found.drop_high == 0
    assert by_name["agreement"] == 1.0
    assert by_name["sqnr_db"] is None
    assert found.sample_count == 40
    assert {quality.name for quality in found.original} == {"top1", "f1"}


def test_another_model_does_not_agree(tmp_path: Path) -> None:
    found = _compare(tmp_path, Metric(name="agreement", output="y"), candidate_seed=1)
    # Chance is one in four; that twenty of forty agree by chance has a probability below 1 in 1,000.
    assert found.metric_candidate is not None
    assert found.metric_candidate < 0.5
    assert found.drop == pytest.approx(1 - found.metric_candidate)


def test_labels_that_are_no_classes_are_refused_in_the_probe_as_well(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="from 0 to 4") as caught:
        _compare(tmp_path, Metric(name="top1", output="y", labels="label"), labels=np.arange(len(X)) % 5)
    assert caught.value.fault().code == MetricMismatch.code


def test_an_original_without_skill_is_said(tmp_path: Path) -> None:
    """The network is random, and so are the labels to it: one in four is right, give or take 14 % for 40 samples."""
    found = _compare(tmp_path, Metric(name="top1", output="y", labels="label"))
    assert found.metric_original is not None and found.metric_original < 0.4
    assert [warning for warning in found.warnings if "guessing among 4 classes" in warning]


def test_nan_is_named_and_leaves_the_answer_finite(tmp_path: Path) -> None:
    x = X.copy()
    x[3] = np.nan
    found = _compare(tmp_path, Metric(name="cosine", output="y"), x)
    assert any("NaN or infinite in 1 of 40" in warning for warning in found.warnings)
    assert "NaN" not in found.model_dump_json().replace("NaN or infinite", "")


def test_a_fault_in_a_probe_keeps_its_code(tmp_path: Path) -> None:
    model = _perceptron(tmp_path / "model")
    model.path.write_bytes(b"no model")
    request = OneCall(
        model=str(model.path),
        feed=match_arrays([], {}, "data").describe(ArrayStore(tmp_path)),
        threads=1,
        seconds=1,
        folder=str(tmp_path),
    )
    with pytest.raises(UserFault) as caught:
        run_probe("footprint", request, Footprint, Bounds(tmp_path / "probe", 60))
    assert caught.value.fault().code == "model_fails"


def test_a_probe_without_an_end_is_not_answered_with_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.evaluation.child.SHORTEST_LIMIT_SECONDS", 0.0)
    # No process starts, loads a model and answers before the first look.
    monkeypatch.setattr("worker.engine.evaluation.child.LOOK_SECONDS", 0.001)
    model = _perceptron(tmp_path / "model")
    with pytest.raises(MeasurementFailed, match="did not end") as caught:
        run_probe("footprint", one_call(model, tmp_path), Footprint, Bounds(tmp_path / "probe", 0.0))
    assert caught.value.remedy is not None and "Run the model once" in caught.value.remedy


DYING = """
import sys
from pathlib import Path
here = Path(sys.argv[0]).parent
(here / f"start-{len(list(here.glob('start-*')))}").touch()
if len(list(here.glob("start-*"))) <= DEATHS:
    raise KeyboardInterrupt
Path(sys.argv[2]).write_text('{"answer": {"latencies": [], "ratios": [], "calls_per_second": []}}')
"""


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_a_probe_that_dies_is_started_once_more(tmp_path: Path, deaths: int) -> None:
    script = tmp_path / "dying.py"
    script.write_text(f"DEATHS = {deaths}\n{DYING}")
    request = Turns(models=[], feeds=[], threads=1, seconds=1, rounds=1, round_seconds=ROUND_SECONDS)
    bounds = Bounds(tmp_path / "probe", 60)
    if deaths < 2:
        assert run_script(script, request, TurnsAnswer, bounds).latencies == []
    else:
        with pytest.raises(MeasurementFailed, match="KeyboardInterrupt"):
            run_script(script, request, TurnsAnswer, bounds)
    assert len(list(tmp_path.glob("start-*"))) == min(1 + deaths, 2)


def test_where_what_starts_probes_is_killed_the_next_probe_finds_another(tmp_path: Path) -> None:
    model = _perceptron(tmp_path / "model")
    before = _times(model, tmp_path)
    nursery = the_nursery({})
    os.kill(nursery.pid, signal.SIGKILL)
    assert len(_times(model, tmp_path)) == len(before) == 1
    assert the_nursery({}) is not nursery


def test_a_probe_whose_nursery_is_killed_is_started_once_more(tmp_path: Path) -> None:
    model = _perceptron(tmp_path / "model")
    killed = []

    def kill(_seconds: float) -> None:
        if not killed:
            killed.append(the_nursery({}).pid)
            os.kill(killed[0], signal.SIGKILL)

    assert len(_times(model, tmp_path, waiting=kill, seconds=1.0, round_seconds=LONG)) == 1
    assert killed


def test_the_next_forked_probe_is_told_nothing_of_one_that_was_cut_off(tmp_path: Path) -> None:
    model = _perceptron(tmp_path / "model")

    def interrupt(_seconds: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        _times(model, tmp_path, waiting=interrupt, seconds=5.0, round_seconds=LONG)
    assert len(_times(model, tmp_path)) == 1


# Of a process of its own, so that it has no other children.
# A quarter of a gigabyte, well above what numpy, onnx and ONNX Runtime take by themselves.
SPREAD_ROWS = 1 << 23
TAKEN = """
import sys
from pathlib import Path
from tests.worker.engine.evaluation import test_probes
from worker.engine.model_file import ModelFile
from worker.runner.__main__ import peak_memory_bytes
test_probes._times(ModelFile(Path(sys.argv[1])), Path(sys.argv[2]))
print(peak_memory_bytes())
"""


def test_what_a_forked_probe_took_counts_as_taken_by_its_runner(tmp_path: Path) -> None:
    text = "agraph (float[N, 8] x) => (float[8] y) { s = Expand(x, wide) y = ReduceMax <axes = [0], keepdims = 0> (s) }"
    spread = networks.prepared(text, wide=np.array([SPREAD_ROWS, 8]))
    model = networks.save(spread, tmp_path / "model")
    command = [sys.executable, "-c", TAKEN, str(model), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > SPREAD_ROWS * 8 * 4


def _times(
    model: ModelFile, folder: Path, seconds: float = 0.1, round_seconds: float = ROUND_SECONDS, **bounds: Any
) -> list[Latency]:
    feed = feeds_of(model).describe(ArrayStore(folder / f"store-{time.monotonic_ns()}"))
    request = Turns(
        models=[str(model.path)], feeds=[feed], threads=1, seconds=seconds, rounds=9, round_seconds=round_seconds
    )
    return run_probe("latency", request, TurnsAnswer, Bounds(folder / "probe", 60, **bounds)).latencies


def test_a_probe_dies_with_its_parent(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    os.mkfifo(request)  # the probe waits for the rest of it
    script = (
        "import os, subprocess, sys\n"
        "probe = [sys.executable, '-m', 'worker.engine.evaluation.footprint', *sys.argv[1:], str(os.getpid())]\n"
        "child = subprocess.Popen(probe)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[4])}
    command = [sys.executable, "-c", script, str(request), str(tmp_path / "answer.json")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        with request.open("wb"):  # opens as soon as the probe reads
            parent.send_signal(signal.SIGKILL)
            until = time.monotonic() + 10
            while time.monotonic() < until and _alive(child):
                time.sleep(0.02)
            assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
