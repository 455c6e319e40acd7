"""The size of every axis of every tensor in one call: measured, for inference cannot know all of them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, shape_inference

from worker.engine.inspection.shapes import strip_weights
from worker.engine.model_file import ModelFile, save_model
from worker.engine.sessions import NONE, Feed, open_session, run_session, session_options

Sizes = dict[str, tuple[int, ...]]


def measured_sizes(model: ModelFile, feed: Feed, folder: Path, threads: int) -> Sizes:
    """By name, of every tensor that a node of the main graph makes, and of inputs and initializers.

    What is no tensor, or nothing that inference of types knows, is left out.

    Raises:
        ModelFails: the call fails.

    """
    loaded = model.load()
    names = _tensors(model)
    sizes: Sizes = {tensor.name: tuple(tensor.dims) for tensor in loaded.graph.initializer}
    sizes |= {name: tuple(array.shape) for name, array in feed.items()}
    del loaded.graph.output[:]
    for number, name in enumerate(names):
        loaded.graph.node.append(helper.make_node("Shape", [name], [f"size of {name}"], f"size {number} of {name}"))
        loaded.graph.output.append(helper.make_tensor_value_info(f"size of {name}", TensorProto.INT64, None))
    file = save_model(loaded, folder)
    del loaded
    if names:
        session = open_session(file.path, threads, session_options(threads, NONE))
        made = run_session(session, feed, [f"size of {name}" for name in names])
        sizes |= {name: tuple(int(size) for size in np.asarray(shape)) for name, shape in zip(names, made, strict=True)}
    return sizes


def _tensors(model: ModelFile) -> list[str]:
    """Names of the tensors that nodes of the main graph make, in its order."""
    structure = model.structure()
    made = [name for node in structure.graph.node for name in node.output if name]
    strip_weights(structure)
    del structure.graph.value_info[:]
    graph = shape_inference.infer_shapes(structure, check_type=False, strict_mode=False).graph
    known: dict[str, onnx.ValueInfoProto] = {value.name: value for value in [*graph.value_info, *graph.output]}
    return [name for name in made if name in known and known[name].type.HasField("tensor_type")]
