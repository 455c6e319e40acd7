"""Whether a model computes in 8 bits, wherever in its file that stands."""

from onnx import ModelProto, parser

from tests.worker import networks
from worker.engine.kinds import is_quantized

ROUNDING = parser.parse_model(
    """<ir_version: 8, opset_import: ["": 17, "local": 1]>
    network (float[N,8] x) => (float[N,8] y) { r = local.Rounded(x) y = Relu(r) }
    <domain: "local", opset_import: ["": 17]> Rounded (a) => (b) {
        s = Constant<value_float = 0.02>()
        z = Constant<value = uint8 {128}>()
        q = QuantizeLinear(a, s, z)
        b = DequantizeLinear(q, s, z)
    }"""
)


def test_8_bits_are_seen_inside_functions_too() -> None:
    found: list[tuple[ModelProto, bool]] = [
        (networks.quantized_product(), True),
        (ROUNDING, True),
        (networks.with_function(), False),
    ]
    for model, expected in found:
        assert is_quantized(model) is expected
