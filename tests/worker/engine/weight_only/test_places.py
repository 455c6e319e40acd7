"""Which constants are kept in few bits, and along which axes their scales differ."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from tests.worker import networks
from worker.engine.reasons import CONTROL_FLOW, EXCLUDED
from worker.engine.weight_only.places import BEYOND, COARSE, OUTPUT, Found, Use, find_places
from worker.engine.weight_only.stored import encode

FLOATS = TensorProto.FLOAT


@dataclass
class Reading:
    """One node `operator` that reads `shape` as its input `index`, and what is expected of it."""

    id: str
    operator: str
    shape: tuple[int, ...]
    index: int
    use: Use
    scale: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""


READINGS = [
    Reading("conv", "Conv", (8, 4, 3, 3), 1, Use.LAYER, (8, 1, 1, 1)),
    Reading("depthwise", "Conv", (8, 1, 3, 3), 1, Use.LAYER, (8, 1, 1, 1), {"group": 8}),
    Reading("conv-transpose", "ConvTranspose", (8, 4, 3, 3), 1, Use.LAYER, (1, 4, 1, 1)),
    Reading("matmul", "MatMul", (16, 8), 1, Use.PRODUCT, (1, 8)),
    Reading("matmul-batched", "MatMul", (2, 16, 8), 1, Use.LAYER, (2, 1, 8)),
    Reading("matmul-from-the-left", "MatMul", (8, 16), 0, Use.LAYER, (8, 1)),
    Reading("gemm", "Gemm", (16, 8), 1, Use.PRODUCT, (1, 8)),
    Reading("gemm-transposed", "Gemm", (8, 16), 1, Use.PRODUCT, (8, 1), {"transB": 1}),
    Reading("lstm", "LSTM", (2, 16, 4), 1, Use.LAYER, (2, 16, 1)),
    Reading("gru-recurrence", "GRU", (2, 12, 4), 2, Use.LAYER, (2, 12, 1)),
    Reading("attention", "Attention", (8, 24), 1, Use.LAYER, (1, 24), {"num_heads": 2}, "com.microsoft"),
    Reading("table", "Gather", (50, 16), 0, Use.TABLE, (50, 1)),
    Reading("table-by-columns", "Gather", (16, 50), 0, Use.TABLE, (1, 50), {"axis": -1}),
    Reading("table-of-short-rows", "Gather", (50, 4), 0, Use.CONSTANT, (1, 1)),
    Reading("sum", "Add", (50, 16), 1, Use.CONSTANT, (1, 1)),
    Reading("foreign", "Conv", (8, 4, 3, 3), 1, Use.CONSTANT, (1, 1, 1, 1), domain="somebody.else"),
]


def _find(values: np.ndarray, reading: Reading, minimum: int = 1, exclude: tuple[str, ...] = ()) -> Found:
    names = ["a", "b", "c"][: max(2, reading.index + 1)]
    names[reading.index] = "weight"
    node = helper.make_node(
        reading.operator, names, ["y"], "reader", domain=reading.domain or None, **reading.attributes
    )
    inputs: dict[str, Any] = {name: (FLOATS, None) for name in names if name != "weight"}
    domains = {reading.domain: 1} if reading.domain else {}
    model = networks.assemble([node], inputs, {"y": (FLOATS, None)}, {"weight": values}, domains=domains)
    return find_places(ir.from_proto(model), minimum, exclude)


def _values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.id)
def test_each_output_channel_has_a_scale_of_its_own(reading: Reading) -> None:
    values = _values(*reading.shape)
    (place,) = _find(values, reading).places
    codes = encode(values, place.kept, 8)
    assert (place.use, codes.scale.shape) == (reading.use, reading.scale)
    assert (codes.codes.dtype, codes.codes.shape) == (np.int8, reading.shape)
    # Half a step is the most that rounding moves a value.
    assert np.all(np.abs(codes.codes * codes.scale - values) <= codes.scale * 0.5001)
    assert np.abs(codes.codes).max() == 127


def test_a_tensor_of_many_slabs_is_encoded_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = _values(50, 16)
    whole = encode(values, (1,), 16)
    monkeypatch.setattr("worker.engine.weight_only.stored.SLAB_ELEMENTS", 64)
    assert np.array_equal(encode(values, (1,), 16).codes, whole.codes)


SUM = READINGS[-2]
MASK = np.triu(np.full((32, 32), np.finfo(np.float32).min, np.float32), 1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (MASK, BEYOND),
        (np.where(MASK < 0, -np.inf, 0).astype(np.float32), BEYOND),
        (np.where(MASK < 0, np.nan, 0).astype(np.float32), BEYOND),
        (np.where(MASK < 0, -1e4, 0).astype(np.float32), None),
        (np.logspace(-9, 0, 1024, dtype=np.float32).reshape(32, 32), COARSE),
        (np.linspace(0, 640, 1024, dtype=np.float32).reshape(32, 32), None),
    ],
    ids=["lowest-float", "infinite", "nan", "mask", "powers-of-ten", "coordinates"],
)
def test_constants_that_sixteen_bits_would_break_stay(values: np.ndarray, reason: str | None) -> None:
    found = _find(values, SUM)
    assert found.reasons == ({"weight": reason} if reason else {})
    assert len(found.places) == (reason is None)


@pytest.mark.parametrize("shape", [(2048,), (1, 2048), (1, 2048, 1, 1)])
def test_vectors_stay(shape: tuple[int, ...]) -> None:
    assert _find(_values(*shape), SUM).places == []


def test_small_tensors_and_excluded_nodes_stay() -> None:
    values = _values(16, 8)
    assert _find(values, READINGS[3], minimum=129) == Found([], {})
    assert _find(values, READINGS[3], exclude=("reader",)) == Found([], {"weight": EXCLUDED})


def test_what_is_handed_out_stays() -> None:
    model = networks.assemble(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        {"x": (FLOATS, ["N", 16])},
        {"y": (FLOATS, ["N", 16]), "w": (FLOATS, [16, 16])},
        {"w": _values(16, 16)},
    )
    assert find_places(ir.from_proto(model), 256, []) == Found([], {"w": OUTPUT})
    assert find_places(ir.from_proto(model), 257, []) == Found([], {})


def test_what_control_flow_reads_stays() -> None:
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        network (float[N,4] x, bool flag) => (float[N,4] y) <float[4,4] w, float[4,4] inner> {
            a = MatMul(x, w)
            y = If(flag) <then_branch = then () => (float[N,4] t) { t = MatMul(a, inner) },
                          else_branch = else () => (float[N,4] e) { e = Relu(a) }>
        }"""
    )
    for name in ("w", "inner"):
        model.graph.initializer.append(helper.make_tensor(name, FLOATS, [4, 4], _values(4, 4).ravel()))
    found = find_places(ir.from_proto(model), 1, [])
    assert ([place.name for place in found.places], found.reasons) == (["w"], {"inner": CONTROL_FLOW})


def test_a_weight_read_in_two_ways_is_kept_in_one() -> None:
    """A tied embedding: rows for the Gather are output channels of the Gemm."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "embed"),
        helper.make_node("Gemm", ["rows", "table"], ["y"], "head", transB=1),
    ]
    inputs: dict[str, Any] = {"ids": (TensorProto.INT64, ["N"])}
    model = networks.assemble(nodes, inputs, {"y": (FLOATS, ["N", 50])}, {"table": _values(50, 16)})
    (place,) = find_places(ir.from_proto(model), 1, []).places
    assert (place.use, place.kept, place.packable) == (Use.TABLE, (0,), False)


@pytest.mark.parametrize(
    ("attributes", "bias", "packable"),
    [
        ({}, None, True),
        ({}, (8,), True),
        ({}, (1, 8), True),
        ({}, (1,), False),
        ({"alpha": 0.5}, None, False),
        ({"beta": 2.0}, (8,), False),
        ({"transA": 1}, None, False),
    ],
    ids=["plain", "row", "matrix-of-one-row", "scalar", "alpha", "beta", "transposed"],
)
def test_only_a_plain_product_can_be_packed(
    attributes: dict[str, Any], bias: tuple[int, ...] | None, packable: bool
) -> None:
    weights = {"w": _values(16, 8)} | ({} if bias is None else {"b": np.ones(bias, np.float32)})
    node = helper.make_node("Gemm", ["x", *weights], ["y"], "product", **attributes)
    model = networks.assemble([node], {"x": (FLOATS, ["N", 16])}, {"y": (FLOATS, ["N", 8])}, weights)
    (place,) = find_places(ir.from_proto(model), 1, []).places
    assert place.packable == packable
