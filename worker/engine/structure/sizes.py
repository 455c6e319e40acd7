"""The size of every axis of every tensor in one call: measured, for inference cannot know all of them."""

import shutil
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, shape_inference

from worker.engine.inspection.shapes import strip_weights
from worker.engine.model_file import ModelFile, save_model
from worker.engine.sessions import NONE, Feed, open_session, run_session, session_options

Sizes = dict[str, tuple[int, ...]]


def measured_sizes(model: ModelFile, feed: Feed, folder: Path, threads: int) -> Sizes:
    """By name, of every tensor that a node of the main graph makes, and of inputs and initializers.

    What is no tensor, as sequences are none, is left out.

    Raises:
        ModelFails: the call fails.

    """
    loaded = model.load()
    sizes: Sizes = {tensor.name: tuple(tensor.dims) for tensor in loaded.graph.initializer}
    sizes |= {name: tuple(array.shape) for name, array in feed.items()}
    names = _tensors(model, loaded, folder / "types", threads)
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


def _tensors(model: ModelFile, loaded: ModelProto, folder: Path, threads: int) -> list[str]:
    """Names of the tensors that nodes of the main graph make, in its order.

    Inference knows most; of the others the runtime tells, as behind operators of its own and a GroupNormalization.
    """
    structure = model.structure()
    made = [name for node in structure.graph.node for name in node.output if name]
    strip_weights(structure)
    del structure.graph.value_info[:]
    graph = shape_inference.infer_shapes(structure, check_type=False, strict_mode=False).graph
    kinds = {value.name: value.type.WhichOneof("value") for value in [*graph.value_info, *graph.output]}
    tensors = {name for name, kind in kinds.items() if kind == "tensor_type"}
    unknown = [name for name in made if kinds.get(name) is None]
    if unknown:
        tensors |= _tensors_at_runtime(loaded, unknown, folder, threads)
    return [name for name in made if name in tensors]


def _tensors_at_runtime(loaded: ModelProto, names: list[str], folder: Path, threads: int) -> set[str]:
    """Those of these values that the runtime takes for tensors. `loaded` loses its outputs."""
    del loaded.graph.output[:]
    for name in names:
        loaded.graph.output.add(name=name)
    session = open_session(save_model(loaded, folder).path, threads, session_options(threads, NONE))
    shutil.rmtree(folder)
    return {value.name for value in session.get_outputs() if value.type.startswith("tensor(")}
