"""Small networks that tests share: one function a kind, weights from a seed, batch axis `N`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser, shape_inference

from worker.engine.graph import name_nodes

OPSET = 17
IR_VERSION = 8


def assemble(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str | None] | None]],
    outputs: Mapping[str, tuple[int, list[int | str | None] | None]],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = OPSET,
    domains: Mapping[str, int] | None = None,
) -> ModelProto:
    """A model of these nodes; inputs and outputs as name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="networks")


def parse(text: str, opset: int = OPSET) -> ModelProto:
    """A model from ONNX's textual form, without its header."""
    return parser.parse_model(f'<ir_version: {IR_VERSION}, opset_import: ["": {opset}]> {text}')


def holding(text: str, opset: int = OPSET, **constants: np.ndarray) -> ModelProto:
    """A model from ONNX's textual form with these initializers."""
    model = parse(text, opset)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items())
    return model


def prepared(text: str, opset: int = OPSET, **constants: np.ndarray) -> ModelProto:
    """The same, named and with shapes, as preparation leaves it."""
    model = holding(text, opset, **constants)
    name_nodes(model)
    return shape_inference.infer_shapes(model)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 from N(0, 1)."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sparse_tensor(array: np.ndarray, name: str, axes: bool = False) -> onnx.SparseTensorProto:
    """What is not zero of it, each told by its number, or with `axes` by a number for each axis."""
    places = np.argwhere(array) if axes else np.flatnonzero(array)
    values = numpy_helper.from_array(array[array != 0], name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(places, f"{name}.places"), list(array.shape))


def save(model: ModelProto, folder: Path, data_file: str | None = None) -> Path:
    """Write `model.onnx`, its weights beside it where a name for them is given."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    if data_file is None:
        onnx.save_model(model, path)
    else:
        onnx.save_model(model, path, save_as_external_data=True, location=data_file, size_threshold=0)
    return path


def _normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """He initialization: activations keep their size, so that quantization has something to lose."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else shape[0]
    values: np.ndarray = (generator.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
    return values


def named_classes(scale: Sequence[float]) -> ModelProto:
    """`x` (N, C) -> `name` (N,) text: of the class whose number is the largest, once each column is scaled."""
    text = f"""g (float[N,{len(scale)}] x) => (string[N] name) {{
        s = Mul(x, scale)
        k = ArgMax<axis = 1, keepdims = 0>(s)
        name = Gather(names, k)
    }}"""
    names = np.array([f"class {number}" for number in range(len(scale))], object)
    return holding(text, scale=np.array(scale, np.float32), names=names)


def convnet(seed: int = 0, opset: int = OPSET, classes: int = 10) -> ModelProto:
    """`image` (N, 3, 16, 16) -> `logits` (N, classes): Conv, BatchNorm, residual Add, depthwise, pooling, Gemm."""
    generator = np.random.default_rng(seed)
    weights = {
        "stem.weight": _normal(generator, 8, 3, 3, 3),
        "stem.bias": _normal(generator, 8),
        "bn.scale": np.ones(8, np.float32) * 1.5,
        "bn.bias": _normal(generator, 8),
        "bn.mean": _normal(generator, 8),
        "bn.var": np.ones(8, np.float32) * 2,
        "depthwise.weight": _normal(generator, 8, 1, 3, 3),
        "pointwise.weight": _normal(generator, 8, 8, 1, 1),
        "head.weight": _normal(generator, classes, 8),
        "head.bias": _normal(generator, classes),
    }
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight", "stem.bias"], ["stem"], "stem", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["stem", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["bn"], "bn"),
        helper.make_node("Relu", ["bn"], ["relu"], "relu"),
        helper.make_node("Conv", ["relu", "depthwise.weight"], ["deep"], "depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["deep", "pointwise.weight"], ["point"], "pointwise"),
        helper.make_node("Add", ["point", "relu"], ["sum"], "residual"),
        helper.make_node("MaxPool", ["sum"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["pool"], ["mean"], "mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    images: tuple[int, list[int | str | None] | None] = (TensorProto.FLOAT, ["N", 3, 16, 16])
    return assemble(nodes, {"image": images}, {"logits": (TensorProto.FLOAT, ["N", classes])}, weights, opset)


CONVNET_MACS = (
    16 * 16 * 8 * 27  # stem: 3 x 3 x 3 products for each of 8 x 16 x 16 outputs
    + 16 * 16 * 8 * 9  # depthwise: 3 x 3
    + 16 * 16 * 8 * 8  # pointwise
    + 8 * 10  # head
)
CONVNET_PARAMETERS = 8 * 27 + 8 + 4 * 8 + 8 * 9 + 64 + 80 + 10


def perceptron(seed: int = 0, opset: int = OPSET, width: int = 32) -> ModelProto:
    """`x` (N, 8) -> `y` (N, 4): two MatMuls with biases."""
    generator = np.random.default_rng(seed)
    weights = {
        "first.weight": _normal(generator, width, 8).T.copy(),
        "first.bias": _normal(generator, width),
        "second.weight": _normal(generator, 4, width).T.copy(),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["product"], "first"),
        helper.make_node("Add", ["product", "first.bias"], ["hidden"], "bias"),
        helper.make_node("Relu", ["hidden"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "second.weight"], ["y"], "second"),
    ]
    floats = TensorProto.FLOAT
    return assemble(nodes, {"x": (floats, ["N", 8])}, {"y": (floats, ["N", 4])}, weights, opset)


def attention_block(seed: int = 0, length: int = 6, width: int = 16) -> ModelProto:
    """`tokens` (N, length) int64 -> `y` (N, length, width): embedding, single-head attention, LayerNorm."""
    generator = np.random.default_rng(seed)
    weights = {
        "embedding": generator.standard_normal((50, width)).astype(np.float32),
        **{f"{name}.weight": _normal(generator, width, width) for name in ("query", "key", "value", "out")},
        "norm.scale": np.ones(width, np.float32),
        "norm.bias": np.zeros(width, np.float32),
        "root": np.array(np.sqrt(width), np.float32),
    }
    nodes = [helper.make_node("Gather", ["embedding", "tokens"], ["x"], "embed")]
    nodes += [helper.make_node("MatMul", ["x", f"{name}.weight"], [name], name) for name in ("query", "key", "value")]
    nodes += [
        helper.make_node("Transpose", ["key"], ["key_t"], "transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query", "key_t"], ["scores"], "scores"),
        helper.make_node("Div", ["scores", "root"], ["scaled"], "scale"),
        helper.make_node("Softmax", ["scaled"], ["attention"], "softmax", axis=-1),
        helper.make_node("MatMul", ["attention", "value"], ["mixed"], "mix"),
        helper.make_node("MatMul", ["mixed", "out.weight"], ["projected"], "out"),
        helper.make_node("Add", ["projected", "x"], ["sum"], "residual"),
        helper.make_node("LayerNormalization", ["sum", "norm.scale", "norm.bias"], ["y"], "norm", axis=-1),
    ]
    tokens: tuple[int, list[int | str | None] | None] = (TensorProto.INT64, ["N", length])
    return assemble(nodes, {"tokens": tokens}, {"y": (TensorProto.FLOAT, ["N", length, width])}, weights)


def recurrent(seed: int = 0, kind: str = "LSTM", steps: int = 5, inputs: int = 3, hidden: int = 4) -> ModelProto:
    """`x` (steps, N, inputs) -> `y` (steps, 1, N, hidden): one LSTM, GRU or RNN; the batch axis is the second."""
    generator = np.random.default_rng(seed)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    weights = {"W": _normal(generator, 1, gates * hidden, inputs), "R": _normal(generator, 1, gates * hidden, hidden)}
    node = helper.make_node(kind, ["x", "W", "R"], ["y"], "cell", hidden_size=hidden)
    floats = TensorProto.FLOAT
    return assemble([node], {"x": (floats, [steps, "N", inputs])}, {"y": (floats, [steps, 1, "N", hidden])}, weights)


def quantized_product() -> ModelProto:
    """`x` (N, 8) -> `y` (N, 4) through QuantizeLinear, QLinearMatMul and DequantizeLinear."""
    weights: dict[str, np.ndarray] = {
        "scale": np.array(0.1, np.float32),
        "zero": np.array(128, np.uint8),
        "weight": np.arange(32, dtype=np.int8).reshape(8, 4),
        "weight_zero": np.array(0, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node(
            "QLinearMatMul", ["q", "scale", "zero", "weight", "scale", "weight_zero", "scale", "zero"], ["p"]
        ),
        helper.make_node("DequantizeLinear", ["p", "scale", "zero"], ["y"]),
    ]
    floats = TensorProto.FLOAT
    return assemble(nodes, {"x": (floats, ["N", 8])}, {"y": (floats, ["N", 4])}, weights)


def with_initializers_as_inputs(model: ModelProto) -> ModelProto:
    """The same model as files up to IR version 3 spell it: every weight listed among the inputs as well."""
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    model.ir_version = 3
    return model


def with_function() -> ModelProto:
    """`x` (N, 8) -> `y` (N, 4) where the product is a call of a local function that calls another."""
    model = parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        network (float[N,8] x) => (float[N,4] y) <float[8,4] w> { y = local.Layer(x, w) }
        <domain: "local", opset_import: ["": 17, "local": 1]> Layer (a, b) => (c) {
            p = local.Product(a, b)
            c = Relu(p)
        }
        <domain: "local", opset_import: ["": 17]> Product (a, b) => (c) { c = MatMul(a, b) }
        """
    )
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 4), np.float32), "w"))
    return model


def with_branches() -> ModelProto:
    """`x` (N, 4), `flag` () bool -> `y` (N, 4): an If whose branches hold weights of their own."""
    branches = {
        name: helper.make_graph(
            [helper.make_node(operator, ["x", f"{name}.w"], [f"{name}.y"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, ["N", 4])],
            [numpy_helper.from_array(np.full((4,), 2, np.float32), f"{name}.w")],
        )
        for name, operator in (("then", "Mul"), ("else", "Add"))
    }
    node = helper.make_node("If", ["flag"], ["y"], then_branch=branches["then"], else_branch=branches["else"])
    inputs: dict[str, tuple[int, list[int | str | None] | None]] = {
        "x": (TensorProto.FLOAT, ["N", 4]),
        "flag": (TensorProto.BOOL, []),
    }
    return assemble([node], inputs, {"y": (TensorProto.FLOAT, ["N", 4])})


def two_inputs(seed: int = 0) -> ModelProto:
    """`a` (N, 8), `b` (N, 8) -> `sum` (N, 4), `gate` (N, 4): two branches that meet, two outputs."""
    generator = np.random.default_rng(seed)
    weights = {"left.weight": _normal(generator, 4, 8).T.copy(), "right.weight": _normal(generator, 4, 8).T.copy()}
    nodes = [
        helper.make_node("MatMul", ["a", "left.weight"], ["left"], "left"),
        helper.make_node("MatMul", ["b", "right.weight"], ["right"], "right"),
        helper.make_node("Add", ["left", "right"], ["sum"], "sum"),
        helper.make_node("Sigmoid", ["right"], ["gate"], "gate"),
    ]
    floats = TensorProto.FLOAT
    rows: list[int | str | None] = ["N", 8]
    columns: list[int | str | None] = ["N", 4]
    return assemble(
        nodes,
        {"a": (floats, rows), "b": (floats, rows)},
        {"sum": (floats, columns), "gate": (floats, columns)},
        weights,
    )


def normalized_perceptron(seed: int = 0, classes: int = 4) -> ModelProto:
    """`x` (N, 8) -> `y` (N, classes): a MatMul, BatchNorm, Relu, Dropout, and a Gemm with a bias."""
    generator = np.random.default_rng(seed)
    weights = {
        "first.weight": _normal(generator, 32, 8).T.copy(),
        "bn.scale": np.ones(32, np.float32),
        "bn.bias": _normal(generator, 32),
        "bn.mean": np.zeros(32, np.float32),
        "bn.var": np.full(32, 2, np.float32),
        "ratio": np.array(0.1, np.float32),
        "head.weight": _normal(generator, classes, 32),
        "head.bias": np.zeros(classes, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["product"], "first"),
        helper.make_node("BatchNormalization", ["product", "bn.scale", "bn.bias", "bn.mean", "bn.var"], ["bn"], "bn"),
        helper.make_node("Relu", ["bn"], ["active"], "relu"),
        helper.make_node("Dropout", ["active", "ratio"], ["dropped"], "dropout"),
        helper.make_node("Gemm", ["dropped", "head.weight", "head.bias"], ["y"], "head", transB=1),
    ]
    floats = TensorProto.FLOAT
    return assemble(nodes, {"x": (floats, ["N", 8])}, {"y": (floats, ["N", classes])}, weights)


def shaken(model: ModelProto, share: float, seed: int = 0) -> ModelProto:
    """The same with noise on its matrices and filters, of this share of their root mean square."""
    generator = np.random.default_rng(seed)
    made = ModelProto()
    made.CopyFrom(model)
    for tensor in made.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            size = float(np.sqrt(np.mean(values**2)))
            noise = generator.standard_normal(values.shape) * size * share
            tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), tensor.name))
    return made
