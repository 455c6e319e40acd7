"""NNCF's post-training quantization of ONNX models: https://github.com/openvinotoolkit/nncf."""

import time
from pathlib import Path
from typing import Any

import nncf
import onnx

from benchmarks.tasks import Task, arrays_in, samples_of


def quantize(task: dict[str, Any], transformer: bool = False) -> dict[str, Any]:
    """`nncf.quantize` with its defaults, over all calibration samples; `transformer` tells it that it is one."""
    one = Task(**task)
    feeds = list(samples_of(arrays_in(Path(one.calibration))))
    started = time.perf_counter()
    made = nncf.quantize(
        onnx.load(one.model),
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    onnx.save(made, one.target)
    return {"seconds": time.perf_counter() - started}
