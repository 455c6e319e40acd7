"""ONNX Runtime sessions, opened one way everywhere."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from worker.engine.faults import OutOfMemory, UserFault, is_out_of_memory

# Runtime warnings name nodes of the user's model on stderr; errors arrive as exceptions anyway.
ort.set_default_logger_severity(4)

Feed = dict[str, np.ndarray]
Device = Literal["cpu", "cuda"]
# What the GPU has no kernel for runs on the CPU.
PROVIDERS: dict[Device, list[str]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}
BASIC = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
EXTENDED = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
ALL = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
NONE = ort.GraphOptimizationLevel.ORT_DISABLE_ALL


class ModelFails(UserFault):
    code, title = "model_fails", "ONNX Runtime cannot run the model"


class DeviceUnavailable(UserFault):
    code, title = "device_unavailable", "The worker lacks the device that the model is meant for"


def require_device(device: Device) -> None:
    """
    Raises:
        DeviceUnavailable: this ONNX Runtime has no provider for it; the CPU would be measured in its stead.

    """
    if device == "cuda":
        _load_cuda_libraries()
    if PROVIDERS[device][0] not in ort.get_available_providers():
        raise DeviceUnavailable(
            f"The ONNX Runtime of this worker has no provider for `{device}`.",
            "Set `target.device` to cpu, or let a worker with onnxruntime-gpu serve the queue.",
        )


def require_placed(session: ort.InferenceSession, device: Device) -> None:
    """
    Raises:
        DeviceUnavailable: the runtime has its provider and could not start it, and fell back to the CPU.

    """
    if session.get_providers()[0] != PROVIDERS[device][0]:
        raise DeviceUnavailable(
            f"The ONNX Runtime of this worker could not use `{device}`: its driver, CUDA or cuDNN do not fit.",
            "Check there what `nvidia-smi` says and which CUDA onnxruntime-gpu needs, or set `target.device` to cpu.",
        )


@lru_cache(maxsize=1)
def _load_cuda_libraries() -> None:
    """CUDA and cuDNN as torch or the nvidia packages bring them: the system's loader knows nothing of those."""
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        ort.preload_dlls()


def session_options(threads: int, level: Any = ALL) -> ort.SessionOptions:
    """`threads` is the size of the one thread pool; operators run one after another."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return options


def open_session(
    path: Path, threads: int, options: ort.SessionOptions | None = None, device: Device = "cpu"
) -> ort.InferenceSession:
    """A session on `device`, and nowhere else.

    Raises:
        DeviceUnavailable: the device does not work; the CPU would be measured in its stead.
        ModelFails: the runtime refuses the model; the message is its own.
        OutOfMemory: it needs more memory than there is.

    """
    require_device(device)
    try:
        session = ort.InferenceSession(str(path), options or session_options(threads), providers=PROVIDERS[device])
    except Exception as error:  # the runtime raises a dozen classes that share no base
        raise _as_fault(error, "The model does not load") from error
    require_placed(session, device)
    session.disable_fallback()  # a call that fails on the GPU would be repeated on the CPU, and measured
    return session


def as_taken_by(session: ort.InferenceSession, feed: Feed) -> Feed:
    """A candidate may take float16 where its original takes float32."""
    halves = {value.name for value in session.get_inputs() if value.type == "tensor(float16)"}
    return {name: array.astype(np.float16) if name in halves else array for name, array in feed.items()}


def run_session(session: ort.InferenceSession, feed: Feed, outputs: list[str] | None = None) -> list[Any]:
    """The named outputs of one call; by default every output, in the order of the graph.

    Raises:
        ModelFails: the call fails; the message is the runtime's.
        OutOfMemory: it needs more memory than there is.

    """
    try:
        values: list[Any] = session.run(outputs, feed)
    except Exception as error:  # as above
        shapes = {name: list(array.shape) for name, array in feed.items()}
        raise _as_fault(error, f"A call with input shapes {shapes} fails") from error
    return values


def _as_fault(error: Exception, what: str) -> UserFault:
    message = str(error).strip().replace("\n", " ")[:2000]
    if is_out_of_memory(error):
        return OutOfMemory(f"{what}: {message}", "Use a smaller model or batch, or give the worker more memory.")
    return ModelFails(f"{what}: {message}", "Run the model on the same input in onnxruntime and fix what it reports.")
