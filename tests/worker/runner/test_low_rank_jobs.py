"""Low rank as a job asks for it: what is delivered, what the report says of every node, and what may follow."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.datasets import load_digits

from tests.worker import networks
from tests.worker.networks import normal
from tests.worker.runner.optimizing import optimize

FEATURES = 512
PASS = {"pass": "factorize_low_rank", "objective": "size", "fidelity_floor_db": 15}


@pytest.fixture(scope="module")
def digits() -> tuple[onnx.ModelProto, dict[str, dict[str, np.ndarray]]]:
    """Many random features of 64 pixels, which have far fewer dimensions, and a head solved by ridge regression."""
    found = load_digits()
    pixels, labels = (found.data / 16).astype(np.float32), found.target
    weights = normal(64, FEATURES) / np.float32(4)
    features = np.maximum(pixels[:900] @ weights, 0)
    gram = features.T @ features + 30 * np.eye(FEATURES, dtype=np.float32)
    head = np.linalg.solve(gram, features.T @ np.eye(10, dtype=np.float32)[labels[:900]]).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["pixels", "weights"], ["wide"], "wide"),
        helper.make_node("Relu", ["wide"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "head"], ["logits"], "head"),
    ]
    floats = TensorProto.FLOAT
    inputs: dict[str, Any] = {"pixels": (floats, ["N", 64])}
    outputs: dict[str, Any] = {"logits": (floats, ["N", 10])}
    model = networks.assemble(nodes, inputs, outputs, {"weights": weights, "head": head})
    evaluation = {"pixels": pixels[900:], "label": labels[900:]}
    return model, {"calibration": {"pixels": pixels[:600]}, "evaluation": evaluation}


def test_a_smaller_file_within_the_contract_is_delivered(
    digits: tuple[onnx.ModelProto, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    result = optimize(tmp_path / "w", *digits, recipe=[PASS], contract={"max_drop": 0.02})
    assert result.verdict is not None
    assert result.verdict.outcome == "met", result.verdict.reason
    report = result.report
    assert report is not None
    assert report.steps[0].modified, report.steps[0].notes
    assert report.candidates[0].measurement.size_bytes < report.baseline.size_bytes
    (step,) = report.steps
    wide = next(layer for layer in step.layers if layer.name == "wide")
    assert wide.factors is not None
    assert wide.factors.shape == [64, FEATURES]
    assert wide.factors.parameters_after < 0.7 * wide.factors.parameters_before
    assert report.data["calibration"].startswith("dataset")
    assert result.report.manifest["passes"][0]["replay"]["given"][0]["node"] == "wide"


@pytest.mark.long
def test_what_was_factored_is_quantized_as_well(
    digits: tuple[onnx.ModelProto, dict[str, dict[str, np.ndarray]]], tmp_path: Path
) -> None:
    recipe = [PASS, {"pass": "quantize_weights", "minimum_elements": 1}]
    result = optimize(tmp_path / "w", *digits, recipe=recipe, contract={"max_drop": 0.03})
    assert result.report is not None
    assert [step.modified for step in result.report.steps] == [True, True]
    assert result.verdict is not None
    assert result.verdict.outcome == "met", result.verdict.reason
