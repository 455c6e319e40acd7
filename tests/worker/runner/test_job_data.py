"""What a report says of the data of a job."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from app.jobs.states import JobKind
from app.recipes.request import Metric, OptimizeRequest
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker import networks
from worker.engine.evaluation.one_call import OutputFace
from worker.engine.feeds import DataMismatch
from worker.engine.model_file import ModelFile
from worker.runner.contract import InputFile, RunnerJob
from worker.runner.job_data import JobData, check_metric, load_data

IMAGES = np.zeros((5, 3, 16, 16), np.float32)
GRAPH = [{"pass": "optimize_graph"}]


def load(
    workdir: Path, data: dict[str, dict[str, np.ndarray]], network: ModelProto | None = None, **request: Any
) -> JobData:
    """The data of a job on a small network; roles that hold the same object share a file."""
    model = ModelFile(networks.save(network or networks.convnet(), workdir / "model"))
    datasets: dict[str, InputFile] = {}
    for role, arrays in data.items():
        shared = next((known for known, other in data.items() if other is arrays and known in datasets), None)
        path = workdir / (datasets[shared].path if shared else f"{role}.npz")
        np.savez(path, allow_pickle=False, **arrays)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        datasets[role] = InputFile(
            path=path.name, media_type="application/x-npz", sha256=sha256, size_bytes=1, name=f"my {path.stem}"
        )
    body = {"model_id": str(uuid.uuid4()), "recipe": GRAPH, "data": {role: str(uuid.uuid4()) for role in data}}
    job = RunnerJob(
        kind=JobKind.OPTIMIZE,
        datasets=datasets,
        request=OptimizeRequest.model_validate(body | request),
        threads=1,
        timing_rounds=TIMING_ROUNDS,
        round_seconds=ROUND_SECONDS,
        budget_seconds=60,
        memory_bytes=1 << 30,
    )
    assert job.request is not None
    return load_data(job, job.request, model, workdir, workdir / "scratch")


def test_what_is_no_number_in_the_data_is_a_warning_of_the_report(tmp_path: Path) -> None:
    images = IMAGES.copy()
    images[1, 0, 0, 0], images[3, 2, 5, 5] = np.nan, -np.inf
    targets = np.array([0, 1, np.nan, 3, 4], np.float32)
    found = load(
        tmp_path, {"calibration": {"image": images}, "evaluation": {"image": IMAGES, "target": targets}}
    ).warnings
    assert [warning for warning in found if "NaN" in warning] == [
        "Array 'image' of dataset 'my calibration' is NaN or infinite in 2 of 5 samples.",
        "Array 'target' of dataset 'my evaluation' is NaN or infinite in 1 of 5 samples.",
    ]


def test_a_dataset_of_two_roles_is_warned_of_once(tmp_path: Path) -> None:
    both = {"image": np.full_like(IMAGES, np.inf)}
    found = load(tmp_path, {"calibration": both, "evaluation": both}).warnings
    assert sum("NaN" in warning for warning in found) == 1


GIVEN = {"image": IMAGES}
OTHER = {"image": IMAGES + 1}
STATIC, TRAINED, HALVED = ([{"pass": name}] for name in ("quantize_static", "distill", "convert_float16"))


@pytest.mark.parametrize(
    ("recipe", "roles", "told"),
    [
        (GRAPH, (), {"evaluation": "random input: 8 calls"}),
        (STATIC, (), {"calibration": "random input: 8 calls", "evaluation": "random input: 8 calls"}),
        (GRAPH, ("evaluation",), {"evaluation": "dataset 'my evaluation': 5 samples"}),
        (GRAPH, ("calibration",), {"calibration": "dataset 'my calibration': 5 samples"}),
        (GRAPH, ("calibration", "evaluation"), {"evaluation": "dataset 'my evaluation': 5 samples"}),
        (
            STATIC,
            ("calibration", "evaluation"),
            {"calibration": "dataset 'my calibration': 5 samples", "evaluation": "dataset 'my evaluation': 5 samples"},
        ),
    ],
    ids=["nothing", "nothing-to-calibrate-on", "judged", "judged-on-calibration-data", "not-calibrated", "calibrated"],
)
def test_calibration_data_is_told_of_where_it_was_used(
    recipe: list[dict[str, str]], roles: tuple[str, ...], told: dict[str, str], tmp_path: Path
) -> None:
    data = load(tmp_path, {role: dict(GIVEN) for role in roles}, recipe=recipe)
    assert data.words == told
    unused = [warning for warning in data.warnings if "No pass of the recipe calibrates" in warning]
    assert len(unused) == ("calibration" in roles and "calibration" not in told)


@pytest.mark.parametrize(
    ("recipe", "data", "held_out"),
    [
        pytest.param(STATIC, {"calibration": GIVEN, "evaluation": OTHER}, True, id="calibrated on others"),
        pytest.param(STATIC, {"calibration": GIVEN, "evaluation": GIVEN}, False, id="calibrated on the same"),
        pytest.param(STATIC, {"calibration": GIVEN, "evaluation": dict(GIVEN)}, False, id="uploaded twice"),
        pytest.param(STATIC, {"calibration": GIVEN}, False, id="calibration data alone"),
        pytest.param(HALVED, {"calibration": GIVEN}, False, id="looked at for what float16 does not hold"),
        pytest.param(STATIC, {"training": GIVEN}, False, id="calibrated on training data"),
        pytest.param(STATIC, {}, False, id="calibrated on what was made up"),
        pytest.param(STATIC, {"evaluation": GIVEN}, True, id="calibrated on what was made up beside"),
        pytest.param(TRAINED, {"training": GIVEN, "evaluation": GIVEN}, False, id="trained on the same"),
        pytest.param(TRAINED, {"training": GIVEN, "evaluation": OTHER}, True, id="trained on others"),
        pytest.param(TRAINED, {"training": GIVEN, "calibration": OTHER}, True, id="not calibrated"),
        pytest.param(GRAPH, {"calibration": GIVEN}, True, id="no pass reads any"),
    ],
)
def test_samples_that_a_pass_reads_are_not_held_out(
    recipe: list[dict[str, str]], data: dict[str, dict[str, np.ndarray]], held_out: bool, tmp_path: Path
) -> None:
    assert load(tmp_path, data, recipe=recipe).held_out is held_out


ROWS = {"image": networks.normal(8, 3, 16, 16), "label": np.arange(8)}


@pytest.mark.parametrize(
    ("recipe", "role", "seen", "left", "told"),
    [
        pytest.param(STATIC, "calibration", [1, 4], [0, 2, 3, 5, 6, 7], "the same ones: 2.", id="calibrated on some"),
        pytest.param(TRAINED, "training", [7], [0, 1, 2, 3, 4, 5, 6], "the same ones: 1.", id="trained on one"),
        pytest.param(STATIC, "training", [0], [1, 2, 3, 4, 5, 6, 7], "the same ones: 1.", id="calibrated as it trains"),
        pytest.param(GRAPH, "calibration", [1, 4], [*range(8)], None, id="no pass reads them"),
        pytest.param(STATIC, "calibration", [*range(8)], [*range(8)], "nothing was held out", id="calibrated on all"),
    ],
)
def test_samples_that_a_pass_reads_from_another_dataset_are_left_out(
    recipe: list[dict[str, str]], role: str, seen: list[int], left: list[int], told: str | None, tmp_path: Path
) -> None:
    """The files differ, and hold the same samples."""
    read = {"image": ROWS["image"][seen].astype(np.float64)}
    data = load(tmp_path, {role: read, "evaluation": ROWS}, recipe=recipe)
    assert np.array_equal(data.evaluation.arrays["image"], ROWS["image"][left])
    assert data.evaluation.sample_count == len(left)
    assert data.labels["label"].tolist() == left
    assert data.held_out is (len(seen) < 8)
    some = f"{len(left)} of 8" if len(left) < 8 else "8"
    assert data.words["evaluation"] == f"dataset 'my evaluation': {some} samples"
    words = [line for line in data.warnings if "Left out" in line or "held out" in line]
    assert len(words) == (told is not None)
    assert all(told in line and "8 samples of dataset 'my evaluation'" in line for line in words if told)


@pytest.mark.parametrize(("seen", "left"), [(1, 1000), (2, 998)])
def test_too_few_to_matter_are_told_of_and_nothing_is_copied(seen: int, left: int, tmp_path: Path) -> None:
    rows = {"image": networks.normal(1000, 3, 16, 16)}
    read = {"image": rows["image"][:seen].copy()}
    data = load(tmp_path, {"calibration": read, "evaluation": rows}, recipe=STATIC)
    assert data.held_out
    assert data.evaluation.sample_count == left
    assert (tmp_path / "scratch" / "held-out").exists() is (left < 1000)
    assert any("read 1 of 1,000 samples" in line for line in data.warnings) is (left == 1000)


@pytest.mark.parametrize("rows", ["N", "0"])
def test_an_input_without_elements_counts_no_samples(rows: str, tmp_path: Path) -> None:
    network = networks.parse(
        f"""g (float[{rows},4] x, float[0,4] state, float[0,2] other) => (float[K,4] y, float[0,2] z) {{
            y = Concat<axis = 0>(x, state)
            z = Relu(other)
        }}"""
    )
    data = load(tmp_path, {}, network)
    assert data.batch == 1
    assert next(data.evaluation.calls(data.batch)).feed["state"].shape == (0, 4)


def test_the_nodes_of_a_graph_count_no_samples(tmp_path: Path) -> None:
    network = "g (float[nodes,nodes] edges, float[nodes,16] x) => (float[nodes,16] y) { y = MatMul(edges, x) }"
    assert load(tmp_path, {}, networks.parse(network)).batch == 1


@pytest.mark.parametrize("shape", [[1 << 20, 3, 32, 16], [2**31 - 1] * 4], ids=["larger-than-memory", "beyond-numpy"])
@pytest.mark.parametrize("data", [{}, {"evaluation": GIVEN}], ids=["made-up", "bent"])
def test_a_shape_that_does_not_fit_into_memory_is_the_users_fault(
    shape: list[int], data: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataMismatch, match="values, and the job has 1,073,741,824 bytes"):
        load(tmp_path, data, target={"shapes": {"image": shape}})


@pytest.mark.parametrize(
    ("metric", "label", "told"),
    [
        ({"name": "agreement"}, "price", True),
        ({"name": "sqnr_db"}, "price", True),
        ({"name": "mae", "labels": "price"}, "price", False),
        ({"name": "agreement"}, "logits", False),
    ],
    ids=["agreement", "noise", "error", "named-as-the-output"],
)
def test_labels_that_nothing_is_measured_against_are_named(
    metric: dict[str, str], label: str, told: bool, tmp_path: Path
) -> None:
    data = load(tmp_path, {"evaluation": {"image": IMAGES, label: np.ones((5, 10), np.float32)}})
    outputs = {"logits": OutputFace(dtype="float32", shape=[1, 10])}
    words = check_metric(Metric.model_validate({"output": "logits", **metric}), data, outputs)
    assert len(words) == told
    assert all(f"the label arrays {label}:" in one and metric["name"] in one for one in words)
