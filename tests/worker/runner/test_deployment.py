"""The deployment check, by its real children: good files pass, and each fault fails the check that is meant for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.jobs.report import Deployment, DeploymentCheck, Kernels
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker import networks
from worker.engine.evaluation.one_call import Footprint
from worker.engine.evaluation.requests import KernelReport
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.runner.deployment import Terms, check_deployment
from worker.runner.events import Events
from worker.runner.job_data import JobData
from worker.runner.measuring import Laboratory, Subject
from worker.runner.pacing import Pacing

# Each check on files this small takes about a second, most of it for starting.
TERMS = Terms(seconds=8.0, most_threads=1, slower_fails=False)
# Of no consequence but for planning: about what files this small take.
FOOTPRINT = Footprint(load_ms=1.0, peak_memory_bytes=0, baseline_memory_bytes=0, call_ms=0.05, outputs={})
NO_KERNELS = Kernels(int8_share=0, float_share=1, conversion_share=0, other_share=0, by_operator=[])
KERNELS = KernelReport(kernels=NO_KERNELS, float_nodes={}, float_node_shares={}, quantized=False)
WEIGHT = networks.normal(8, 4)
SUM = "s = ReduceSum <keepdims=0> (a)"

Check = Callable[..., Deployment]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """`check(original, candidate, terms, name=array, ...)`: arrays by input, the first axis counting samples."""

    def run(
        original: onnx.ModelProto, candidate: onnx.ModelProto, terms: Terms = TERMS, **arrays: np.ndarray
    ) -> Deployment:
        files = [
            ModelFile(networks.save(model, tmp_path / folder))
            for folder, model in (("original", original), ("candidate", candidate))
        ]
        inputs = inputs_of(original)
        feeds = match_arrays(inputs, arrays, "my data")
        one = match_arrays(inputs, {name: array[:1] for name, array in arrays.items()}, "my data")
        data = JobData(feeds, feeds, one, batch=1, labels={}, words={})
        laboratory = Laboratory(
            tmp_path / "measuring", data, 1, "cpu", 0, Pacing(Events(), 120.0), TIMING_ROUNDS, ROUND_SECONDS
        )
        subjects = [Subject(file, file.size_bytes(), file.size_bytes(), FOOTPRINT, KERNELS) for file in files]
        return check_deployment(laboratory, subjects[0], subjects[1], terms)

    return run


def product(then: str = "y = Identity (p)") -> onnx.ModelProto:
    """`x` (N, 8) -> `y` (N, 4): a product, and what is done to it; `s` is the sum of all magnitudes of `x`."""
    text = f"network (float[N, 8] x) => (float[N, 4] y) {{ p = MatMul (x, w) a = Abs (x) {SUM} {then} }}"
    return networks.prepared(text, w=WEIGHT)


def of(deployment: Deployment, name: str) -> DeploymentCheck:
    return next(check for check in deployment.checks if check.name == name)


def outcomes(deployment: Deployment) -> dict[str, str]:
    return {check.name: check.outcome for check in deployment.checks}


X = networks.normal(40, 8)


def test_a_copy_passes_everything_alone_with_the_runtime(check: Check) -> None:
    found = check(product(), product(), x=X)
    assert outcomes(found) == dict.fromkeys(
        ("loads", "same_answers", "memory", "extreme_values", "extreme_shapes", "threads", "without_vnni"), "passed"
    )
    assert found.modules == ["numpy", "onnxruntime"]
    # So small a model is asked as often as is ever asked.
    assert of(found, "same_answers").figures == {
        "runs": 1000,
        "concurrent_runs": 1000,
        "different_runs": 0,
        "different_concurrent_runs": 0,
    }
    assert "No int8 kernels with this risk" in of(found, "without_vnni").words
    assert [one.name for one in found.edge_inputs] == [
        *("zeros", "ones", "lowest", "highest"),
        *("smallest_batch", "largest_batch"),
    ]
    assert found.edge_inputs[-1].shapes == {"x": [32, 8]}
    assert [one.threads for one in found.latencies] == [1]


@pytest.mark.parametrize(
    ("then", "said"),
    [
        pytest.param(
            "q = Div (s, s) y = Mul (p, q)",
            "not finite where the original is: y",
            id="nan-at-zeros",
            marks=pytest.mark.long,
        ),
        pytest.param(
            "n = Constant <value_float = 100.0> () z = Constant <value_float = 0.0> () e = Equal (s, z) "
            "f = Cast <to = 1> (e) g = Mul (f, n) y = Add (p, g)",
            "far from the original",
            id="another-answer-at-zeros",
        ),
    ],
)
def test_a_file_that_breaks_at_zeros_fails_there_and_only_there(check: Check, then: str, said: str) -> None:
    found = check(product(), product(then), x=X)
    assert [one.name for one in found.failed()] == ["extreme_values"]
    (broken,) = (one for one in found.edge_inputs if one.outcome == "failed")
    assert broken.name == "zeros"
    assert said in broken.words
    assert broken.words in of(found, "extreme_values").words


def test_a_file_of_another_shape_or_that_refuses_fails(check: Check) -> None:
    """A batch of one that was baked in."""
    found = check(product(), product("t = Constant <value_ints = [1, 4]> () y = Reshape (p, t)"), x=X)
    assert of(found, "extreme_shapes").outcome == "failed"
    failed = [one for one in found.edge_inputs if one.outcome == "failed"]
    assert [one.name for one in failed] == ["largest_batch"]
    assert "The original runs it and this file does not" in failed[0].words


NOISY = "r = RandomNormalLike (p) y = Add (p, r)"


def test_random_answers_fail_unless_the_original_has_them_too(check: Check) -> None:
    found = of(check(product(), product(NOISY), x=X), "same_answers")
    assert found.outcome == "failed"
    assert found.figures["different_runs"] == found.figures["runs"]
    assert "The original's answers do not." in found.words


@pytest.mark.long
def test_where_the_original_draws_random_numbers_it_is_said(check: Check) -> None:
    found = check(product(NOISY), product(NOISY), x=X)
    same = of(found, "same_answers")
    assert same.outcome == "skipped"
    assert "So do the original's own answers. It draws random numbers: RandomNormalLike." in same.words


@pytest.mark.long
def test_a_sequence_is_tried_at_one_and_at_the_end_of_its_positions(check: Check) -> None:
    text = """network (int64[N, L] tokens) => (float[N, L, 4] y) {
        shape = Shape (tokens)
        length = Gather <axis = 0> (shape, one)
        places = Range (zero, length, one)
        words = Gather (table, tokens)
        where = Gather (positions, places)
        y = Add (words, where)
    }"""
    scalars = {"zero": np.int64(0), "one": np.int64(1)}
    model = networks.prepared(text, table=networks.normal(50, 4), positions=networks.normal(12, 4), **scalars)
    tokens = np.random.default_rng(0).integers(0, 30, (20, 6))
    found = check(model, model, tokens=tokens)
    assert set(outcomes(found).values()) == {"passed"}
    shapes = {one.name: one.shapes["tokens"] for one in found.edge_inputs}
    assert shapes["shortest L"] == [1, 1]
    assert shapes["longest L"] == [1, 12]
    assert shapes["largest_batch"] == [32, 6]


@pytest.mark.long
def test_what_the_original_refuses_is_skipped_and_said(check: Check) -> None:
    """A batch that the original itself has baked in."""
    baked = product("t = Constant <value_ints = [1, 4]> () y = Reshape (p, t)")
    found = check(baked, baked, x=X)
    (largest,) = (one for one in found.edge_inputs if one.name == "largest_batch")
    assert largest.outcome == "skipped"
    assert "The original does not run it either" in largest.words
    assert of(found, "extreme_shapes").outcome == "passed"


def test_a_file_that_does_not_load_fails_the_first_check_and_no_other_is_invented(check: Check) -> None:
    broken = product()
    broken.graph.node[0].op_type = "NoSuchOperator"
    found = check(product(), broken, x=X)
    assert of(found, "loads").outcome == "failed"
    assert "NoSuchOperator" in of(found, "loads").words
    assert {check.outcome for check in found.checks if check.name != "loads"} == {"skipped"}


def test_without_time_every_check_is_skipped_with_words(check: Check) -> None:
    found = check(product(), product(), Terms(seconds=0.5, most_threads=2), x=X)
    assert {check.outcome for check in found.checks} == {"skipped"}
    assert len(found.checks) == 7
    assert all("Raise budget_seconds" in check.words for check in found.checks)
    assert found.latencies == []
