"""Which 8-bit products could overflow 16 bits on a processor without VNNI."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from app.jobs.report import DeploymentCheck
from tests.worker import networks
from worker.engine.deployment.judging import judge_saturation
from worker.engine.deployment.saturation_risk import saturation_risk
from worker.engine.model_file import ModelFile

Saved = Callable[..., ModelFile]
SAFE = np.array([[64, 1], [64, 2], [127, 3], [-127, 4]], np.int8)
RISKY = np.array([[64, 1], [64, 2], [127, 3], [127, 4]], np.int8)


def int8_product(weight: np.ndarray) -> onnx.ModelProto:
    """`x` (N, 4), codes 0 .. 255 for 0 .. 255, times int8 `(4, 2)`, as Q/DQ."""
    text = """network (float[N, 4] x) => (float[N, 2] y) {
        q = QuantizeLinear (x, one, zero)  d = DequantizeLinear (q, one, zero)
        v = DequantizeLinear (w, one, weight_zero)
        p = MatMul (d, v)
        c = QuantizeLinear (p, large, zero)  y = DequantizeLinear (c, large, zero)
    }"""
    constants = {"one": np.float32(1), "large": np.float32(256), "zero": np.uint8(0), "weight_zero": np.int8(0)}
    return networks.prepared(text, w=weight, **constants)


def risk_of(model: ModelFile, x: np.ndarray, folder: Path) -> DeploymentCheck:
    return judge_saturation(saturation_risk(model, [{"x": x.astype(np.float32)}], 1, folder / "risk"), False)


def test_a_pair_that_overflows_is_found_with_how_much(saved: Saved, tmp_path: Path) -> None:
    model = saved(int8_product(RISKY))
    (found,) = saturation_risk(model, [{"x": np.full((1, 4), 255, np.float32)}], 1, tmp_path / "risk").at_risk
    assert found.largest_code == 255
    # 255 x (127 + 127), where 2^15 - 1 is the most; one of four pairs of weights.
    assert found.excess == pytest.approx(255 * 254 / 32767)
    assert found.pair_share == 0.25


@pytest.mark.parametrize(
    ("weight", "largest", "words"),
    [
        pytest.param(
            SAFE,
            255,
            "None of 1 int8 products can saturate on a processor without VNNI.",
            id="weights-that-fit",
        ),
        pytest.param(
            RISKY,
            128,
            "None of 1 int8 products saturates on a processor without VNNI at the activations seen here; 1 could at "
            "larger ones.",
            id="activations-that-stayed-small",
        ),
    ],
)
def test_what_does_not_overflow_is_no_risk(
    saved: Saved, tmp_path: Path, weight: np.ndarray, largest: int, words: str
) -> None:
    found = risk_of(saved(int8_product(weight)), np.full((1, 4), largest), tmp_path)
    assert found.outcome == "passed"
    assert found.words == words


def test_it_fails_where_this_processor_is_the_one_that_saturates(saved: Saved, tmp_path: Path) -> None:
    model = saved(int8_product(RISKY))
    risk = saturation_risk(model, [{"x": np.full((1, 4), 255, np.float32)}], 1, tmp_path / "risk")
    assert [judge_saturation(risk, here).outcome for here in (False, True)] == ["passed", "failed"]
    assert "1 of 1 int8 products may saturate" in judge_saturation(risk, False).words


def test_weights_quantized_for_dynamic_kernels_are_looked_at_too(saved: Saved, tmp_path: Path) -> None:
    """They quantize what they read by themselves, and then reach 255 always."""
    text = """network (float[N, 4] x) => (float[N, 2] y) {
        q, scale, zero = DynamicQuantizeLinear (x)
        p = MatMulInteger (q, w, zero)
        f = Cast <to = 1> (p)  y = Mul (f, scale)
    }"""
    found = risk_of(saved(networks.prepared(text, w=RISKY)), np.arange(4)[None], tmp_path)
    assert found.figures["nodes_at_risk"] == 1


def test_a_float_model_has_no_such_kernels(saved: Saved, tmp_path: Path) -> None:
    model = networks.prepared(
        "network (float[N, 4] x) => (float[N, 2] y) { y = MatMul (x, w) }", w=networks.normal(4, 2)
    )
    assert "No int8 kernels with this risk" in risk_of(saved(model), np.ones((1, 4)), tmp_path).words
