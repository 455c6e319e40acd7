"""Whether ONNX Runtime loads a model."""

import re
from pathlib import Path

import onnxruntime

from worker.engine.faults import OutOfMemory, is_out_of_memory
from worker.engine.model_faults import UnloadableModel

SILENT = 4
MAX_MESSAGE_CHARACTERS = 600


def load(path: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU with one thread that computes nothing at load: no folding, no fusing, no repacking.

    Raises:
        UnloadableModel: with ONNX Runtime's own message.
        OutOfMemory: the model does not fit.

    """
    try:
        return onnxruntime.InferenceSession(path, _options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # the binding's exceptions share no base class of their own
        message = readable(str(error), path)
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"ONNX Runtime could not load the model: {message}", "Give the service's runners more memory."
            ) from error
        raise UnloadableModel(
            f"ONNX Runtime {onnxruntime.__version__} says: {message}",
            "Check the file with onnx.checker.check_model and with this version of onnxruntime.",
        ) from error


def output_shapes(model: bytes) -> dict[str, list[int | str | None]]:
    """Shapes that ONNX Runtime infers for the outputs; empty where it does not load the model.

    A scalar is left out: the runtime tells it from an unknown rank no more than its callers could.
    """
    try:
        session = onnxruntime.InferenceSession(model, _options(), providers=["CPUExecutionProvider"])
    except Exception:  # as above; the model itself was loaded before, so this costs no more than an unknown shape
        return {}
    return {value.name: list(value.shape) for value in session.get_outputs() if value.shape}


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    # Repacking would read every weight, which for external data means every page of its file.
    options.add_session_config_entry("session.disable_prepacking", "1")
    onnxruntime.set_default_logger_severity(SILENT)
    return options


def readable(message: str, path: Path) -> str:
    """ONNX Runtime's message without its prefix, its source lines and the paths of this machine."""
    message = message.replace(str(path), path.name).replace(str(path.parent), "")
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message)
    message = re.sub(r"/\S+/(?=[\w.]+\.(?:cc|h):\d+)", "", message)
    return " ".join(message.split())[:MAX_MESSAGE_CHARACTERS]
