"""What inspection says about models that are accepted: facts checked against counts made by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, defs, helper, numpy_helper

from tests.worker import networks
from worker.engine.inspection.macs import count_macs
from worker.engine.inspection.model import inspect

FLOAT, HALF, INT64, BOOL, STRING = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)


@dataclass(frozen=True)
class Accepted:
    """A model, and the facts that must be among those found."""

    name: str
    build: Callable[[], ModelProto]
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


def _one(operator: str, shapes: dict[str, Any], *, opset: int = 17, domain: str = "", **attributes: Any) -> ModelProto:
    """One node between inputs of these types and shapes and an output of unknown rank."""
    node = helper.make_node(operator, list(shapes), ["y"], domain=domain, **attributes)
    domains = {domain: 1} if domain else {}
    return networks.assemble([node], shapes, {"y": (FLOAT, None)}, opset=opset, domains=domains)


def _fused() -> ModelProto:
    """As ONNX Runtime's own optimizer writes it."""
    nodes = [
        helper.make_node("FusedConv", ["x", "w"], ["c"], domain="com.microsoft", activation="Relu", pads=[1, 1, 1, 1]),
        helper.make_node("Gelu", ["c"], ["y"], domain="com.microsoft"),
    ]
    weights = {"w": np.ones((4, 3, 3, 3), np.float32)}
    return networks.assemble(
        nodes, {"x": (FLOAT, ["N", 3, 8, 8])}, {"y": (FLOAT, ["N", 4, 8, 8])}, weights, domains={"com.microsoft": 1}
    )


def _tree() -> ModelProto:
    """An operator of the classical machine learning domain, its outputs without types."""
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0])
    model = networks.assemble([node], {"x": (FLOAT, [None, 3])}, {"y": (FLOAT, [None, 3])}, domains={"ai.onnx.ml": 3})
    model.graph.output[0].ClearField("type")
    return model


def _sequence() -> ModelProto:
    model = networks.parse("g (float[N,4] a, float[N,4] b) => (y) { y = SequenceConstruct(a, b) }")
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, ["N", 4])))
    return model


def _untyped_sequence() -> ModelProto:
    """The same, its type left for ONNX Runtime to infer."""
    model = _sequence()
    model.graph.output[0].ClearField("type")
    return model


def _loop() -> ModelProto:
    """A product within a loop: how often it runs is known to nobody."""
    body = networks.parse(
        "b (int64 i, bool c, float[4,4] s) => (bool d, float[4,4] t) { d = Identity(c) t = MatMul(s, s) }"
    ).graph
    node = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    return networks.assemble([node], {"trips": (INT64, []), "x": (FLOAT, [4, 4])}, {"y": (FLOAT, [4, 4])})


def _sparse() -> ModelProto:
    model = networks.parse("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }")
    values = helper.make_tensor("w", FLOAT, [2], [1.0, 2.0])
    indices = helper.make_tensor("", INT64, [2], [0, 3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return model


def _reshaped_batch() -> ModelProto:
    """Reshape to a shape computed from the input's own: known only by following the values of small tensors."""
    model = networks.parse(
        """g (float[N,2,8] x) => (float[a,b] y) {
            s = Shape(x)  zero = Constant<value_ints=[0]>()  n = Gather(s, zero)
            rest = Constant<value_ints=[-1]>()  target = Concat<axis=0>(n, rest)
            flat = Reshape(x, target)  y = MatMul(flat, w)
        }"""
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((16, 5), np.float32), "w"))
    return model


STRINGS = "g (string[N] a, string[N] b) => (bool[N] y) { y = Equal(a, b) }"
ACCEPTED = [
    Accepted(
        "convnet",
        networks.convnet,
        {
            "inputs": [{"name": "image", "dtype": "float32", "shape": ["N", 3, 16, 16]}],
            "outputs": [{"name": "logits", "dtype": "float32", "shape": ["N", 10]}],
            "opset": 17,
            "parameter_count": networks.CONVNET_PARAMETERS,
            "mac_count": networks.CONVNET_MACS,
            "producer": "networks",
            "trainable": True,
            "training_blockers": [],
        },
    ),
    Accepted("opset-7", lambda: networks.perceptron(opset=7), {"opset": 7, "mac_count": 8 * 32 + 32 * 4}),
    Accepted(
        "weights-listed-as-inputs",
        lambda: networks.with_initializers_as_inputs(networks.perceptron(opset=8)),
        {"inputs": [{"name": "x", "dtype": "float32", "shape": ["N", 8]}], "ir_version": 3},
    ),
    Accepted(
        "several-inputs-and-outputs-of-many-types",
        lambda: networks.parse(
            """g (float16[batch,3] h, int64[batch,3] i, bool[batch,3] b, float s)
            => (float16[batch,3] p, bool[batch,3] q)
            { p = Neg(h) t = Cast<to=9>(i) q = And(t, b) u = Neg(s) }"""
        ),
        {
            "inputs": [
                {"name": "h", "dtype": "float16", "shape": ["batch", 3]},
                {"name": "i", "dtype": "int64", "shape": ["batch", 3]},
                {"name": "b", "dtype": "bool", "shape": ["batch", 3]},
                {"name": "s", "dtype": "float32", "shape": []},
            ],
            "mac_count": 0,
        },
    ),
    Accepted("strings", lambda: networks.parse(STRINGS, opset=19), {"operators": {"Equal": 1}}),
    Accepted(
        "unnamed-axes",
        lambda: networks.assemble(
            [helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, [None, 3, None])}, {"y": (FLOAT, [None, 3, None])}
        ),
        {"inputs": [{"name": "x", "dtype": "float32", "shape": [None, 3, None]}]},
    ),
    Accepted(
        "unknown-rank",
        lambda: _one("MatMul", {"a": (FLOAT, None), "b": (FLOAT, [4, 4])}),
        {"mac_count": None},
    ),
    Accepted("branches", networks.with_branches, {"operators": {"If": 1, "Add": 1, "Mul": 1}, "parameter_count": 8,
                                                  "trainable": False, "training_blockers": ["If"], "mac_count": 0}),
    Accepted("loop", _loop, {"mac_count": None, "training_blockers": ["Loop"],
                             "operators": {"Loop": 1, "Identity": 1, "MatMul": 1}}),
    Accepted("functions", networks.with_function,
             {"operators": {"MatMul": 1, "Relu": 1}, "mac_count": 32, "trainable": True}),
    Accepted("fused", _fused, {"domains": {"com.microsoft": 1}, "trainable": True,
                               "operators": {"com.microsoft.FusedConv": 1, "com.microsoft.Gelu": 1}}),
    Accepted("classical", _tree, {"outputs": [{"name": "y", "dtype": "float32", "shape": None}],
                                  "training_blockers": ["ai.onnx.ml.Scaler"]}),
    Accepted("sequence-output", _sequence, {"outputs": [{"name": "y", "dtype": "seq(float32)", "shape": None}],
                                            "training_blockers": ["SequenceConstruct"]}),
    Accepted("untyped-sequence-output", _untyped_sequence,
             {"outputs": [{"name": "y", "dtype": "seq(float32)", "shape": None}]}),
    Accepted("nothing-to-train", lambda: networks.parse(
        "g (float[N,4] x) => (float[N,4] y) { two = Constant<value_float=2.0>() z = Mul(x, two) y = Relu(z) }"
    ), {"trainable": False, "training_blockers": []}),
    Accepted("weights-in-a-node", lambda: networks.parse(
        "g (float[N,2] x) => (float[N,2] y) { b = Constant<value_floats=[1.0, 2.0]>() y = Add(x, b) }"
    ), {"trainable": True, "training_blockers": []}),
    Accepted("sparse-weights", _sparse, {"parameter_count": 2}),
    Accepted("quantized", networks.quantized_product, {"mac_count": 32, "trainable": False,
             "training_blockers": ["DequantizeLinear", "QLinearMatMul", "QuantizeLinear"]}),
]  # fmt: skip

TOKENS = (FLOAT, ["N", 6, 16])
HEADS = (FLOAT, ["N", 2, 6, 8])
MS = "com.microsoft"
MACS = [
    # length 6, width 16: four projections of 6 x 16 x 16 and two products of 6 x 6 x 16
    Accepted("attention-by-hand", networks.attention_block, {"mac_count": 4 * 6 * 16 * 16 + 2 * 6 * 6 * 16}),
    # QK^T and its V over 6 x 6 pairs, all heads together 16 wide
    Accepted("attention-of-four-axes", lambda: _one(
        "Attention", {"q": HEADS, "k": HEADS, "v": HEADS}, opset=23), {"mac_count": 2 * 6 * 6 * 16}),
    Accepted("attention-of-three-axes", lambda: _one("Attention", {"q": TOKENS, "k": TOKENS, "v": TOKENS}, opset=23,
                                                     q_num_heads=2, kv_num_heads=2), {"mac_count": 2 * 6 * 6 * 16}),
    Accepted("attention-with-packed-weights", lambda: _one(
        "Attention", {"x": TOKENS, "w": (FLOAT, [16, 48]), "b": (FLOAT, [48])}, domain=MS, num_heads=2),
             {"mac_count": 6 * 16 * 48 + 2 * 6 * 6 * 16}),
    Accepted("attention-of-many-heads", lambda: _one(
        "MultiHeadAttention", {"q": TOKENS, "k": TOKENS, "v": TOKENS}, domain=MS, num_heads=2),
             {"mac_count": 2 * 6 * 6 * 16}),
    Accepted("multiplying-but-uncounted", lambda: _one(
        "ConvTransposeWithDynamicPads", {"x": (FLOAT, ["N", 2, 5, 5]), "w": (FLOAT, [2, 3, 2, 2])}, domain=MS),
             {"mac_count": None}),
    # 5 steps of 4 gates x 4 hidden x (3 inputs + 4 hidden)
    Accepted("lstm", networks.recurrent, {"mac_count": 5 * 16 * (3 + 4)}),
    Accepted("gru", lambda: networks.recurrent(kind="GRU"), {"mac_count": 5 * 12 * (3 + 4)}),
    Accepted("rnn", lambda: networks.recurrent(kind="RNN"), {"mac_count": 5 * 4 * (3 + 4)}),
    # 2 x 5 x 5 inputs, each spread over 3 outputs of 2 x 2
    Accepted("transposed-convolution", lambda: _one(
        "ConvTranspose", {"x": (FLOAT, ["N", 2, 5, 5]), "w": (FLOAT, [2, 3, 2, 2])}), {"mac_count": 50 * 12}),
    # stride 2 on 9 x 9 without padding leaves 4 x 4; 2 groups of 2 channels
    Accepted("grouped-convolution", lambda: _one("Conv", {"x": (FLOAT, ["N", 4, 9, 9]), "w": (FLOAT, [6, 2, 3, 3])},
                                                 group=2, strides=[2, 2]), {"mac_count": 4 * 4 * 6 * 2 * 9}),
    Accepted("batched-product", lambda: _one(
        "MatMul", {"a": (FLOAT, ["N", 3, 4, 5]), "b": (FLOAT, [3, 5, 6])}), {"mac_count": 3 * 4 * 5 * 6}),
    Accepted("vector-product", lambda: _one("MatMul", {"a": (FLOAT, [5]), "b": (FLOAT, [5, 6])}), {"mac_count": 30}),
    Accepted("both-transposed", lambda: _one("Gemm", {"a": (FLOAT, [5, 4]), "b": (FLOAT, [6, 5])}, transA=1, transB=1),
             {"mac_count": 4 * 5 * 6}),
    Accepted("einsum", lambda: _one("Einsum", {"a": (FLOAT, [2, 3, 4]), "b": (FLOAT, [2, 5, 4])},
                                    equation="bij, bkj -> bik"), {"mac_count": 2 * 3 * 4 * 5}),
    Accepted("reshape-by-computed-shape", _reshaped_batch, {"mac_count": 16 * 5}),
    # the batch axis of an input is the one that is named so, wherever it stands
    Accepted("free-length", lambda: _one("MatMul", {"a": (FLOAT, ["batch", "length", 5]), "b": (FLOAT, [5, 6])}),
             {"mac_count": None}),
    Accepted("batch-second", lambda: _one("MatMul", {"a": (FLOAT, [7, "batch", 5]), "b": (FLOAT, [5, 6])}),
             {"mac_count": 7 * 5 * 6}),
    Accepted("fused-convolution", _fused, {"mac_count": 4 * 8 * 8 * 27}),
]  # fmt: skip


@pytest.mark.parametrize("case", [*ACCEPTED, *MACS], ids=str)
def test_facts(case: Accepted, tmp_path: Path) -> None:
    found = inspect(networks.save(case.build(), tmp_path)).model_dump()
    assert {name: found[name] for name in case.facts} == case.facts


@pytest.mark.parametrize("domain", ["com.microsoft.nchwc", "com.ms.internal.nhwc"])
def test_a_convolution_in_a_layout_of_the_runtimes_own_is_not_counted_as_none(domain: str) -> None:
    """As in a compiled file, beside a product that can be counted."""
    tensors: dict[str, Any] = {"x": (FLOAT, [1, 16, 8, 8]), "w": (FLOAT, [16, 16, 3, 3])}
    compiled = _one("Conv", tensors, domain=domain)
    compiled.graph.node.append(helper.make_node("MatMul", ["a", "b"], ["z"]))
    assert count_macs(compiled, {"a": [2, 3], "b": [3, 4], "y": [1, 16, 6, 6], "w": [16, 16, 3, 3]}) is None
    del compiled.graph.node[0]
    assert count_macs(compiled, {"a": [2, 3], "b": [3, 4]}) == 2 * 3 * 4


def test_the_newest_opset_that_onnx_runtime_runs_is_accepted(tmp_path: Path) -> None:
    newest = defs.onnx_opset_version()
    model = networks.perceptron(opset=newest)
    try:
        onnxruntime.InferenceSession(model.SerializeToString())
    except Exception:  # onnx is ahead of this runtime
        newest -= 1
    assert inspect(networks.save(networks.perceptron(opset=newest), tmp_path)).opset == newest


def test_external_data_gives_the_same_facts_as_a_single_file(tmp_path: Path) -> None:
    single = inspect(networks.save(networks.convnet(), tmp_path / "single"))
    spread = inspect(networks.save(networks.convnet(), tmp_path / "spread", data_file="weights.bin"))
    assert (tmp_path / "spread" / "weights.bin").stat().st_size >= 4 * networks.CONVNET_PARAMETERS
    assert spread == single


def test_the_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = networks.save(networks.convnet(), tmp_path)
    before = path.read_bytes()
    inspect(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(onnx.load(path))
