"""Models that load, and that whatever changes or trains a model may stumble over."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from tests.worker import networks

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
# Elements of four bytes: four terabytes.
IMMENSE = 1 << 40
ROWS = {"x": (FLOAT, ["N", 8])}
Outputs = dict[str, tuple[int, Any]]
NARROW: Outputs = {"y": (FLOAT, ["N", 8])}
SQUARE = networks.normal(8, 8) / 3
WEIGHTS = {"w": networks.normal(8, 32) / 3, "w2": networks.normal(32, 4, seed=1) / 3}
# Of nodes: hidden value, activation, output, input, weights, then the names of the nodes themselves.
NAMES: dict[str, list[str]] = {
    "paths": ["../../h", "/etc/a", "../y", "..", "/tmp/w.bin", "../../w2", "../n1", "/n2", "a/b/../../n3"],  # noqa: S108
    "control-characters": ["h\x01\n", "a\x1b[31m", "y\t", "x\r", "w\x02", "w2\x7f", "n\x031", "n\n2", "n3\x1f"],
    "ten-thousand-characters": [letter * 10_000 for letter in "hayxwvnml"],
    "attributes-of-modules": ["state_dict", "eval", "_buffers", "forward", "training", "arithmetic", "to", "", ""],
    "more-attributes": ["_modules", "train", "steps", "_parameters", "frozen_statistics", "__class__", "a", "b", "c"],
    "not-ascii": ["h\u202e", "\ufffd", "y\U0001f4a5", "é", "w\u200b", "w2\u2028", "\ud7ff", "ñ", "%s{}{0}"],
    "formats": ["{x}", "%d", "{0}", "{}", "a{", "b}", "%s", "{name}", "$x"],
    "of-checkpoints": ["x_1", "weight/w", "kept/w", "x", "average/w", "optimizer/0", "hooks/x", "w_factor", "w2_left"],
    "duplicate-nodes": ["h", "a", "y", "x", "w", "w2", "n", "n", "n"],
    "empty-nodes": ["h", "a", "y", "x", "w", "w2", "", "", ""],
}


def named(*names: str, weights: dict[str, np.ndarray] = WEIGHTS) -> ModelProto:
    """Two products and a Relu between them; see `NAMES`."""
    hidden, active, output, given, first, second, *nodes = names
    chain = [
        helper.make_node("MatMul", [given, first], [hidden], name=nodes[0]),
        helper.make_node("Relu", [hidden], [active], name=nodes[1]),
        helper.make_node("MatMul", [active, second], [output], name=nodes[2]),
    ]
    held = {first: weights["w"], second: weights["w2"]}
    return networks.assemble(chain, {given: (FLOAT, ["N", 8])}, {output: (FLOAT, ["N", 4])}, held)


def plain(**weights: np.ndarray) -> ModelProto:
    return named("h", "a", "y", "x", "w", "w2", "n1", "n2", "n3", weights={**WEIGHTS, **weights})


def behind(*nodes: NodeProto, outputs: Outputs = NARROW, **constants: Any) -> ModelProto:
    """A product `h` of `x`, and these nodes behind it."""
    product = helper.make_node("MatMul", ["x", "w"], ["h"])
    return networks.assemble(
        [product, *nodes], ROWS, outputs, {"w": SQUARE} | {name: np.asarray(one) for name, one in constants.items()}
    )


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def immense(*made: NodeProto, **constants: Any) -> ModelProto:
    """The largest of the elements `c` is added to the product."""
    rest = [node("ReduceMax", "c", "r", keepdims=0), node("Add", "h r", "y")]
    return behind(*made, *rest, **constants)


def _loop(rounds: int) -> ModelProto:
    body = helper.make_graph(
        [node("Identity", "c_in", "c_out"), node("Tanh", "v_in", "v_out")],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("c_in", BOOL, []),
            helper.make_tensor_value_info("v_in", FLOAT, None),
        ],
        [helper.make_tensor_value_info("c_out", BOOL, []), helper.make_tensor_value_info("v_out", FLOAT, None)],
    )
    return behind(node("Loop", "n t h", "y", body=body), n=np.int64(rounds), t=np.bool_(True))


def _many_nodes(count: int) -> ModelProto:
    chain = [node("Relu" if number % 2 else "Neg", f"h{number}", f"h{number + 1}") for number in range(count)]
    last = node("MatMul", f"h{count} v", "y")
    return behind(node("Identity", "h", "h0"), *chain, last, v=SQUARE)


def _spoilt(value: float) -> ModelProto:
    weight = WEIGHTS["w"].copy()
    weight[0, 0] = value
    return plain(w=weight)


def _full(value: float) -> ModelProto:
    return plain(w=np.full_like(WEIGHTS["w"], value))


def _fixed_batch() -> ModelProto:
    """Three samples a call, which stand inside a shape."""
    nodes = [node("MatMul", "x w", "h"), node("Reshape", "h s", "y")]
    weights = {"w": SQUARE, "s": np.array([24])}
    return networks.assemble(nodes, {"x": (FLOAT, [3, 8])}, {"y": (FLOAT, [24])}, weights)


ONE = np.ones(1, np.float32)
PROGRAMS: dict[str, Callable[[], ModelProto]] = {
    "constant-of-shape": lambda: immense(node("ConstantOfShape", "s", "c"), s=[IMMENSE]),
    "expand": lambda: immense(node("Expand", "one s", "c"), s=[IMMENSE], one=ONE),
    "tile": lambda: immense(node("Tile", "h s", "c"), s=[1, IMMENSE]),
    "range": lambda: immense(node("Range", "a b d", "c"), a=np.float32(0), b=np.float32(1e13), d=np.float32(1)),
    "one-hot": lambda: immense(
        node("OneHot", "i depth v", "c"), i=[1], depth=np.int64(IMMENSE), v=np.array([0, 1], np.float32)
    ),
    "pad": lambda: immense(node("Pad", "h p", "c"), p=[0, 0, 0, IMMENSE]),
    "outer-product": lambda: immense(
        node("MatMul", "v u", "c"), v=np.ones((300_000, 1), np.float32), u=np.ones((1, 300_000), np.float32)
    ),
    # ONNX Runtime makes neither: nothing reads the one, and of the other only the shape is asked.
    "unread": lambda: behind(node("Expand", "x s", "c"), node("Identity", "h", "y"), s=[IMMENSE, 1, 8]),
    "shape-alone": lambda: behind(
        node("Expand", "one s", "c"),
        node("Shape", "c", "n"),
        node("Cast", "n", "f", to=FLOAT),
        node("Mul", "h f", "y"),
        s=[IMMENSE],
        one=ONE,
    ),
    "loop": lambda: _loop(3),
    "many-nodes": lambda: _many_nodes(300),
    **{f"names-{kind}": (lambda names=names: named(*names)) for kind, names in NAMES.items()},  # type: ignore[misc]
    "weight-nan": lambda: _spoilt(np.nan),
    "weight-infinite": lambda: _spoilt(np.inf),
    "weights-nan": lambda: _full(np.nan),
    "weights-denormal": lambda: _full(1e-42),
    "weights-zero": lambda: _full(0.0),
    "weights-huge": lambda: _full(3e38),
    "weights-without-elements": lambda: behind(
        node("MatMul", "h e", "q"),
        node("MatMul", "q f", "r"),
        node("Add", "h r", "y"),
        e=np.zeros((8, 0), np.float32),
        f=np.zeros((0, 8), np.float32),
    ),
    "no-batch-axis": lambda: behind(node("ReduceSum", "h", "y", keepdims=0), outputs={"y": (FLOAT, [])}),
    "batch-summed": lambda: behind(node("ReduceSum", "h a", "y", keepdims=0), a=[0], outputs={"y": (FLOAT, [8])}),
    "batch-behind": lambda: behind(node("Transpose", "h", "y", perm=[1, 0]), outputs={"y": (FLOAT, [8, "N"])}),
    "fixed-batch": _fixed_batch,
    "constant-output": lambda: behind(node("Identity", "h", "y"), outputs={**NARROW, "w": (FLOAT, [8, 8])}),
    "whole-numbers": lambda: behind(node("ArgMax", "h", "y", axis=1, keepdims=0), outputs={"y": (INT64, ["N"])}),
    "output-without-elements": lambda: behind(
        node("Slice", "h a b c", "y"), a=[0], b=[0], c=[1], outputs={"y": (FLOAT, ["N", 0])}
    ),
    "output-nan": lambda: behind(node("Log", "n", "l"), node("Add", "h l", "y"), n=-ONE),
    # As many results as there are elements above zero, as a detector returns as many boxes as it finds.
    "results-by-number": lambda: behind(
        node("Relu", "h", "r"),
        node("NonZero", "r", "z"),
        node("Cast", "z", "y", to=FLOAT),
        outputs={"y": (FLOAT, [2, "M"])},
    ),
    "two-outputs": lambda: behind(
        node("Identity", "h", "y"),
        node("MatMul", "x v", "z"),
        v=networks.normal(8, 5),
        outputs={**NARROW, "z": (FLOAT, ["N", 5])},
    ),
    "index-out-of-range": lambda: behind(node("Gather", "h i", "y", axis=1), i=[99], outputs={"y": (FLOAT, ["N", 1])}),
}


def _resized() -> ModelProto:
    resize = helper.make_node("Resize", ["h", "", "s"], ["c"], mode="nearest")
    return immense(resize, s=np.array([1, 1e12], np.float32))


def _doubling() -> ModelProto:
    """A value that a loop joins with itself in each of its 40 rounds."""
    body = helper.make_graph(
        [node("Identity", "c_in", "c_out"), node("Concat", "v_in v_in", "v_out", axis=1)],
        "body",
        [
            helper.make_tensor_value_info("i", INT64, []),
            helper.make_tensor_value_info("c_in", BOOL, []),
            helper.make_tensor_value_info("v_in", FLOAT, None),
        ],
        [helper.make_tensor_value_info("c_out", BOOL, []), helper.make_tensor_value_info("v_out", FLOAT, None)],
    )
    return immense(node("Loop", "n t h", "c", body=body), n=np.int64(40), t=np.bool_(True))


BOMBS: dict[str, Callable[[], ModelProto]] = {
    **{name: PROGRAMS[name] for name in (
        "constant-of-shape", "expand", "tile", "range", "one-hot", "pad", "outer-product", "unread", "shape-alone",
    )},
    "resize": _resized,
    "doubling-loop": _doubling,
    "endless-loop": lambda: _loop(IMMENSE),
}  # fmt: skip
