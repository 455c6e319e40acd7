"""Matrices in 4 and 8 bits by blocks: what ONNX Runtime makes of them, packed or unpacked when loaded."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from tests.worker import networks
from worker.engine.graph_file import save_graph
from worker.engine.weight_only.blocks import Blocks, block_quantize, pack, unpack
from worker.engine.weight_only.packed import write_packed
from worker.engine.weight_only.places import find_places
from worker.engine.weight_only.stored import write_blocks

FLOATS = TensorProto.FLOAT


def _matrix(depth: int, width: int, offset: float = 0.0) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal((depth, width)) + offset
    return values.astype(np.float32)


def _values(blocks: Blocks) -> np.ndarray:
    """What the codes stand for, `(K, N)`: scale (q - zero_point), by the operator's documentation."""
    zeros = np.repeat(blocks.zeros().astype(np.float32), blocks.block_size, axis=1).T
    scales = np.repeat(blocks.scales, blocks.block_size, axis=1).T
    return np.asarray(scales * (blocks.codes() - zeros))[: blocks.shape[0]]


def _model(operator: str, matrix: np.ndarray) -> onnx.ModelProto:
    """`x` (N, K) -> `y` (N, width): `operator` MatMul, Gemm, or Gemm^T with a bias and the matrix transposed."""
    depth, width = matrix.shape
    weights = {"w": matrix.T.copy() if operator == "Gemm^T" else matrix}
    if operator != "MatMul":
        weights["b"] = np.linspace(-1, 1, width, dtype=np.float32)
    attributes = {"transB": 1} if operator == "Gemm^T" else {}
    node = helper.make_node(operator.removesuffix("^T"), ["x", *weights], ["y"], "product", **attributes)
    return networks.assemble([node], {"x": (FLOATS, ["N", depth])}, {"y": (FLOATS, ["N", width])}, weights)


def _run(model: ir.Model, folder: Path, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(save_graph(model, folder).path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def _sqnr_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(expected**2) / max(np.sum((expected - actual) ** 2), 1e-30)))


# Depths: a whole number of blocks; not one; less than one; an odd number of blocks, whose zero points end mid-byte.
@pytest.mark.parametrize("depth", [256, 200, 40, 300])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Gemm^T"])
@pytest.mark.parametrize("offset", [0.0, 3.0], ids=["symmetric", "zero-points"])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_kernel_multiplies_by_what_the_documentation_says(
    bits: int, offset: float, operator: str, depth: int, tmp_path: Path
) -> None:
    """It rounds activations to 8 bits as well, which leaves 40 dB and more; a code in a wrong place leaves none."""
    matrix, x = _matrix(depth, 24, offset), _matrix(5, depth)
    blocks = block_quantize(matrix, bits, 64)
    assert (blocks.zero_points is not None) == bool(offset)
    model = ir.from_proto(_model(operator, matrix))
    (place,) = find_places(model, 1, []).places
    write_packed(model.graph, place, blocks)
    assert [node.op_type for node in model.graph] == ["MatMulNBits"]
    expected = x @ _values(blocks) + (0 if operator == "MatMul" else np.linspace(-1, 1, 24))
    assert _sqnr_db(expected, _run(model, tmp_path, x)) > 40


@pytest.mark.parametrize("depth", [256, 200, 40, 300])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Gemm^T"])
@pytest.mark.parametrize("offset", [0.0, 3.0], ids=["symmetric", "zero-points"])
def test_four_bits_unpacked_when_loaded_are_the_same_values(
    offset: float, operator: str, depth: int, tmp_path: Path
) -> None:
    """All 16 codes among them, and in float32: only the order of sums may differ from numpy's."""
    matrix, x = _matrix(depth, 24, offset), _matrix(5, depth)
    blocks = block_quantize(matrix, 4, 64)
    assert set(np.unique(blocks.codes()[:depth])) == set(range(16))
    model = ir.from_proto(_model(operator, matrix))
    (place,) = find_places(model, 1, []).places
    write_blocks(model.graph, place, blocks)
    expected = x @ _values(blocks) + (0 if operator == "MatMul" else np.linspace(-1, 1, 24))
    np.testing.assert_allclose(_run(model, tmp_path, x), expected, rtol=1e-4, atol=1e-4)


def test_layout_is_that_of_the_operator() -> None:
    """(N, B, S / 2) bytes, two codes to each, the first in the lower half."""
    matrix = np.zeros((32, 2), np.float32)
    # The largest of a block has the code 0; a scale of -1/8 makes 7/8 the code 1, and zero is 8.
    matrix[:3, 1] = [1.0, 0.875, -0.875]
    blocks = block_quantize(matrix, 4, 16)
    assert blocks.packed.shape == (2, 2, 8)
    assert blocks.zero_points is None
    assert blocks.packed[1, 0, :2].tolist() == [0x10, 0x8F]
    assert set(blocks.packed[0].ravel()) == {0x88}
    assert blocks.scales[1].tolist() == [-0.125, 1.0]


@pytest.mark.parametrize("count", [6, 7])
def test_an_odd_code_is_packed_beside_a_zero(count: int) -> None:
    codes = np.arange(count, dtype=np.uint8)
    packed = pack(codes, 4)
    assert packed.size == (count + 1) // 2
    assert unpack(packed, 4)[:count].tolist() == codes.tolist()


@pytest.mark.parametrize(("bits", "floor_db"), [(4, 19.0), (8, 43.0)])
def test_rounding_loses_what_its_step_says(bits: int, floor_db: float) -> None:
    """The largest of 128 normal values is about 2.7 sigma: a step of 2.7 / 2^(b-1), squared over 12, is 20 or 44 dB."""
    matrix = _matrix(512, 64)
    assert _sqnr_db(matrix, _values(block_quantize(matrix, bits, 128))) > floor_db


def test_a_short_column_is_not_padded_to_a_long_block() -> None:
    assert block_quantize(_matrix(40, 4), 4, 128).block_size == 64
    assert block_quantize(_matrix(5, 4), 4, 128).block_size == 16
    assert block_quantize(_matrix(100, 4), 4, 128).block_size == 128
