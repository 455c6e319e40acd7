"""An `auto` job, end to end in this process: candidates are built, measured and accepted for real."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.jobs.report import Report
from tests.worker import networks
from tests.worker.runner.optimizing import optimize
from worker.runner.contract import RunnerResult

# Time for a few candidates on a machine that does much else.
BUDGET = 40.0


def samples(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": networks.normal(count, 3, 16, 16, seed=seed)}


def wide() -> onnx.ModelProto:
    """Large enough for 8 bits to make the file smaller."""
    return networks.perceptron(width=256)


def labelled(model: onnx.ModelProto, count: int) -> dict[str, np.ndarray]:
    """Rows, and what the model itself says of them: it is right every time, so every change is a loss."""
    given = {"x": networks.normal(count, 8)}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, given)
    return {**given, "label": np.asarray(scores).argmax(axis=1)}


def searched(
    workdir: Path, model: onnx.ModelProto, data: dict[str, dict[str, np.ndarray]], **body: Any
) -> tuple[RunnerResult, Report]:
    result = optimize(workdir, model, data, BUDGET, recipe="auto", **body)
    assert result.outcome == "succeeded", result.fault
    assert result.report is not None
    return result, result.report


# By size: what is smaller is so on a busy machine as well. Memory of such small models is what the runtime takes.
@pytest.mark.parametrize(
    "objective",
    [
        pytest.param("size", id="size"),
        pytest.param({"size": 1.0, "memory": 0.1}, id="size and memory", marks=pytest.mark.long),
    ],
)
def test_the_front_is_delivered_with_its_reasons(objective: str | dict[str, float], tmp_path: Path) -> None:
    model = wide()
    passes = ["optimize_graph", "quantize_static", "quantize_weights"]
    search = {"passes": passes, "max_trials": 3}
    body = {"search": search, "objective": objective, "contract": {"max_drop": 0.05}}
    result, report = searched(tmp_path, model, {"evaluation": labelled(model, 1600)}, **body)
    assert report.search is not None
    # Three roles, no sample in two of them.
    assert {role: words.rpartition(": ")[2] for role, words in report.data.items()} == {
        "calibration": "400 of 1,600 samples",
        "selection": "400 of 1,600 samples",
        "evaluation": "800 of 1,600 samples",
    }
    winner = report.candidates[0]
    assert winner.request is not None
    assert winner.request["search"] == {"given": [winner.passes], "training": False}
    assert report.search.front == [one.name for one in report.candidates]
    assert {one.outcome for one in report.search.trials if one.name == winner.name} <= {"winner"}
    assert all(one.explanation for one in report.search.trials)
    built = [one for one in report.search.trials if one.outcome != "failed"]
    assert {one.memory_ratio is not None for one in built} == {"memory" in objective}
    assert any(winner.name in line for line in report.search.explanation)
    files = {one.file_name: tmp_path / one.path for one in result.artifacts if one.kind == "model"}
    assert [one.file_name for one in report.candidates] == list(files)
    for one in report.candidates:
        assert files[one.file_name].stat().st_size == one.measurement.size_bytes
        assert one.verdict is not None
    for one in winner.measurement.quality:
        assert one.sample_count == 800
    assert result.verdict is not None
    assert result.verdict.outcome == "met"
    assert "At 0.95 confidence" in result.verdict.reason


@pytest.mark.long
@pytest.mark.parametrize("method", ["quantize_weights", "quantize_static"])
def test_a_candidate_of_the_front_comes_out_the_same_when_it_is_given(method: str, tmp_path: Path) -> None:
    model = wide()
    data = {"evaluation": {"x": networks.normal(200, 8)}}
    search = {"passes": [method], "max_trials": 1}
    _, report = searched(tmp_path / "search", model, data, search=search, objective="size", contract={"max_drop": 0.5})
    first = report.candidates[0]
    manifest = report.manifest
    given = [step.get("replay", asked) for asked, step in zip(manifest["recipe"], manifest["passes"], strict=True)]
    assert given
    _, again = searched(tmp_path / "again", model, data, search={"given": [given]}, objective="size")
    assert first.sha256 in {one.sha256 for one in again.candidates}
    # And by what the report itself says of it, with the samples that calibrate set aside as they were.
    assert first.request is not None
    asked = {name: said for name, said in first.request.items() if name != "data"}
    alone = optimize(tmp_path / "alone", model, data, BUDGET, **asked)
    assert alone.report is not None, alone.fault
    assert first.sha256 in {one.sha256 for one in alone.report.candidates}


@pytest.mark.parametrize(
    ("count", "outcome"),
    [
        pytest.param(0, {"undecidable", "met"}, id="no data"),
        pytest.param(1, {"undecidable", "met"}, id="one sample", marks=pytest.mark.long),
    ],
)
def test_little_data_ends_well_and_in_words(tmp_path: Path, count: int, outcome: set[str]) -> None:
    data = {"evaluation": samples(count)} if count else {}
    search = {"passes": ["optimize_graph", "quantize_static"], "max_trials": 2}
    result, report = searched(tmp_path, networks.convnet(), data, search=search)
    assert result.verdict is not None
    assert result.verdict.outcome in outcome
    words = " ".join(report.warnings)
    assert "too few to divide" in words if count else "No data was given" in words


def test_where_nothing_keeps_the_contract_the_original_is_delivered(tmp_path: Path) -> None:
    model = networks.convnet()
    body = {"metric": {"name": "sqnr_db"}, "contract": {"floor": 120.0}}
    search = {"passes": ["quantize_static"], "max_trials": 1}
    result, report = searched(tmp_path, model, {"evaluation": samples(64)}, search=search, **body)
    delivered = tmp_path / result.artifacts[0].path
    assert delivered.read_bytes() == model.SerializeToString()
    assert report.search is not None
    assert {one.outcome for one in report.search.trials} == {"broken"}
    assert "the original is delivered" in report.search.explanation[0]
    assert report.candidates[0].latency_ratio.value == 1.0


def test_a_model_that_no_pass_can_work_on_ends_well(tmp_path: Path) -> None:
    model = networks.parse("agraph (float[N, 4] x) => (float[N, 4] y) { y = Neg (x) }")
    search = {"passes": ["optimize_graph", "quantize_static", "quantize_dynamic", "prune_structured"]}
    data = {"evaluation": {"x": networks.normal(50, 4)}}
    result, report = searched(tmp_path, model, data, search=search, deployment_check=True)
    assert report.search is not None
    assert result.verdict is not None
    assert result.verdict.outcome == "met"
    assert {one.outcome for one in report.search.trials} == {"failed"}
    assert report.deployment is None
    assert [line for line in report.warnings if "the deployment check" in line]


@pytest.mark.long
def test_a_picture_that_cannot_be_drawn_is_a_warning(tmp_path: Path) -> None:
    model = networks.parse("agraph (float[N, 4] x) => (float[N, 4] y) { y = Neg (x) }")
    (tmp_path / "outputs" / "front.png").mkdir(parents=True)  # where the picture would go
    search = {"passes": ["optimize_graph"]}
    result, report = searched(tmp_path, model, {"evaluation": {"x": networks.normal(50, 4)}}, search=search)
    assert [one.kind for one in result.artifacts] == ["model", "manifest"]
    assert any("picture of the front could not be drawn" in line for line in report.warnings)
