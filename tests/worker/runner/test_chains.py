"""Chains of passes: what every step left is measured beside the original, once what is delivered has been."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from app.jobs.report import Report, Step, StepFile
from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from tests.worker.runner.optimizing import optimize
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.runner import optimize as running
from worker.runner import step_files
from worker.runner.chain import Outcome, run_chain, run_pass
from worker.runner.contract import RunnerResult

Recipe = list[dict[str, object]]
Run = Callable[[Recipe], RunnerResult]

SAMPLES = 64
# A job starts up to ten processes, one after another: that is what these tests take their seconds for.
BUDGET_SECONDS = 60.0
PRUNE: dict[str, object] = {"pass": "prune_unstructured", "sparsity": 0.3}
OPTIMIZE: dict[str, object] = {"pass": "optimize_graph"}
QUANTIZE: dict[str, object] = {"pass": "quantize_static"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(recipe)`: a job on a small convolutional network, without labels."""
    images = np.random.default_rng(0).standard_normal((SAMPLES + 16, 3, 16, 16)).astype(np.float32)
    data = {"calibration": {"image": images[SAMPLES:]}, "evaluation": {"image": images[:SAMPLES]}}
    return lambda recipe: optimize(
        tmp_path / "w", networks.convnet(), data, budget=BUDGET_SECONDS, recipe=recipe, target={"threads": 1}
    )


def _report(result: RunnerResult) -> Report:
    assert result.outcome == "succeeded"
    assert result.report is not None
    return result.report


def _file(step: Step) -> StepFile:
    assert step.file is not None
    return step.file


def _quality(file: StepFile, name: str) -> float:
    (value,) = (one.value for one in file.quality if one.name == name)
    assert value is not None
    return value


def test_every_step_of_a_chain_is_measured_beside_the_original(run: Run, tmp_path: Path) -> None:
    result = run([OPTIMIZE, OPTIMIZE, PRUNE, QUANTIZE])
    report = _report(result)
    assert [step.modified for step in report.steps] == [True, False, True, True]
    optimized, repeated, pruned, quantized = map(_file, report.steps)
    # One that changed nothing repeats the step before it: latencies measured anew would not agree to the last bit.
    assert repeated == optimized
    for file in (optimized, pruned, quantized):
        assert file.unmeasured == []
        assert file.latency is not None
        assert len(file.latency.round_medians_ms) > 1
        assert file.latency_ratio is not None
        assert file.latency_ratio.low is not None
        assert file.original_latency_ms is not None
        assert {one.sample_count for one in file.quality} == {SAMPLES}
        assert {one.name for one in file.quality} == {"agreement", "cosine", "sqnr_db"}
    made = (tmp_path / "w" / "scratch").rglob("*.onnx")
    assert optimized.size_bytes in {file.stat().st_size for file in made}
    # Weights are pruned where they stand: the file keeps its size.
    assert pruned.size_bytes == optimized.size_bytes
    # Folding is exact up to float32. The smallest 30 % of normal weights hold under 2 % of their power: 17 dB a layer,
    # and three layers deep. What 8 bits add, 40 dB or better, does not show behind that.
    assert _quality(optimized, "cosine") > 1 - 1e-6
    assert 10 < _quality(pruned, "sqnr_db") < 25
    assert _quality(quantized, "sqnr_db") == pytest.approx(_quality(pruned, "sqnr_db"), abs=0.5)
    # The intermediate files were timed in one run, the delivered one before them in a run of its own.
    assert pruned.original_latency_ms == optimized.original_latency_ms
    delivered = report.candidates[0]
    assert (quantized.size_bytes, quantized.latency, quantized.latency_ratio, quantized.quality) == (
        delivered.measurement.size_bytes,
        delivered.measurement.latency,
        delivered.latency_ratio,
        delivered.measurement.quality,
    )
    assert RunnerResult.model_validate_json(result.model_dump_json(by_alias=True)).report == report


@pytest.mark.long
def test_without_time_for_the_steps_the_delivered_file_is_measured_all_the_same(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_files, "measure_beside", partial(step_files.measure_beside, seconds=0.0))
    report = _report(run([PRUNE, QUANTIZE]))
    pruned, quantized = map(_file, report.steps)
    assert (pruned.latency, pruned.latency_ratio, pruned.quality) == (None, None, [])
    assert pruned.size_bytes > 0
    assert [reason.partition(":")[0] for reason in pruned.unmeasured] == [
        "Latency was not measured",
        "Quality was not measured",
    ]
    assert all("no time was left" in reason for reason in pruned.unmeasured)
    assert quantized.unmeasured == []
    assert quantized.latency == report.candidates[0].measurement.latency


def test_a_step_whose_file_the_runtime_refuses_does_not_fail_the_job(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> Outcome:
        """The real chain, the first file of which is spoiled once the others are made from it."""
        outcome = run_chain(*arguments)  # type: ignore[arg-type]  # handed through
        model = networks.convnet()
        model.graph.node[0].op_type = "NoSuchOperator"
        outcome.files[0].path.write_bytes(model.SerializeToString())
        return outcome

    monkeypatch.setattr(running, "run_chain", broken)
    report = _report(run([PRUNE, OPTIMIZE, QUANTIZE]))
    pruned, optimized, quantized = map(_file, report.steps)
    assert len(pruned.unmeasured) == 2
    assert all("NoSuchOperator" in reason for reason in pruned.unmeasured)
    for file in (optimized, quantized):
        assert file.unmeasured == []
        assert file.latency is not None
        assert file.quality


@pytest.mark.parametrize(
    ("name", "modified", "inputs"),
    [
        ("optimize_graph", False, ["x", "w"]),
        ("compile", False, ["x", "w"]),
        ("factorize_low_rank", False, ["x", "w"]),
        ("prune_unstructured", True, ["x", "w"]),
        ("convert_float16", True, ["x"]),
    ],
)
def test_inputs_with_a_default_are_said_to_be_lost_where_they_are(
    name: str, modified: bool, inputs: list[str], tmp_path: Path
) -> None:
    """Not where the file is delivered as it was, nor by a pass that writes into the user's own."""
    proto = networks.holding("network (float[N,4] x) => (float[N,4] y) { y = MatMul(x, w) }", w=networks.normal(4, 4))
    proto = networks.with_initializers_as_inputs(proto)
    proto.ir_version = 8
    outcome = Outcome(ModelFile(networks.save(proto, tmp_path / "model")))
    feeds = match_arrays(inputs_of(proto), {"x": networks.normal(SAMPLES, 4)}, "the data")
    arguments = {"sparsity": 0.5} if name == "prune_unstructured" else {}
    config = CATALOGUE[name].config.model_validate({"pass": name, **arguments})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    run_pass(name, config, outcome, PassContext(scratch, feeds, seed=0, threads=1))
    assert outcome.modified == modified
    assert [value.name for value in outcome.model.structure().graph.input] == inputs
    said = [note for note in outcome.steps[-1].notes if "Inputs with a default value" in note]
    assert len(said) == ("w" not in inputs)
