"""How much of the original is left in single tensors of a changed file."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from worker.engine.calibration.observing import FLOAT, element_counts, exposed_calls
from worker.engine.fidelity import Power
from worker.engine.model_file import ModelFile
from worker.engine.moments.reading import within_memory
from worker.engine.pass_contract import PassContext

# Of all tensors that a call hands out together: 128 MiB of each model.
EXPOSED_ELEMENTS = 32 << 20
# Samples by which a report tells of each layer: with each of them every tensor leaves the session.
LAYER_SAMPLES = 8


class Tensor(NamedTuple):
    """One that a model computes; `dtype` is a `TensorProto.DataType`."""

    name: str
    dtype: int = FLOAT


def tensor_sqnr_db(
    exact: ModelFile, made: ModelFile, pairs: Mapping[str, tuple[Tensor, Tensor]], context: PassContext, samples: int
) -> dict[str, float]:
    """Signal to noise ratio of each pair by its name, the tensor of `exact` first, over so many samples at most."""
    chosen = np.arange(min(samples, context.feeds.sample_count))
    counts = element_counts(exact, [tensor.name for tensor, _ in pairs.values()], context)
    powers = {name: Power() for name in pairs}
    for group in within_memory(pairs, lambda name: counts[pairs[name][0].name], EXPOSED_ELEMENTS):
        of_exact, of_made = (dict(pairs[name][side] for name in group) for side in (0, 1))
        exact_calls = exposed_calls(exact, of_exact, context, chosen, "layers-exact")
        made_calls = exposed_calls(made, of_made, context, chosen, "layers-made")
        for exactly, changed in zip(exact_calls, made_calls, strict=True):
            for name in group:
                before, after = pairs[name]
                powers[name].add(exactly[before.name], changed[after.name])
    return {name: power.db for name, power in powers.items()}
