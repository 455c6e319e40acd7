"""A small graph with everything in int8 that has a kernel: the file, what ONNX Runtime makes of it, and its answers."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from tests.worker import networks
from worker.engine.calibration import Settings, calibrate
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.building import maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import write_placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.engine.optimized import write_optimized
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import ALL, open_session, run_session

# Kernels saturate where VNNI is missing; a test must hold on any processor.
ROUNDING = Rounding(unsaturated=True)


@dataclass(frozen=True)
class Quantized:
    """`ran` counts the operators of the graph that ONNX Runtime runs; answers are by name of the output."""

    model: onnx.ModelProto
    placement: Placement
    ran: Counter[str]
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]

    def sqnr_db(self, output: str = "y") -> float:
        exact, made = self.before[output].astype(np.float64), self.after[output].astype(np.float64)
        return float(10 * np.log10(np.square(exact).sum() / np.square(exact - made).sum()))

    def node(self, output: str) -> onnx.NodeProto:
        """The node of the file that makes a tensor."""
        return next(node for node in self.model.graph.node if output in node.output)

    def constant(self, name: str) -> np.ndarray:
        """An initializer of the file."""
        found: np.ndarray = onnx.numpy_helper.to_array(
            next(tensor for tensor in self.model.graph.initializer if tensor.name == name)
        )
        return found


def quantized(model: onnx.ModelProto, context: PassContext, without: frozenset[str] = frozenset()) -> Quantized:
    """Every unit in int8 but for those of the operators in `without`; ranges are those of the context's data."""
    file = ModelFile(networks.save(model, context.scratch / "prepared"))
    units = units_of(read_graph(file))
    everything = Placement.of(units, [unit.name for unit in units if unit.node.op_type not in without])
    calibration = calibrate(file, Settings("minmax"), context, lambda _share: None, tensors_to_calibrate(everything))
    numbers = plain_numbers(everything, maps_of(everything, calibration), ROUNDING)
    graph = read_graph(file)
    own = Placement.of(units_of(graph), everything.quantized)
    write_placement(graph, own, numbers.maps, numbers.codes)
    made = save_graph(graph, context.scratch / "made")
    onnx.checker.check_model(str(made.path))
    optimized = write_optimized(made, context.scratch / "optimized" / "model.onnx", context.threads, ALL)
    operators = Counter(node.op_type for node in optimized.structure().graph.node)
    feed = next(context.feeds.calls(context.feeds.sample_count)).feed
    before, after = (_answers(one, feed) for one in (file, made))
    return Quantized(made.load(), everything, operators, before, after)


def _answers(file: ModelFile, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = open_session(file.path, 1)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, run_session(session, feed), strict=True))


def placed(model: onnx.ModelProto, without: frozenset[str] = frozenset()) -> Placement:
    """Everything in int8 but for units of these operators, on paper."""
    units = units_of(ir.from_proto(model))
    return Placement.of(units, [unit.name for unit in units if unit.node.op_type not in without])
