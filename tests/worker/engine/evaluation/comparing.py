"""What the comparison of two files is asked, where a test has nothing special to ask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from app.recipes.request import Metric
from tests.worker import networks
from worker.engine.evaluation.requests import Comparison
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.stored_arrays import ArrayStore


def comparison(
    folder: Path,
    models: tuple[onnx.ModelProto, onnx.ModelProto],
    arrays: Mapping[str, np.ndarray],
    metric: Mapping[str, Any],
    labels: Mapping[str, np.ndarray] | None = None,
    batch: int = 1,
) -> Comparison:
    """Of an original and its candidate, on all samples of `arrays`; files and arrays are kept in `folder`."""
    store = ArrayStore(folder / "store")
    original, candidate = (
        networks.save(model, folder / name) for model, name in zip(models, ("original", "candidate"), strict=True)
    )
    return Comparison(
        original=str(original),
        candidate=str(candidate),
        feed=match_arrays(inputs_of(models[0]), dict(arrays), "data").describe(store),
        labels={name: store.keep(array) for name, array in (labels or {}).items()},
        metric=Metric.model_validate(metric),
        threads=1,
        batch=batch,
        seconds=30,
        seed=0,
    )
