"""Model files, sent as one .onnx, that must be refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from tests.worker import networks
from tests.worker.runner.hostile.case import Hostile


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _model(build: Callable[[], ModelProto]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(build().SerializeToString())


def _truncated(path: Path) -> None:
    content = networks.convnet().SerializeToString()
    path.write_bytes(content[: len(content) // 2])


def _over_two_gibibytes(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"\x08\x08")
        file.truncate((2 << 30) + 1)


def _without(field: str) -> Callable[[], ModelProto]:
    def build() -> ModelProto:
        model = networks.perceptron()
        model.graph.ClearField(field)
        return model

    return build


def _constant_only() -> ModelProto:
    model = networks.parse("g () => (float[4] y) { y = Identity(w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, np.float32), "w"))
    return networks.with_initializers_as_inputs(model)


def external(location: str, **entries: str) -> Callable[[], ModelProto]:
    """A perceptron whose first weight, of 1024 bytes, is said to lie at `location`."""

    def build() -> ModelProto:
        model = networks.perceptron()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)
        return model

    return build


def _first_weight(**fields: object) -> Callable[[], ModelProto]:
    """A perceptron whose first weight's tensor is changed."""

    def build() -> ModelProto:
        model = networks.perceptron()
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            if name == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)
            else:
                setattr(tensor, name, value)
        return model

    return build


def _overlong_axis() -> ModelProto:
    floats = TensorProto.FLOAT
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return networks.assemble(nodes, {"x": (floats, ["N" * 513])}, {"y": (floats, ["N" * 513])})


def _said_at_length() -> ModelProto:
    """Names that each may be, and that together say more than an inspection may: 3,000 of 400 characters."""
    floats, names = TensorProto.FLOAT, [f"{one:0400}" for one in range(3_000)]
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in names]
    return networks.assemble(nodes, {"x": (floats, ["N"])}, {name: (floats, ["N"]) for name in names})


def _sparse_terabyte() -> ModelProto:
    model = networks.parse("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }")
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("w_indices", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 38]))
    return model


def _custom_operators() -> ModelProto:
    nodes = [
        helper.make_node("Deform", ["x"], ["d"], domain="acme.vision"),
        helper.make_node("Deform", ["d"], ["e"], domain="acme.vision"),
        helper.make_node("Warp", ["e"], ["y"], domain="acme.audio"),
    ]
    floats = TensorProto.FLOAT
    return networks.assemble(
        nodes, {"x": (floats, ["N"])}, {"y": (floats, ["N"])}, domains={"acme.vision": 1, "acme.audio": 1}
    )


def _functions(bodies: str) -> Callable[[], ModelProto]:
    def build() -> ModelProto:
        header = '<ir_version: 8, opset_import: ["": 17, "local": 1]>'
        model: ModelProto = parser.parse_model(
            f"{header} g (float[N] x) => (float[N] y) {{ y = local.F0(x) }} {bodies}"
        )
        return model

    return build


def _function(name: str, body: str) -> str:
    return f'<domain: "local", opset_import: ["": 17, "local": 1]> {name} (a) => (b) {{ {body} }}'


def _doubling(levels: int) -> str:
    """Each function calls the next twice: 2 ** levels nodes once inlined."""
    calls = [_function(f"F{level}", f"m = local.F{level + 1}(a) b = local.F{level + 1}(m)") for level in range(levels)]
    return "\n".join([*calls, _function(f"F{levels}", "b = Relu(a)")])


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, by hand: the library refuses to write what it would not read."""
    length, size = b"", len(content)
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _deeply_nested(path: Path) -> None:
    graph = b""
    for _ in range(200):
        attribute = _field(1, b"then_branch") + _field(6, graph)  # name, g
        graph = _field(1, _field(4, b"If") + _field(5, attribute))  # node: op_type, attribute
    path.write_bytes(b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x11"))


def _deep_type(path: Path) -> None:
    """An input that is a sequence of sequences of sequences..."""
    kind = b""
    for _ in range(1500):
        kind = _field(4, _field(1, kind))
    node = _field(1, b"x") + _field(2, b"y") + _field(4, b"Identity")
    graph = (
        _field(1, node) + _field(2, b"g") + _field(11, _field(1, b"x") + _field(2, kind)) + _field(12, _field(1, b"y"))
    )
    path.write_bytes(b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x11"))


def _huge_input() -> ModelProto:
    model = networks.perceptron()
    for axis in model.graph.input[0].type.tensor_type.shape.dim:
        axis.dim_value = 1 << 62
    return model


def _name_not_utf8(path: Path) -> None:
    content = networks.perceptron().SerializeToString()
    path.write_bytes(content.replace(b"first.weight", b"fir\xff\xfe.weight"))


def _tar(path: Path) -> None:
    header = bytearray(512)
    header[0:10] = b"model.onnx"
    header[257:262] = b"ustar"
    path.write_bytes(bytes(header) + bytes(1024))


FORMATS = [
    Hostile("empty", "model_empty", _bytes(b"")),
    Hostile("text", "model_not_onnx", _bytes(b"hello, is this a model?"), names="hello, i"),
    Hostile("zip", "model_not_onnx", _bytes(b"PK\x03\x04" + bytes(60)), names="PyTorch"),
    Hostile("pickle", "model_not_onnx", _bytes(b"\x80\x04\x95" + bytes(60)), names="pickle"),
    Hostile("hdf5", "model_not_onnx", _bytes(b"\x89HDF\r\n\x1a\n" + bytes(60)), names="HDF5"),
    Hostile("tflite", "model_not_onnx", _bytes(b"\x1c\x00\x00\x00TFL3" + bytes(60)), names="TensorFlow Lite"),
    Hostile("gzip", "model_not_onnx", _bytes(b"\x1f\x8b\x08" + bytes(60)), names="gzip"),
    Hostile("tar-sent-as-model", "model_not_onnx", _tar, names="tar archive"),
    Hostile(
        "safetensors", "model_not_onnx", _bytes((16).to_bytes(8, "little") + b'{"a": 1}        '), names="safetensors"
    ),
    Hostile("lfs-pointer", "model_not_onnx", _bytes(b"version https://git-lfs.github.com/spec/v1\n"), names="LFS"),
    Hostile("truncated", "model_corrupt", _truncated),
    Hostile("header-only", "model_corrupt", _bytes(b"\x08\x08"), names="no graph"),
    Hostile("garbage-behind-header", "model_corrupt", _bytes(b"\x08\x08" + bytes(range(255)))),
    Hostile("name-not-utf8", "model_corrupt", _name_not_utf8, names="UTF-8"),
    Hostile("over-2-gib", "model_over_2gib", _over_two_gibibytes),
    Hostile("subgraphs-200-deep", "model_nested_too_deep", _deeply_nested),
    Hostile("types-1500-deep", "model_nested_too_deep", _deep_type),
    Hostile("groups-100000-deep", "model_corrupt", _bytes(b"\x08\x08" + b"\x0b" * 100_000)),
]

GRAPHS = [
    Hostile("no-inputs", "model_no_inputs", _model(_without("input"))),
    Hostile("only-weights-as-inputs", "model_no_inputs", _model(_constant_only)),
    Hostile("no-outputs", "model_no_outputs", _model(_without("output"))),
    Hostile("no-nodes", "model_nothing_computed", _model(_without("node"))),
    Hostile("opset-6", "model_opset_too_old", _model(lambda: networks.perceptron(opset=6)), names="opset 6"),
    Hostile(
        "custom-operators",
        "model_unknown_operators",
        _model(_custom_operators),
        names="domain 'acme.audio': Warp (1 node); domain 'acme.vision': Deform (2 nodes)",
    ),
    Hostile(
        "unknown-default-operator",
        "model_unknown_operators",
        _model(lambda: networks.parse("g (float[N] x) => (float[N] y) { y = Reluu(x) }")),
        names="domain 'ai.onnx': Reluu (1 node)",
    ),
    Hostile(
        "type-error",
        "model_not_loadable",
        _model(lambda: networks.parse("g (float[N] x, int64[N] z) => (float[N] y) { y = Add(x, z) }")),
        names="Type",
    ),
    Hostile(
        "dangling-name",
        "model_not_loadable",
        _model(lambda: networks.parse("g (float[N] x) => (float[N] y) { y = Add(x, ghost) }")),
        names="ghost",
    ),
    Hostile(
        "overlong-input",
        "model_name_too_long",
        _model(lambda: networks.parse(f"g (float[N] {'x' * 513}) => (float[N] y) {{ y = Relu({'x' * 513}) }}")),
        names="513",
    ),
    Hostile("overlong-axis", "model_name_too_long", _model(_overlong_axis), names="an axis of an input"),
    Hostile("said-at-length", "model_too_many_names", _model(_said_at_length), names="3,000 outputs"),
    Hostile("function-calls-itself", "model_nested_too_deep", _model(_functions(_function("F0", "b = local.F0(a)")))),
    Hostile("function-bomb", "model_expands_too_far", _model(_functions(_doubling(40)))),
]

TENSORS = [
    Hostile("weight-of-a-terabyte", "model_corrupt", _model(_first_weight(dims=[1 << 38])), names="first.weight"),
    Hostile("weight-of-overflowing-size", "model_corrupt", _model(_first_weight(dims=[1 << 62, 1 << 62]))),
    Hostile("weight-of-negative-size", "model_corrupt", _model(_first_weight(dims=[-8, -32]))),
    Hostile("weight-of-unknown-type", "model_corrupt", _model(_first_weight(data_type=999)), names="999"),
    Hostile("input-of-overflowing-size", "model_not_loadable", _model(_huge_input)),
    Hostile("weight-of-100000-axes", "model_not_loadable", _model(_first_weight(dims=[1] * 100_000 + [256]))),
    Hostile("sparse-terabyte", "model_expands_too_far", _model(_sparse_terabyte)),
    Hostile("external-missing", "external_data_missing", _model(external("w.bin")), names="w.bin"),
    Hostile("external-parent", "external_data_elsewhere", _model(external("../job.json")), names="../job.json"),
    Hostile("external-absolute", "external_data_elsewhere", _model(external("/etc/passwd")), names="/etc/passwd"),
    Hostile("external-subfolder", "external_data_elsewhere", _model(external("weights/w.bin"))),
    Hostile("external-backslash", "external_data_elsewhere", _model(external("..\\w.bin"))),
    Hostile("external-dots", "external_data_elsewhere", _model(external(".."))),
    Hostile("external-nowhere", "external_data_elsewhere", _model(external(""))),
    Hostile("external-overlong", "external_data_elsewhere", _model(external("w" * 300))),
    Hostile(
        "external-memory-address",
        "external_data_elsewhere",
        _model(external("*/_ORT_MEM_ADDR_/*", offset="140000000000000", length="1024")),
    ),
    # The model's own file is the only one beside a plain upload.
    Hostile("external-negative-offset", "model_corrupt", _model(external("model.onnx", offset="-8")), names="offset"),
    Hostile("external-wrong-length", "model_corrupt", _model(external("model.onnx", length="12")), names="declares 12"),
    Hostile("external-past-the-end", "external_data_too_short", _model(external("model.onnx", offset="99999999"))),
]

MODELS = [*FORMATS, *GRAPHS, *TENSORS]
