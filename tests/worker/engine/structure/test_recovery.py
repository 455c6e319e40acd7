"""What was cut is made up for by what is left, as far as the data says that it can be."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine.fidelity import measure_fidelity
from worker.engine.model_file import ModelFile
from worker.engine.structure.recovery import recovered

SAMPLES = 128
UNSEEN = np.arange(96, SAMPLES)
HALF = np.arange(8)
CONVOLUTIONS = (
    "network (float[N,3,8,8] x) => (float[N,4] y) "
    "{ c = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(c) d = Conv<pads = [1, 1, 1, 1]>(r, v) "
    "b = BatchNormalization(d, s, t, m, q) e = Relu(b) p = GlobalAveragePool(e) f = Flatten(p) y = Gemm(f, h, k) }"
)
PERCEPTRON = (
    "network (float[N,12] x) => (float[N,4] y) { a = MatMul(x, w) b = Add(a, k) r = Relu(b) c = MatMul(r, v) "
    "y = Add(c, h) }"
)


def _doubled(*shape: int, axis: int) -> np.ndarray:
    """Every channel of the first half once more, a little other."""
    first = normal(*shape)
    return np.concatenate([first, first + normal(*shape, seed=9) * np.float32(0.05)], axis)


def _fidelities(
    original: ModelFile, pruned: ModelFile, cut: str, context: SamplesContext, **arrays: np.ndarray
) -> tuple[float, float]:
    """SQNR in dB on samples that were not fitted to, before and after; of the value `cut` a half is left."""
    given = context(original.load(), **arrays)
    result = recovered(original, pruned, {cut: HALF}, given, given.scratch / "result")
    assert result.model.path.parent == given.scratch / "result"
    before, after = (measure_fidelity(original, one, given, UNSEEN) for one in (pruned, result.model))
    return before.sqnr_db, after.sqnr_db


@pytest.fixture
def constants() -> dict[str, np.ndarray]:
    return {
        "w": _doubled(8, 3, 3, 3, axis=0),
        "v": normal(6, 16, 3, 3, seed=1),
        "s": np.ones(6, np.float32),
        "t": normal(6, seed=2),
        "m": normal(6, seed=3),
        "q": np.full(6, 60, np.float32),
        "h": normal(6, 4, seed=4),
        "k": normal(4, seed=5),
    }


def test_channels_that_others_resemble_are_made_up_for(
    saved: Callable[..., ModelFile], context: SamplesContext, constants: dict[str, np.ndarray]
) -> None:
    original = saved(prepared(CONVOLUTIONS, **constants), "float")
    cut = constants | {"w": constants["w"][HALF], "v": constants["v"][:, HALF]}
    pruned = saved(prepared(CONVOLUTIONS, **cut), "cut")
    before, after = _fidelities(original, pruned, "c", context, x=normal(SAMPLES, 3, 8, 8, seed=6))
    # Copies differ by a twentieth, 26 dB; half of what the second layer summed is missing at first.
    assert before < 10
    assert after > 25


def test_the_mean_of_what_is_gone_goes_into_a_bias_behind_the_product(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    # Units that are on and hardly move: all that they give is a constant.
    bias = np.concatenate([np.zeros(8), np.full(8, 50)]).astype(np.float32)
    constants = {"w": normal(12, 16), "k": bias, "v": normal(16, 4, seed=1), "h": normal(4, seed=2)}
    original = saved(prepared(PERCEPTRON, **constants), "float")
    cut = constants | {"w": constants["w"][:, HALF], "k": bias[HALF], "v": constants["v"][HALF]}
    pruned = saved(prepared(PERCEPTRON, **cut), "cut")
    before, after = _fidelities(original, pruned, "a", context, x=normal(SAMPLES, 12, seed=6))
    # Without the bias the outputs are off by more than themselves; of the signal around it a part is gone for good.
    assert before < 5
    assert after > 20


def test_batch_normalization_behind_other_layers_gets_statistics_of_what_it_is_fed(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    text = (
        "network (float[N,3,8,8] x) => (float[N,4] y) "
        "{ c = Conv(x, w) r = Relu(c) d = Conv<group = 4>(r, v) "
        "b = BatchNormalization(d, s, t, m, q) e = Relu(b) p = GlobalAveragePool(e) f = Flatten(p) y = Gemm(f, h) }"
    )
    constants = {
        "w": _doubled(8, 3, 3, 3, axis=0),
        "v": np.abs(normal(4, 4, 1, 1, seed=1)),
        "s": np.ones(4, np.float32),
        "t": np.zeros(4, np.float32),
        "m": np.full(4, 9, np.float32),
        "q": np.full(4, 30, np.float32),
        "h": normal(4, 4, seed=4),
    }
    original = saved(prepared(text, **constants), "float")
    # Two of the four channels of every group are left.
    left = np.array([0, 1, 4, 5, 8, 9, 12, 13])
    pruned = saved(prepared(text, **constants | {"w": constants["w"][left], "v": constants["v"][:, :2]}), "cut")
    given = context(original.load(), x=normal(SAMPLES, 3, 8, 8, seed=6))
    result = recovered(original, pruned, {"c": left}, given, given.scratch / "result")
    before, after = (measure_fidelity(original, one, given, UNSEEN) for one in (pruned, result.model))
    # Sums of half as many terms are smaller; normalized as they are now, they are as large as before.
    assert before.sqnr_db < 10
    assert after.sqnr_db > before.sqnr_db + 3


def test_a_model_that_lost_nothing_stays_as_it_is(
    saved: Callable[..., ModelFile], context: SamplesContext, constants: dict[str, np.ndarray]
) -> None:
    original = saved(prepared(CONVOLUTIONS, **constants), "float")
    given = context(original.load(), x=normal(SAMPLES, 3, 8, 8, seed=6))
    result = recovered(original, original, {}, given, given.scratch / "result")
    assert result.model is original
