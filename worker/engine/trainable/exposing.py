"""A model whose inner values can be read."""

from collections.abc import Iterable
from pathlib import Path

from worker.engine.graph_file import whole_proto
from worker.engine.model_file import ModelFile, save_model
from worker.engine.trainable.importing import plain_graph


def expose(model: ModelFile, names: Iterable[str], folder: Path) -> ModelFile:
    """A copy in `folder`, its functions inlined, with the values of these names among its outputs."""
    proto = whole_proto(plain_graph(model))
    shown = {value.name for value in proto.graph.output}
    for name in dict.fromkeys(names):
        if name and name not in shown:
            proto.graph.output.add(name=name)
    return save_model(proto, folder)
