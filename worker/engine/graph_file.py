"""A model's file as an onnx-ir graph, and back.

Apart from `model_file`, because onnx-ir takes longer to load than an inspection or a probe, which rewrite nothing, has
to do.
"""

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from worker.engine.graph import STANDARD_DOMAINS
from worker.engine.inspection import walk
from worker.engine.model_file import ModelFile, save_model


def read_graph(model: ModelFile) -> ir.Model:
    """The whole model in memory, to be rewritten and written elsewhere."""
    graph = graph_of(model.structure())
    ir.external_data.set_base_dir(graph.graph, model.path.parent)
    return ir.external_data.load_to_model(graph)


def graph_of(model: onnx.ModelProto) -> ir.Model:
    """Without the types of maps, which onnx-ir refuses: the runtime infers them, and `restore_face` puts them back."""
    for part in walk.all_graphs(model):
        for value in (*part.output, *part.value_info):
            if _holds_map(value.type):
                value.ClearField("type")
    return with_plain_domain(ir.from_proto(model))


def with_plain_domain(model: ir.Model) -> ir.Model:
    """`model` itself, the version of its standard operators under `""`, where readers look it up.

    A file may call that domain `ai.onnx`, and onnx-ir gives the plain name to nodes alone.
    """
    for opsets in (model.opset_imports, *(function.opset_imports for function in model.functions.values())):
        versions = [opsets.pop(domain) for domain in STANDARD_DOMAINS & opsets.keys()]
        if versions:
            opsets[""] = max(versions)
    return model


def _holds_map(kind: onnx.TypeProto) -> bool:
    """A map, or a sequence or an option of them."""
    inner = {"sequence_type": kind.sequence_type, "optional_type": kind.optional_type}.get(kind.WhichOneof("value"))
    return kind.HasField("map_type") or (inner is not None and _holds_map(inner.elem_type))


def save_graph(model: ir.Model, folder: Path, name: str = "model") -> ModelFile:
    """As `save_model`, without the constants and nodes that nothing reads any more."""
    RemoveUnusedNodesPass()(model)
    return save_model(whole_proto(model), folder, name)


def whole_proto(model: ir.Model) -> onnx.ModelProto:
    """The graph with all of its constants: none is left in the file beside the one that it was read from."""
    return ir.to_proto(ir.external_data.load_to_model(model))
