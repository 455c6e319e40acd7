"""Operators in forms that the backend tests of the newest onnx no longer have: old opsets, and ONNX Runtime's own.

ONNX Runtime is asked what is right.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from tests.worker import networks
from worker.engine.model_file import ModelFile
from worker.engine.trainable.claims import CLAIMED, unsupported
from worker.engine.trainable.importing import module_of
from worker.engine.trainable.parity import check_parity

MS = "com.microsoft."


def _floats(*shape: int, seed: int = 0) -> np.ndarray:
    return networks.normal(*shape, seed=seed)


def _positive(*shape: int) -> np.ndarray:
    return np.abs(_floats(*shape, seed=3)) + 0.5


def _integers(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    """One node of an opset, fed these arrays; None is an input left out."""

    operator: str
    opset: int
    inputs: list[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1

    def __str__(self) -> str:
        return f"{self.operator}-{self.opset}-{'-'.join(map(str, self.attributes.values()))}"[:60]

    def model(self) -> onnx.ModelProto:
        domain, _, name = self.operator.rpartition(".")
        names = [f"x{number}" if one is not None else "" for number, one in enumerate(self.inputs)]
        made = [f"y{number}" for number in range(self.outputs)]
        node = helper.make_node(name, names, made, "node", domain=domain, **self.attributes)
        faces = {
            given: (helper.np_dtype_to_tensor_dtype(one.dtype), list(one.shape))
            for given, one in zip(names, self.inputs, strict=True)
            if one is not None
        }
        model = networks.assemble([node], faces, {}, opset=self.opset, domains={domain: 1} if domain else {})
        model.graph.output.extend(onnx.ValueInfoProto(name=one) for one in made)
        return model


IMAGE = _floats(2, 4, 6, 5)
MATRIX = _floats(3, 4)
TOKENS = _floats(2, 5, 8)
SCALES = np.array([1, 1, 2, 1.6], np.float32)
EMPTY = np.zeros(0, np.float32)
ROIS = np.array([[0, 0, 3, 4], [1, 1, 4.5, 3]], np.float32)
NORMS = [_positive(4), _floats(4, seed=4), _floats(4, seed=5), _positive(4)]
OLD = [
    *(Case(name, 7, [IMAGE], {"axis": axis}) for name in ("Softmax", "LogSoftmax", "Hardmax") for axis in (1, 2)),
    Case("Softmax", 11, [IMAGE], {"axis": -1}),
    Case("Clip", 7, [IMAGE], {"min": -0.5, "max": 0.5}),
    Case("Clip", 7, [IMAGE]),
    Case("Dropout", 7, [IMAGE], {"ratio": 0.3}),
    Case("Dropout", 12, [IMAGE, np.array(0.3, np.float32)]),
    *(Case("Pad", 7, [IMAGE], {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "mode": mode})
      for mode in ("constant", "reflect", "edge")),
    Case("Pad", 11, [IMAGE, _integers(0, 0, 1, 0, 0, 0, -1, 2), np.array(1.5, np.float32)]),
    Case("Slice", 7, [IMAGE], {"starts": [1, -3], "ends": [9, 4], "axes": [1, 2]}),
    Case("Slice", 10, [IMAGE, _integers(4, 0), _integers(-9, 5), _integers(3, 2), _integers(-2, 2)]),
    Case("Split", 7, [IMAGE], {"axis": 1, "split": [1, 3]}, 2),
    Case("Split", 11, [IMAGE], {"axis": 1}, 2),
    Case("Split", 18, [_floats(2, 5)], {"axis": 1, "num_outputs": 2}, 2),
    Case("Squeeze", 7, [_floats(1, 3, 1)], {"axes": [0]}),
    Case("Squeeze", 11, [_floats(1, 3, 1)]),
    Case("Unsqueeze", 7, [MATRIX], {"axes": [0, 3]}),
    *(Case(f"Reduce{kind}", 7, [_positive(2, 3, 4)], {"axes": [0, 2], "keepdims": keep})
      for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
      for keep in (0, 1)),
    Case("ReduceSum", 13, [IMAGE], {"noop_with_empty_axes": 1}),
    Case("TopK", 7, [IMAGE], {"k": 3}, 2),
    Case("TopK", 10, [IMAGE, _integers(2)], {"axis": 1}, 2),
    Case("Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 3.0]}),
    Case("Upsample", 7, [IMAGE], {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}),
    Case("Upsample", 9, [IMAGE, SCALES]),
    Case("Upsample", 9, [IMAGE, SCALES], {"mode": "linear"}),
    Case("Resize", 10, [IMAGE, SCALES]),
    Case("Resize", 10, [IMAGE, np.array([1, 1, 0.5, 0.6], np.float32)], {"mode": "linear"}),
    *(Case("Resize", 11, [IMAGE, EMPTY, SCALES], {"mode": mode, "coordinate_transformation_mode": rule})
      for mode in ("nearest", "linear", "cubic")
      for rule in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")),
    Case("Resize", 11, [IMAGE, EMPTY, EMPTY, _integers(2, 4, 9, 7)], {"mode": "linear"}),
    Case("Resize", 13, [IMAGE, None, None, _integers(2, 4, 3, 3)], {"nearest_mode": "floor"}),
    Case("BatchNormalization", 7, [IMAGE, *NORMS], {"epsilon": 1e-3}),
    Case("BatchNormalization", 9, [IMAGE, *NORMS]),
    Case("AveragePool", 7, [IMAGE], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", 10, [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", 8, [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 2),
    Case("MaxPool", 10, [IMAGE], {"kernel_shape": [3, 3], "dilations": [2, 1], "pads": [1, 1, 1, 1]}),
    Case("LpPool", 11, [IMAGE], {"kernel_shape": [2, 2], "p": 3}),
    Case("GlobalLpPool", 7, [IMAGE], {"p": 2}),
    Case("Conv", 7, [IMAGE, _floats(6, 2, 3, 3)], {"group": 2, "auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", 11, [_floats(1, 2, 9), _floats(3, 2, 4), _floats(3)], {"dilations": [2], "pads": [1, 3]}),
    *(Case("ConvTranspose", 11, [IMAGE, _floats(4, 3, 3, 3), _floats(3)], {"strides": [2, 2], **more})
      for more in ({"pads": [1, 0, 1, 1], "output_padding": [1, 1]}, {"auto_pad": "SAME_UPPER"},
                   {"output_shape": [11, 11]})),
    Case("Gemm", 7, [MATRIX, _floats(5, 4), _floats(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Scatter", 9, [_floats(3, 3), _integers([0, 1, 2], [2, 0, -1]), _floats(2, 3, seed=1)], {"axis": 0}),
    Case("ScatterND", 16, [_floats(4, 3), _integers([1], [1]), _floats(2, 3, seed=1)], {"reduction": "add"}),
    Case("GatherND", 11, [_floats(2, 3, 4), _integers([0, 2], [1, -1])]),
    Case("GatherND", 12, [_floats(2, 3, 4), _integers([1], [0])], {"batch_dims": 1}),
    Case("OneHot", 9, [_integers(0, 2, -1), np.array(4, np.int64), np.array([0, 5], np.float32)], {"axis": 0}),
    Case("Flatten", 7, [IMAGE], {"axis": 0}),
    Case("RoiAlign", 10, [IMAGE, ROIS, _integers(0, 1)], {"output_height": 2, "output_width": 3, "sampling_ratio": 2}),
    Case("RoiAlign", 16, [IMAGE, ROIS, _integers(0, 1)], {"output_height": 2, "output_width": 2}),
    Case("RoiAlign", 16, [IMAGE, ROIS, _integers(0, 1)], {"mode": "max", "sampling_ratio": 2}),
    Case("MaxRoiPool", 7, [IMAGE, np.array([[0, 0, 0, 3, 4], [1, 1, 1, 4, 3]], np.float32)],
         {"pooled_shape": [2, 2], "spatial_scale": 0.9}),
    Case("GridSample", 16, [IMAGE, np.tanh(_floats(2, 3, 3, 2))], {"mode": "bicubic", "padding_mode": "reflection"}),
    Case("DeformConv", 19,
         [IMAGE, _floats(4, 2, 2, 2), _floats(2, 16, 5, 4, seed=2), _floats(4), _positive(2, 8, 5, 4)],
         {"group": 2, "offset_group": 2, "kernel_shape": [2, 2]}),
    Case("DFT", 17, [_floats(1, 6, 1)], {"axis": 1, "onesided": 1}),
    Case("Einsum", 12, [_floats(2, 3, 4), _floats(2, 5, 4)], {"equation": "bij, bkj"}),
    Case("MeanVarianceNormalization", 9, [IMAGE]),
    Case("LRN", 7, [IMAGE], {"size": 3, "alpha": 0.1}),
    Case("LpNormalization", 7, [IMAGE], {"p": 1, "axis": 1}),
    Case("Mod", 10, [MATRIX, _positive(4)], {"fmod": 1}),
    Case("Unique", 11, [np.array([2, 1, 1, 3], np.float32)], {"sorted": 0}, 4),
    *(Case(kind, 7, [_floats(5, 2, 3), _floats(2, gates * 4, 3), _floats(2, gates * 4, 4), _floats(2, gates * 8),
                     np.array([5, 3], np.int32)], {"hidden_size": 4, "direction": "bidirectional"}, 2)
      for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))),
    Case("LSTM", 14, [_floats(5, 2, 3), _floats(1, 16, 3), _floats(1, 16, 4), None, None, _floats(1, 2, 4),
                      _floats(1, 2, 4), _floats(1, 12)], {"hidden_size": 4, "direction": "reverse", "clip": 0.5}, 3),
    *(Case(kind, 14, [_floats(5, 2, 3), _floats(2, gates * 4, 3), _floats(2, gates * 4, 4), _floats(2, gates * 8)],
           {"hidden_size": 4, "direction": "bidirectional"} | ({"linear_before_reset": 1} if kind == "GRU" else {}), 2)
      for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))),
    Case("LSTM", 14, [_floats(5, 2, 3), _floats(1, 16, 3), _floats(1, 16, 4), None, None, _floats(1, 2, 4),
                      _floats(1, 2, 4, seed=1)], {"hidden_size": 4}, 3),
    Case("GRU", 14, [_floats(5, 2, 3), _floats(1, 12, 3), _floats(1, 12, 4), _floats(1, 24)],
         {"hidden_size": 4, "linear_before_reset": 1, "activations": ["HardSigmoid", "Softsign"]}, 2),
    Case("NonMaxSuppression", 10,
         [np.abs(_floats(1, 6, 4)), _floats(1, 2, 6), _integers(3), np.array([0.4], np.float32)]),
]  # fmt: skip

WIDE = _floats(8, 24)
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
QKV = [_floats(2, 5, 8, seed=seed) for seed in range(3)]
TABLE = _floats(9, 8)
ANGLES = [np.cos(_floats(7, 2)), np.sin(_floats(7, 2))]
FUSED = [
    Case(f"{MS}Gelu", 17, [IMAGE]),
    Case(f"{MS}BiasGelu", 17, [TOKENS, _floats(8)]),
    Case(f"{MS}FastGelu", 17, [TOKENS, _floats(8)]),
    Case(f"{MS}FastGelu", 17, [TOKENS]),
    Case("SimplifiedLayerNormalization", 17, [TOKENS, _positive(8)], {"epsilon": 1e-5}),
    Case(f"{MS}QuickGelu", 17, [TOKENS], {"alpha": 1.5}),
    Case(f"{MS}FusedMatMul", 17, [_floats(2, 4, 3), _floats(2, 5, 4)], {"transA": 1, "transB": 1, "alpha": 0.5}),
    Case(f"{MS}FusedMatMul", 17, [_floats(4, 2, 3), _floats(2, 3, 5)], {"transBatchA": 1}),
    Case(f"{MS}FusedConv", 17, [IMAGE, _floats(4, 4, 3, 3), _floats(4)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    Case(f"{MS}FusedConv", 17, [IMAGE, _floats(4, 4, 3, 3)], {"activation": "Clip", "activation_params": [0.0, 6.0]}),
    Case(f"{MS}FusedGemm", 17, [MATRIX, _floats(4, 5), _floats(5)],
         {"activation": "LeakyRelu", "activation_alpha": 0.2}),
    Case(f"{MS}SkipLayerNormalization", 17, [TOKENS, QKV[0], _positive(8), _floats(8), _floats(8, seed=2)],
         {"epsilon": 1e-5}),
    Case(f"{MS}SkipSimplifiedLayerNormalization", 17, [TOKENS, QKV[0], _positive(8)], {"epsilon": 1e-5}),
    Case(f"{MS}EmbedLayerNormalization", 17, [MASK, MASK, TABLE, _floats(6, 8), TABLE, _positive(8), _floats(8), MASK],
         {"epsilon": 1e-5}, 2),
    Case(f"{MS}Attention", 17, [TOKENS, WIDE, _floats(24), MASK], {"num_heads": 2}),
    Case(f"{MS}Attention", 17, [TOKENS, WIDE, _floats(24)], {"num_heads": 2, "unidirectional": 1}),
    Case(f"{MS}Attention", 17, [TOKENS, WIDE, _floats(24), np.array([3, 5], np.int32)], {"num_heads": 2}),
    Case(f"{MS}MultiHeadAttention", 17, [*QKV, _floats(24), MASK], {"num_heads": 2}),
    Case(f"{MS}MultiHeadAttention", 17, [*QKV, None, None, _floats(1, 2, 5, 5)], {"num_heads": 2, "scale": 0.3}),
    Case(f"{MS}RotaryEmbedding", 17, [_floats(2, 5, 8), _integers([0, 1, 2, 3, 4], [2, 3, 4, 5, 6]), *ANGLES]),
    Case(f"{MS}RotaryEmbedding", 17, [_floats(2, 2, 5, 4), _integers(1), *ANGLES], {"interleaved": 1}),
]  # fmt: skip


@pytest.mark.parametrize("case", [*OLD, *FUSED], ids=str)
def test_a_node_answers_as_onnx_runtime_does(case: Case, tmp_path: Path) -> None:
    model = case.model()
    assert unsupported(model) == []
    file = ModelFile(networks.save(model, tmp_path / "model"))
    feed = {f"x{number}": one for number, one in enumerate(case.inputs) if one is not None}
    parity = check_parity(file, module_of(ir.load(file.path)), feed, tmp_path, threads=1)
    assert parity.nodes == (case.operator != "Dropout")


def test_every_fused_operator_that_is_claimed_is_tried() -> None:
    claimed = {name for name in CLAIMED if name.startswith(MS)}
    # ONNX Runtime's CPU has no kernel of this older name for FusedMatMul.
    assert {case.operator for case in FUSED if case.operator.startswith(MS)} == claimed - {f"{MS}TransposeMatMul"}
