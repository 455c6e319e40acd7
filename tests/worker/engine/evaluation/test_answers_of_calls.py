"""An output without an axis of samples is one answer a call, however many samples the call's fixed batch takes."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.evaluation.comparing import comparison
from worker.engine.evaluation.acceptance import decide, least_samples
from worker.engine.evaluation.comparison import compare

# The last of five calls is padded.
COUNT, CALLS = 36, 5
X = networks.normal(COUNT, 4)
TEXT = (
    "agraph (float[8, 4] x) => (float[4] y, float[8, 4] each)"
    " { mean = ReduceMean <axes = [0], keepdims = 0> (x) y = Mul (mean, scale) each = Mul (x, scale) }"
)


@pytest.mark.parametrize(
    ("output", "metric", "scored"),
    [
        ("y", "agreement", CALLS),
        ("y", "sqnr_db", CALLS),
        ("y", "top1", CALLS),
        ("y", "f1", CALLS),
        ("each", "agreement", COUNT),
        ("each", "sqnr_db", COUNT),
        ("each", "f1", COUNT),
    ],
)
def test_it_counts_once_a_call(tmp_path: Path, output: str, metric: str, scored: int) -> None:
    models = (networks.holding(TEXT, scale=np.float32(1.0)), networks.holding(TEXT, scale=np.float32(1.01)))
    asked = {"name": metric, "output": output} | ({"labels": "label"} if metric in ("top1", "f1") else {})
    labels = {"label": np.argmax(X, axis=1)} if "labels" in asked else {}
    found = compare(comparison(tmp_path, models, {"x": X}, asked, labels))
    assert (found.sample_count, found.scored_samples) == (COUNT, scored)
    assert {one.sample_count for one in found.candidate if one.output == output} == {scored}
    assert any("counts once a call" in warning and "'y'" in warning for warning in found.warnings)
    if metric == "sqnr_db":
        assert found.metric_candidate == pytest.approx(40, abs=0.01)
        # What is asked for is samples of data, of which a call takes several.
        needed, least = decide(found, metric, 0.01, 0.95).samples_needed, least_samples(metric, 0.01, 0.95)
        assert needed is not None
        assert needed * scored // COUNT >= least
    else:
        assert found.drop == 0


def test_all_samples_of_a_call_share_what_is_wrong_with_its_answer(tmp_path: Path) -> None:
    text = TEXT.replace("y = Mul (mean, scale)", "none = Sub (mean, mean) y = Div (none, none)")
    model = networks.holding(text, scale=np.float32(1.0))
    asked = {"name": "agreement", "output": "each"}
    warnings = compare(comparison(tmp_path, (model, model), {"x": X}, asked)).warnings
    assert f"Output 'y' of the original is NaN or infinite in {COUNT} of {COUNT} samples." in warnings
