"""What a LayerNormalization reads is summed by Sum, which the runtime does not fuse into a slower kernel."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.engine.rewrites.applying import apply
from tests.worker.networks import normal, prepared
from worker.engine.model_file import ModelFile
from worker.engine.optimized import write_optimized
from worker.engine.preparation import operator_counts
from worker.engine.rewrites.residual_sum import keep_sums_apart
from worker.engine.sessions import ALL

TOKENS = "float[2,5,8]"
PARAMETERS = {"scale": normal(8, seed=1), "offset": normal(8, seed=2)}
TWO = f"network ({TOKENS} a, {TOKENS} b) => ({TOKENS} y)"
RESIDUAL = TWO + "{ s = Add(a, b) y = LayerNormalization(s, scale, offset) }"


def test_the_runtime_fuses_nothing_into_the_normalization(tmp_path: Path) -> None:
    """As Add it does: the fused kernel is what this is against."""
    before = prepared(RESIDUAL, opset=17, **PARAMETERS)
    found = apply(keep_sums_apart, before)
    assert (found.count, found.operators) == (1, {"Sum": 1, "LayerNormalization": 1})
    ran = []
    for name, model in (("before", before), ("after", found.model)):
        file = ModelFile(networks.save(model, tmp_path / name))
        made = write_optimized(file, tmp_path / f"{name}-optimized" / "model.onnx", 1, ALL)
        ran.append(operator_counts(made.structure()))
    assert ran == [{"SkipLayerNormalization": 1}, {"Sum": 1, "LayerNormalization": 1}]


@pytest.mark.parametrize(
    "text",
    [
        f"network ({TOKENS} a) => ({TOKENS} y) {{ s = Add(a, row) y = LayerNormalization(s, scale, offset) }}",
        TWO + "{ s = Add(a, b) y = Relu(s) }",
        TWO + "{ s = Mul(a, b) y = LayerNormalization(s, scale, offset) }",
    ],
    ids=["bias", "no-normalization", "no-sum"],
)
def test_any_other_node_is_left_alone(text: str) -> None:
    model = prepared(text, opset=17, row=np.ones(8, np.float32), **PARAMETERS)
    assert apply(keep_sums_apart, model).count == 0
