"""ONNX Runtime's own quantization tools, with their defaults and as well as they can be used."""

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers import optimizer as transformer_optimizer

from benchmarks.tasks import Task, arrays_in, samples_of
from worker.engine.processor import needs_reduced_range


class Samples(CalibrationDataReader):
    """Calibration data as the tools read it: one sample a call, as everybody here."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._feeds = samples_of(arrays)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def static_defaults(task: dict[str, Any]) -> dict[str, Any]:
    """`quantize_static` with nothing but what it must be told."""
    one = Task(**task)
    reader = Samples(arrays_in(Path(one.calibration)))
    started = time.perf_counter()
    quantize_static(one.model, one.target, reader)
    return {"seconds": time.perf_counter() - started}


def static_best(task: dict[str, Any], operators: list[str] | None = None) -> dict[str, Any]:
    """The pair of types with fast kernels, per channel, pre-processed; `operators` where not all are wanted."""
    one = Task(**task)
    reader = Samples(arrays_in(Path(one.calibration)))
    started = time.perf_counter()
    quantize_static(
        _pre_processed(one),
        one.target,
        reader,
        op_types_to_quantize=operators,
        per_channel=True,
        reduce_range=needs_reduced_range(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return {"seconds": time.perf_counter() - started}


def dynamic(task: dict[str, Any], operators: list[str] | None = None, fuse: str | None = None) -> dict[str, Any]:
    """Weights per channel; with `fuse`, after the fusions for that kind of transformer (12 heads, 768 wide)."""
    one = Task(**task)
    started = time.perf_counter()
    model = one.model if fuse is None else _fused(one, fuse)
    quantize_dynamic(
        model,
        one.target,
        op_types_to_quantize=operators,
        per_channel=True,
        reduce_range=needs_reduced_range(),
        weight_type=QuantType.QInt8,
        # Of what comes out of a fused operator the tool knows no type; it asks for this then.
        extra_options={} if fuse is None else {"DefaultTensorType": TensorProto.FLOAT},
    )
    return {"seconds": time.perf_counter() - started}


def _pre_processed(task: Task) -> str:
    """The model prepared as the documentation advises; without symbolic shapes where their inference fails."""
    target = str(Path.cwd() / "prepared.onnx")
    with contextlib.suppress(Exception):  # it raises whatever sympy or its own assertions raise
        quant_pre_process(task.model, target)
        return target
    quant_pre_process(task.model, target, skip_symbolic_shape=True)
    return target


def _fused(task: Task, kind: str) -> str:
    target = str(Path.cwd() / "fused.onnx")
    model = transformer_optimizer.optimize_model(task.model, model_type=kind, num_heads=12, hidden_size=768)
    model.save_model_to_file(target)
    return target
