"""The graph as ONNX Runtime optimizes it, written to a file instead of being thrown away with the session.

https://onnxruntime.ai/docs/performance/model-optimizations/graph-optimizations.html, offline mode;
https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html
"""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from worker.engine.model_file import MAX_SINGLE_FILE_BYTES, ModelFile
from worker.engine.sessions import ModelFails, open_session, session_options

ORT_SUFFIX = ".ort"


def write_optimized(
    model: ModelFile, target: Path, threads: int, level: Any, constants_apart: bool = False
) -> ModelFile:
    """The graph at `level`, in a new folder; the suffix of `target`, .onnx or .ort, chooses the format.

    With `constants_apart` an .onnx has its constants beside it, as it has them anyway where one file cannot hold them.

    Raises:
        ModelFails: the runtime refuses the model, or cannot write it.
        OSError: there is no room for it; the runtime does not say that it is this.

    """
    options = session_options(threads, level)
    target.parent.mkdir(parents=True)
    options.optimized_model_filepath = str(target)
    if target.suffix == ORT_SUFFIX:
        options.add_session_config_entry("session.save_model_format", "ORT")
    elif constants_apart or model.size_bytes() > MAX_SINGLE_FILE_BYTES:
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{target.name}.data"
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        open_session(model.path, threads, options)
    except ModelFails as error:
        if shutil.disk_usage(target.parent).free < model.size_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise
    return ModelFile(target)
