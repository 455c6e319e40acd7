"""Reading a file as a graph: however it spells the domain of the standard operators, their version is found."""

from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from tests.worker import networks
from worker.engine.graph_file import read_graph
from worker.engine.model_file import ModelFile
from worker.engine.trainable.importing import plain_graph


def _renamed(*domains: str) -> onnx.ModelProto:
    """A model with functions, whose standard operators are of opset 17 by each of these names."""
    model = networks.with_function()
    for part in (model, *model.functions):
        others = [entry for entry in part.opset_import if entry.domain]
        del part.opset_import[:]
        part.opset_import.extend([*others, *(onnx.helper.make_opsetid(domain, 17) for domain in domains)])
    return model


@pytest.mark.parametrize("read", [read_graph, plain_graph], ids=["to-be-rewritten", "to-be-trained"])
@pytest.mark.parametrize("domains", [[""], ["ai.onnx"], ["", "ai.onnx"]], ids=["plain", "spelt-out", "both"])
def test_the_version_of_standard_operators_is_found(
    domains: list[str], read: Callable[[ModelFile], ir.Model], tmp_path: Path
) -> None:
    graph = read(ModelFile(networks.save(_renamed(*domains), tmp_path)))
    for part in (graph, *graph.functions.values()):
        assert part.opset_imports.get("") == 17
        assert "ai.onnx" not in part.opset_imports
