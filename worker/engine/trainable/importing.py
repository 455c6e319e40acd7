"""From a model file to a torch module."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import InlinePass

from worker.engine.graph import qualified
from worker.engine.graph_file import with_plain_domain
from worker.engine.model_file import ModelFile
from worker.engine.nodes import constant_tensor, held_by
from worker.engine.trainable.arrays import NotTrainable, tensor_from
from worker.engine.trainable.module import Step, TrainableGraph
from worker.engine.trainable.operators import TABLE
from worker.engine.trainable.weights import find_weights

REMEDY = "Leave out the passes that train."
# The inputs behind the first say what shape comes out; where they are computed, they follow the batch by themselves.
SHAPED = frozenset({"Reshape", "Resize"})
# Constants beside what is fed are repeated as the batch is.
JOINED = frozenset({"Concat", "GatherElements"})
COUNTING = frozenset({"Shape", "Size"})


def plain_graph(model: ModelFile) -> ir.Model:
    """The graph with functions inlined; weights stay in the files until they are read."""
    loaded = with_plain_domain(ir.load(model.path))
    if loaded.functions:
        loaded = InlinePass()(loaded).model
    return loaded


def import_model(model: ModelFile, device: str = "cpu") -> TrainableGraph:
    """The model as a module on `device`, in `eval()` mode.

    Raises:
        NotTrainable: an operator has no form in torch, or nothing in the model is a weight in float32 or float64.

    """
    module = module_of(plain_graph(model))
    if next(module.parameters(), None) is None:
        raise NotTrainable("No float32 or float64 constant of the model is a weight.", REMEDY)
    module.to(torch.device(device))
    return module


def module_of(model: ir.Model) -> TrainableGraph:
    """A graph without functions as a module on the CPU, in `eval()` mode; it need not have any weights.

    Raises:
        NotTrainable: as `import_model`.

    """
    weights = find_weights(model.graph)
    constants = {name: tensor_from(array) for name, array in _constants(model.graph).items()}
    module = TrainableGraph(
        steps=_steps(model),
        outputs=[value.name or "" for value in model.graph.outputs],
        parameters={name: constants.pop(name) for name in weights.parameters},
        statistics={name: constants.pop(name) for name in weights.statistics},
        constants=constants,
        fixed_batch=_fixed_batch(model.graph),
    )
    made: TrainableGraph = module.eval()
    return made


def _constants(graph: ir.Graph) -> dict[str, np.ndarray]:
    """Initializers and `Constant` nodes that something reads, by name."""
    values = [*graph.initializers.values(), *(node.outputs[0] for node in graph if _is_constant(node))]
    read = [value for value in values if value.uses() or value.is_graph_output()]
    return {value.name or "": _array(value) for value in read}


def _is_constant(node: ir.Node) -> bool:
    return qualified(node) == "Constant"


def _array(value: ir.Value) -> np.ndarray:
    tensor = constant_tensor(value)
    if tensor is not None:
        return tensor.numpy()
    node = value.producer()
    if node is None:
        raise NotTrainable(f"The constant {value.name!r} has no value.", REMEDY)
    held = held_by(node)
    if held is None:
        raise NotTrainable(f"The constant {value.name!r} is no dense tensor of numbers.", REMEDY)
    return held


def _fixed_batch(graph: ir.Graph) -> dict[str, int]:
    """The first axis of each input that fixes it."""
    inputs = [value for value in graph.inputs if value.const_value is None and value.shape]
    return {
        value.name or "": int(value.shape[0])
        for value in inputs
        if value.shape is not None and isinstance(value.shape[0], int) and value.shape[0] > 0
    }


def _growing(graph: ir.Graph) -> set[ir.Node]:
    """Nodes that are fed what depends on the input, and constants that say how large a batch of it is."""
    carriers = {value for value in graph.inputs if value.const_value is None}
    computed = set(carriers)  # what follows the batch, shapes included
    found = set()
    for node in graph:
        if any(value in computed for value in node.inputs):
            computed.update(node.outputs)
        if node.op_type not in COUNTING and any(value in carriers for value in node.inputs):
            carriers.update(node.outputs)
            if node.op_type in JOINED or (node.op_type in SHAPED and computed.isdisjoint(node.inputs[1:])):
                found.add(node)
    return found


def _steps(model: ir.Model) -> list[Step]:
    """One a node, in the order of the graph."""
    growing = _growing(model.graph)
    nodes = [node for node in model.graph if not _is_constant(node)]
    kept = {value.name for value in model.graph.outputs}
    last: dict[str, int] = {}
    for number, node in enumerate(nodes):
        last.update({value.name or "": number for value in node.inputs if value is not None})
    made = []
    for number, node in enumerate(nodes):
        reads = tuple("" if value is None else value.name or "" for value in node.inputs)
        ended = tuple(name for name in dict.fromkeys(reads) if name and last[name] == number and name not in kept)
        made.append(_step(model, node, reads, ended, node in growing))
    return made


def _step(model: ir.Model, node: ir.Node, reads: tuple[str, ...], ended: tuple[str, ...], grows: bool) -> Step:
    opset = model.opset_imports.get(node.domain, model.opset_imports.get("", 1))
    found = TABLE.find(qualified(node), opset)
    if found is None:
        raise NotTrainable(f"The operator {qualified(node)} cannot be trained (node {node.name!r}).", REMEDY)
    return Step(
        node=node.name or (node.outputs[0].name or ""),
        operator=found,
        attributes={name: _attribute(one) for name, one in node.attributes.items()},
        opset=opset,
        inputs=reads,
        outputs=_named(node),
        last_reads=ended,
        grows=grows,
    )


def _named(node: ir.Node) -> tuple[str, ...]:
    """The names of the outputs up to the last one that has any."""
    names = [value.name or "" for value in node.outputs]
    while len(names) > 1 and not names[-1]:
        names.pop()
    return tuple(names)


def _attribute(attribute: ir.Attr) -> Any:
    if attribute.type == ir.AttributeType.TENSOR:
        return tensor_from(attribute.as_tensor().numpy())
    return attribute.value
