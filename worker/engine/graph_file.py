"""A model's file as an onnx-ir graph, and back.

Apart from `model_file`, because onnx-ir takes longer to load than an inspection or a probe, which rewrite nothing, has
to do.
"""

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from worker.engine.model_file import ModelFile, save_model


def read_graph(model: ModelFile) -> ir.Model:
    """The whole model in memory, to be rewritten and written elsewhere."""
    return ir.external_data.load_to_model(ir.load(model.path))


def save_graph(model: ir.Model, folder: Path, name: str = "model") -> ModelFile:
    """As `save_model`, without the constants and nodes that nothing reads any more."""
    RemoveUnusedNodesPass()(model)
    return save_model(whole_proto(model), folder, name)


def whole_proto(model: ir.Model) -> onnx.ModelProto:
    """The graph with all of its constants: none is left in the file beside the one that it was read from."""
    return ir.to_proto(ir.external_data.load_to_model(model))
