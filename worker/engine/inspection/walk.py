"""Every graph, node and tensor of a model, however deep.

Subgraphs need no bound of their own here: protobuf parses no message nested deeper than a hundred, which is thirty
subgraphs within each other.
"""

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among the attributes of a node: branches and bodies."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and every graph within it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs(inner)


def nodes_within(nodes: list[NodeProto]) -> Iterator[NodeProto]:
    """The nodes and every node of their subgraphs."""
    for node in nodes:
        yield node
        for inner in subgraphs(node):
            yield from nodes_within(inner.node)


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node, those of functions included."""
    yield from nodes_within(model.graph.node)
    for function in model.functions:
        yield from nodes_within(function.node)


def all_graphs(model: ModelProto) -> Iterator[GraphProto]:
    """Every graph, those within functions included."""
    yield from graphs(model.graph)
    for function in model.functions:
        for node in function.node:
            for inner in subgraphs(node):
                yield from graphs(inner)


def _attributes(model: ModelProto) -> Iterator[AttributeProto]:
    for node in nodes(model):
        yield from node.attribute
    for function in model.functions:
        yield from function.attribute_proto


def sparse_tensors(model: ModelProto) -> Iterator[SparseTensorProto]:
    """Every sparse tensor: initializers and attributes."""
    for graph in all_graphs(model):
        yield from graph.sparse_initializer
    for attribute in _attributes(model):
        if attribute.HasField("sparse_tensor"):
            yield attribute.sparse_tensor
        yield from attribute.sparse_tensors


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor: initializers, attributes, and the parts of sparse ones."""
    for graph in all_graphs(model):
        yield from graph.initializer
    for attribute in _attributes(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
    for sparse in sparse_tensors(model):
        yield sparse.values
        yield sparse.indices
