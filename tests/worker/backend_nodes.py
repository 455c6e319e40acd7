"""ONNX's own backend tests as models that nobody here wrote: their graphs with the input that each is tested on."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from worker.engine.graph import UnsupportedValue, inputs_of

STORED = Path(onnx.__file__).parent / "backend" / "test" / "data"
STORED_KINDS = ("pytorch-converted", "pytorch-operator", "simple")
EXPANDED = "_expanded"
WITH_CONSTANTS = " with constants"


@dataclass(frozen=True)
class NodeModel:
    """One model, `operator` being what it tests, and one feed. No two have the same name."""

    name: str
    operator: str
    model: onnx.ModelProto
    feed: dict[str, np.ndarray]


def node_models() -> list[NodeModel]:
    """The node tests with a float32 tensor among their inputs, tensors all: an operator each, or what it expands to."""
    with warnings.catch_warnings():
        # They overflow and divide by zero on purpose.
        warnings.simplefilter("ignore")
        cases = collect_testcases()
    operators = {case.name: case.model.graph.node[0].op_type for case in cases}
    found = []
    for case in cases:
        operator = operators[case.name.partition(EXPANDED)[0]]
        name = f"{operator}, expanded" if EXPANDED in case.name else operator
        found.append(_node_model(case.name, name, case.model, case.data_sets[0][0]))
    return [one for one in found if one is not None]


def stored_models() -> list[NodeModel]:
    """Models that PyTorch exported long ago: opsets from 6 on, initializers among the inputs, weights of their own."""
    found = []
    for kind in STORED_KINDS:
        for folder in sorted((STORED / kind).iterdir()):
            data = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=lambda path: int(path.stem[6:]))
            values = [TensorProto.FromString(path.read_bytes()) for path in data]
            found.append(_node_model(f"{kind}/{folder.name}", kind, onnx.load(folder / "model.onnx"), values))
    return [one for one in found if one is not None]


def with_constants(models: list[NodeModel]) -> Iterator[NodeModel]:
    """Those of several inputs with all but the first float32 as constants, as weights are: what folds and quantizes."""
    for one in models:
        kept = next(name for name, array in one.feed.items() if array.dtype == np.float32)
        constants = {name: array for name, array in one.feed.items() if name != kept}
        if not constants:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(one.model)
        inputs = [value for value in model.graph.input if value.name == kept]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
        yield NodeModel(one.name + WITH_CONSTANTS, one.operator + WITH_CONSTANTS, model, {kept: one.feed[kept]})


def _node_model(name: str, operator: str, model: onnx.ModelProto, values: list[object]) -> NodeModel | None:
    """None where no float32 tensor goes in, or something else than tensors."""
    try:
        faces = inputs_of(model)
    except UnsupportedValue:
        return None
    if "float32" not in [face.dtype for face in faces]:
        return None
    arrays = [numpy_helper.to_array(one) if isinstance(one, TensorProto) else np.asarray(one) for one in values]
    return NodeModel(name, operator, model, dict(zip([face.name for face in faces], arrays, strict=True)))
