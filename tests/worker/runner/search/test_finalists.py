"""The last measurement of the finalists, by the real probes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.jobs.report import Latency
from app.recipes.request import Metric
from tests.conftest import ROUND_SECONDS, TIMING_ROUNDS
from tests.worker import networks
from tests.worker.engine.search.grounds import trial
from worker.engine.evaluation.requests import ComparisonAnswer, TurnsAnswer
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.runner.artifacts import Artifact
from worker.runner.chain import Outcome
from worker.runner.contract import OutputFile
from worker.runner.events import Events
from worker.runner.job_data import JobData
from worker.runner.measuring import Laboratory, Share
from worker.runner.pacing import Pacing
from worker.runner.search.accepting import Bound, Delivered, Turn, measure_finalists, original_as_finalist

BOUND = Bound(Metric(name="agreement", output="logits"), 0.5, 0.95)
# More than the probes take; timing takes its share of it.
BUDGET_SECONDS = 20.0


@dataclass
class Crowded(Laboratory):
    """A machine that cannot time more than two files in one process."""

    def take_turns(self, models: list[ModelFile], share: Share | None = None) -> TurnsAnswer:
        if len(models) > 2:
            raise RuntimeError("no room")
        return super().take_turns(models, share)


@pytest.fixture
def original(tmp_path: Path) -> ModelFile:
    return ModelFile(networks.save(networks.convnet(), tmp_path / "original"))


def laboratory(original: ModelFile, kind: type[Laboratory], folder: Path, first: float = 0.0) -> Laboratory:
    """Its data are noise, but for the first number of all."""
    inputs = inputs_of(original.structure())
    images = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    images[0, 0, 0, 0] = first
    feeds = match_arrays(inputs, {"image": images}, "my data")
    one = match_arrays(inputs, {"image": images[:1]}, "my data")
    data = JobData(feeds, feeds, one, batch=1, labels={}, words={})
    return kind(folder, data, 1, "cpu", 0, Pacing(Events(), BUDGET_SECONDS), TIMING_ROUNDS, ROUND_SECONDS)


def delivered(name: str, model: onnx.ModelProto, folder: Path) -> Delivered:
    path = networks.save(model, folder / name)
    file = OutputFile(path=f"outputs/{path.name}", kind="model", file_name=path.name, media_type="x")
    found = ModelFile(path)
    return Delivered(trial(name), Outcome(found), Artifact(file, path, found, "00"), [])


def of_another_shape() -> onnx.ModelProto:
    """It runs by itself, and cannot be compared: what it returns is one longer."""
    model = networks.convnet()
    (output,) = model.graph.output
    inner = f"{output.name}-inner"
    for node in model.graph.node:
        node.output[:] = [inner if name == output.name else name for name in node.output]
    pads = onnx.numpy_helper.from_array(np.array([0, 0, 0, 1], np.int64), "pads")
    model.graph.initializer.append(pads)
    model.graph.node.append(onnx.helper.make_node("Pad", [inner, "pads"], [output.name]))
    output.type.tensor_type.ClearField("shape")
    return model


@pytest.mark.parametrize("kind", [Laboratory, Crowded])
@pytest.mark.long
def test_what_goes_wrong_with_one_finalist_costs_no_other_its_measurement(
    original: ModelFile, tmp_path: Path, kind: type[Laboratory]
) -> None:
    found = laboratory(original, kind, tmp_path / "measuring")
    ready = [
        delivered("copy", networks.convnet(), tmp_path),
        delivered("longer", of_another_shape(), tmp_path),
        delivered("shaken", networks.shaken(networks.convnet(), 0.01), tmp_path),
    ]
    warnings: list[str] = []
    turn, finalists = measure_finalists(found, found.examine(original), ready, BOUND, warnings)
    assert [one.delivered.trial.name for one in finalists] == ["copy", "shaken"]
    assert turn.latency.p50_ms > 0
    assert all(one.latency.p50_ms > 0 and one.compared.sample_count == 40 for one in finalists)
    assert [line for line in warnings if line.startswith("`longer` was left out")]


@pytest.mark.long
def test_each_is_compared_in_an_equal_share_of_what_is_not_kept_for_later(
    original: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were each given most of what is left, the last would be judged on next to no samples."""
    shares: list[tuple[float, float]] = []
    compare = Laboratory.compare

    def noting(self: Laboratory, *arguments: Any) -> ComparisonAnswer:
        shares.append((arguments[-1].seconds, self.pacing.seconds_left()))
        return compare(self, *arguments)

    monkeypatch.setattr(Laboratory, "compare", noting)
    found = laboratory(original, Laboratory, tmp_path / "measuring")
    ready = [delivered(name, networks.convnet(), tmp_path) for name in ("one", "another")]
    measure_finalists(found, found.examine(original), ready, BOUND, [], kept_seconds=2.0)
    (first, before), (last, left) = shares
    assert first == pytest.approx((before - 2) / 2, abs=0.1)
    assert last == pytest.approx(left - 2, abs=0.1)


def test_what_is_to_be_said_of_the_data_is_said_where_there_are_no_finalists(
    original: ModelFile, tmp_path: Path
) -> None:
    found = laboratory(original, Laboratory, tmp_path / "measuring", first=np.nan)
    latency = Latency(p50_ms=1, p90_ms=1, p99_ms=1, mean_ms=1, call_count=1, round_medians_ms=[1])
    warnings: list[str] = []
    untouched = delivered("original", networks.convnet(), tmp_path)
    original_as_finalist(found, found.examine(original), untouched, Turn(latency, 1.0), BOUND, warnings)
    assert any("'logits' of the original is NaN or infinite in 1 of 40 samples" in line for line in warnings)
