"""A product in int8 and its bias run as one kernel, with the same answer."""

from collections.abc import Callable

import numpy as np
import onnx

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from worker.engine.calibration import Settings, calibrate
from worker.engine.graph_file import read_graph, save_graph
from worker.engine.int8.building import maps_of, plain_numbers, tensors_to_calibrate
from worker.engine.int8.eligible import eligible
from worker.engine.int8.fused_products import fuse_products
from worker.engine.int8.placement import Placement
from worker.engine.int8.qdq import write_placement
from worker.engine.int8.rounding import Rounding
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.engine.profiling import profile
from worker.engine.sessions import open_session, run_session


def _products() -> onnx.ModelProto:
    """`x` (N, 5, 8) -> `y` (N, 5, 4): a product, its bias, and one without."""
    model = networks.perceptron()
    for value in (*model.graph.input, *model.graph.output):
        width = value.type.tensor_type.shape.dim[1].dim_value
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ["N", 5, width]))
    return model


def test_the_bias_goes_into_the_kernel(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    model = _products()
    file = saved(model)
    given = context(model, x=np.random.default_rng(0).standard_normal((8, 5, 8)).astype(np.float32))
    everything = eligible(units_of(read_graph(file)), True, None, [])
    calibration = calibrate(file, Settings(), given, lambda _share: None, tensors_to_calibrate(everything))
    numbers = plain_numbers(everything, maps_of(everything, calibration), Rounding(unsaturated=True))
    graph = read_graph(file)
    write_placement(graph, Placement.of(units_of(graph), everything.quantized), numbers.maps, numbers.codes)
    apart = save_graph(graph, given.scratch / "apart")
    graph = read_graph(apart)
    assert fuse_products(graph) == 1
    fused = save_graph(graph, given.scratch / "fused")
    onnx.checker.check_model(str(fused.path))

    feed = next(given.feeds.calls(8)).feed
    before, after = (run_session(open_session(one.path, 1), feed)[0] for one in (apart, fused))
    # The same integers; the bias is added in another order.
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    times = profile(fused, feed, 1, given.scratch, 0.1, "cpu")
    assert {time.operator for time in times if time.kind == "int8"} == {"MatMulIntegerToFloat"}
    assert not [time for time in times if time.operator == "Add"]
