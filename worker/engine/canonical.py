"""A graph that the runtime has optimized, in a form that is the same in every run.

Its layouts are finished over maps that are ordered by address, and what it makes is named as it comes upon it. Names
that the model has itself do not change: nodes are ordered from there, and what the runtime made is named in that order.
"""

from itertools import count

import onnx

from worker.engine.graph import names_read, nodes_of, replace_field, unused_name
from worker.engine.inspection import walk

FOLDED = "folded"
"""Where the names begin of constants that folding made."""


def canonicalize(made: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Order nodes and constants of `made`, and name in it what `source`, which it was made of, does not have."""
    _Form(source).settle(made.graph)


def rename_constants(made: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Name those of `made` that `source`, which it was made of, does not have: the runtime gives its own names again
    in a graph that has them, and refuses what comes of it.
    """
    own = _values(source)
    tensors = [tensor for graph in walk.graphs(made.graph) for tensor in graph.initializer if tensor.name not in own]
    taken = own | _values(made)
    names = {tensor.name: unused_name(f"{FOLDED}/{tensor.name}", taken) for tensor in tensors}
    for tensor in tensors:
        tensor.name = names[tensor.name]
    for node in nodes_of(made.graph):
        replace_field(node.input, [names.get(name, name) for name in node.input])
    for graph in walk.graphs(made.graph):
        for value in (*graph.output, *graph.value_info):
            value.name = names.get(value.name, value.name)


def _values(model: onnx.ModelProto) -> set[str]:
    """Names of all that its nodes can read."""
    graphs = list(walk.graphs(model.graph))
    given = {one.name for graph in graphs for one in (*graph.initializer, *graph.input)}
    return given | {name for node in nodes_of(model.graph) for name in node.output if name}


class _Form:
    def __init__(self, source: onnx.ModelProto) -> None:
        nodes = list(nodes_of(source.graph))
        self._nodes = {node.name for node in nodes}
        results = (name for node in nodes for name in node.output if name)
        self._places = {name: place for place, name in enumerate(results)}
        self._own = _values(source)
        self._taken = set(self._own)
        self._numbers = count()

    def settle(self, graph: onnx.GraphProto) -> None:
        """Those within its nodes too."""
        replace_field(graph.node, self._in_order(graph))
        # What branches read keeps its name: they may have another of that name.
        free = {tensor.name for tensor in graph.initializer} | {name for node in graph.node for name in node.output}
        # Nor has what is left out one, which is the same in all places.
        free -= self._own.union({""}, *(_captured(node) for node in graph.node))
        names: dict[str, str] = {}
        for node in graph.node:
            if node.name not in self._nodes:
                node.name = f"{node.op_type} made by the runtime, {next(self._numbers)}"
            for side, values in (("input", node.input), ("output", node.output)):
                for index, name in enumerate(values):
                    if name in free and name not in names:
                        names[name] = unused_name(f"{node.name}/{side}_{index}", self._taken)
                replace_field(values, [names.get(name, name) for name in values])
            for inner in walk.subgraphs(node):
                self.settle(inner)
        for one in [*graph.initializer, *graph.value_info, *graph.output]:
            one.name = names.get(one.name, one.name)
        graph.initializer.sort(key=lambda tensor: tensor.name)
        graph.value_info.sort(key=lambda value: value.name)

    def _in_order(self, graph: onnx.GraphProto) -> list[onnx.NodeProto]:
        """Depth first: before the node of each value of the model's own, in the model's order, what it is made from."""

        def place(index: int) -> int:
            outputs = graph.node[index].output
            return min((self._places[name] for name in outputs if name in self._places), default=len(self._places))

        made_by = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
        waiting = sorted(range(len(graph.node)), key=place, reverse=True)
        order: dict[int, None] = {}
        begun: set[int] = set()
        while waiting:
            index = waiting[-1]
            if index in begun:
                order.setdefault(waiting.pop())
                continue
            begun.add(index)
            node = graph.node[index]
            sources = (made_by.get(name) for name in [*node.input, *sorted(_captured(node))])
            waiting += [source for source in sources if source is not None and source not in begun][::-1]
        return [graph.node[index] for index in order]


def _captured(node: onnx.NodeProto) -> set[str]:
    """What its subgraphs read, from within them as well."""
    return names_read(node) - set(node.input)
