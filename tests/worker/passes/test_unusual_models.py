"""Models that passes seldom meet: weights in a file beside, weights that are results, tensors that branches read."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from tests.worker.networks import normal, sparse_tensor
from worker.engine.feeds import match_arrays
from worker.engine.float16.halves import half_elements
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.preparation import operator_counts
from worker.passes.registry import load_pass

FLOATS = TensorProto.FLOAT
# 8 bits on weights and on two or three activations.
FLOOR_DB = 25


def _apply(name: str, file: ModelFile, folder: Path, x: np.ndarray, **parameters: Any) -> PassResult:
    scratch = folder / "scratch"
    scratch.mkdir()
    feeds = match_arrays(inputs_of(file.structure()), {"x": x}, "the data")
    config = CATALOGUE[name].config.model_validate({"pass": name, **parameters})
    return load_pass(name)(file, config, PassContext(scratch, feeds, seed=0, threads=1))


def _answers(file: ModelFile, x: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(file.path, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def _sqnr_db(exact: np.ndarray, made: np.ndarray) -> float:
    noise = np.square(exact - made).sum()
    return float(10 * np.log10(np.square(exact).sum() / noise)) if noise else np.inf


EACH_PASS = pytest.mark.parametrize(
    ("name", "parameters"),
    [
        pytest.param("quantize_static", {"placement": "kernels"}, id="static"),
        pytest.param("quantize_dynamic", {"placement": "kernels"}, id="dynamic"),
        pytest.param("quantize_weights", {"minimum_elements": 1}, id="weights"),
        pytest.param("convert_float16", {}, id="float16"),
        pytest.param("compile", {"ort_format": False}, id="compile"),
    ],
)


@EACH_PASS
def test_weights_may_lie_in_a_file_beside_the_model(name: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    model = ModelFile(networks.save(networks.perceptron(), tmp_path / "model", "weights.bin"))
    assert len(model.files()) == 2
    before = [file.read_bytes() for file in model.files()]
    x = normal(32, 8)
    result = _apply(name, model, tmp_path, x, **parameters)
    assert result.modified, result.notes
    for exact, made in zip(_answers(model, x), _answers(result.model, x), strict=True):
        assert _sqnr_db(exact, made) > FLOOR_DB
    assert [file.read_bytes() for file in model.files()] == before


@EACH_PASS
@pytest.mark.parametrize("axes", [False, True], ids=["numbers", "coordinates"])
def test_weights_may_be_sparse(name: str, parameters: dict[str, Any], axes: bool, tmp_path: Path) -> None:
    proto = networks.perceptron()
    for tensor in list(proto.graph.initializer):
        if tensor.name != "first.weight":
            array = onnx.numpy_helper.to_array(tensor)
            proto.graph.sparse_initializer.append(sparse_tensor(np.where(array > 0, array, 0), tensor.name, axes))
            proto.graph.initializer.remove(tensor)
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    x = normal(32, 8)
    result = _apply(name, model, tmp_path, x, **parameters)
    assert result.modified, result.notes
    assert "Made 2 sparse constants dense, as ONNX Runtime does at every load." in result.notes
    for exact, made in zip(_answers(model, x), _answers(result.model, x), strict=True):
        assert _sqnr_db(exact, made) > FLOOR_DB


def _classifier() -> onnx.ModelProto:
    """`x` (N, 8) -> the label and, by class, the probabilities: as scikit-learn's classifiers are exported."""
    weights = {"v": normal(8, 32), "a": normal(32, seed=1), "w": normal(32, 3, seed=2), "b": normal(3, seed=3)}
    nodes = [
        helper.make_node("Gemm", ["x", "v", "a"], ["p"], "first"),
        helper.make_node("Relu", ["p"], ["h"], "relu"),
        helper.make_node("Gemm", ["h", "w", "b"], ["l"], "second"),
        helper.make_node("ArgMax", ["l"], ["label"], "label", axis=1, keepdims=0),
        helper.make_node("Softmax", ["l"], ["s"], "softmax", axis=1),
        helper.make_node(
            "ZipMap", ["s"], ["shares"], "zip", domain="ai.onnx.ml", classlabels_strings=["cat", "cow", "dog"]
        ),
    ]
    model = networks.assemble(
        nodes,
        {"x": (FLOATS, ["N", 8])},
        {"label": (TensorProto.INT64, ["N"])},
        weights,
        domains={"ai.onnx.ml": 3},
    )
    share = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(FLOATS, []))
    model.graph.output.append(helper.make_value_info("shares", helper.make_sequence_type_proto(share)))
    return model


@EACH_PASS
def test_a_classifier_may_answer_with_probabilities_by_class(
    name: str, parameters: dict[str, Any], tmp_path: Path
) -> None:
    model = ModelFile(networks.save(_classifier(), tmp_path / "model"))
    x = normal(32, 8)
    result = _apply(name, model, tmp_path, x, **parameters)
    assert result.modified, result.notes
    exact, made = ([list(row.values()) for row in _answers(file, x)[1]] for file in (model, result.model))
    assert _sqnr_db(np.array(exact), np.array(made)) > FLOOR_DB
    assert list(result.model.structure().graph.output) == list(_classifier().graph.output)


@pytest.mark.parametrize(
    ("name", "parameters"), [("prune_unstructured", {"sparsity": 0.5}), ("prune_structured", {"ratio": 0.5})]
)
def test_a_classifier_may_be_pruned(name: str, parameters: dict[str, Any], tmp_path: Path) -> None:
    model = ModelFile(networks.save(_classifier(), tmp_path / "model"))
    result = _apply(name, model, tmp_path, normal(32, 8), **parameters)
    assert result.modified, result.notes
    assert len(_answers(result.model, normal(32, 8))[1]) == 32


def test_float16_outputs_may_stand_beside_probabilities_by_class(tmp_path: Path) -> None:
    model = ModelFile(networks.save(_classifier(), tmp_path / "model"))
    result = _apply("convert_float16", model, tmp_path, normal(32, 8), keep_io_types=False)
    assert result.modified, result.notes
    assert result.model.structure().graph.output[1].type.HasField("sequence_type")


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
def test_a_weight_may_be_a_result_as_well(name: str, tmp_path: Path) -> None:
    weight = normal(8, 8)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    outputs: dict[str, Any] = {"y": (FLOATS, ["N", 8]), "w": (FLOATS, [8, 8])}
    proto = networks.assemble(nodes, {"x": (FLOATS, ["N", 8])}, outputs, {"w": weight})
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    result = _apply(name, model, tmp_path, normal(16, 8), placement="kernels")
    y, told = _answers(result.model, normal(16, 8))
    np.testing.assert_array_equal(told, weight)
    assert _sqnr_db(normal(16, 8) @ weight, y) > FLOOR_DB


def test_a_branch_may_read_what_int8_made(tmp_path: Path) -> None:
    proto = networks.prepared(
        "network (float[N,8] x) => (float[N,8] y) { p = MatMul(x, w) r = Relu(p) q = MatMul(r, v) "
        "m = ReduceMax<keepdims = 0>(x) above = Greater(m, limit) z = If(above) "
        "<then_branch = g () => (float[N,8] a) { a = Neg(r) }, else_branch = e () => (float[N,8] b) { b = Abs(r) }> "
        "y = Add(q, z) }",
        w=normal(8, 8),
        v=normal(8, 8, seed=1),
        limit=np.float32(1.0),
    )
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    x = normal(32, 8)
    result = _apply("quantize_static", model, tmp_path, x, placement="kernels")
    assert result.modified, result.notes
    for rows in (x, np.full((4, 8), -1.0, np.float32)):  # one branch, and the other
        (exact,), (made,) = _answers(model, rows), _answers(result.model, rows)
        assert _sqnr_db(exact, made) > FLOOR_DB


def test_nodes_that_nothing_reached_stay_in_float_and_that_is_the_reason(tmp_path: Path) -> None:
    """As behind a detector that found no box in any sample."""
    proto = networks.prepared(
        "network (float[N,8] x) => (float[M,4] y, float[N,4] z) { m = ReduceMax<axes = [1], keepdims = 0>(x) "
        "found = Greater(m, zero) kept = Compress<axis = 0>(x, found) y = MatMul(kept, w) z = MatMul(x, w) }",
        w=normal(8, 4),
        zero=np.float32(0),
    )
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    result = _apply("quantize_static", model, tmp_path, -np.abs(normal(8, 8)), placement="kernels")
    reasons = {layer.name: layer.reason for layer in result.layers}
    assert reasons == {"MatMul_3": "what it reads or makes was empty in every sample", "MatMul_4": None}
    assert not any("NaN" in note for note in result.notes)


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
def test_each_node_has_its_own_numbers_where_answers_are_left_to_chance(name: str, tmp_path: Path) -> None:
    """What cannot be compared still gets its names: nameless nodes shared the numbers of the last."""
    proto = networks.parse(
        "network (float[N,8] x) => (float[N,8] y) <float half = {0.5}, float little = {0.01}> "
        "{ m = ReduceMax<keepdims = 0>(x) training = Cast<to = 9>(m) p = MatMul(x, w) r = Relu(p) "
        "d = Dropout(r, half, training) n = Mul(d, little) s = Add(r, n) y = MatMul(s, v) }"
    )
    # Of 512 numbers two calls drop the same ones never; of the eight of a narrow network, now and then.
    weights = {"w": normal(8, 512), "v": 100 * normal(512, 8, seed=1)}
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    x = normal(32, 8)
    result = _apply(name, model, tmp_path, x, placement="kernels")
    assert result.modified, result.notes
    assert any("outputs differ from call to call" in note for note in result.notes)
    (exact,), (made,) = _answers(model, x), _answers(result.model, x)
    assert _sqnr_db(exact, made) > FLOOR_DB


# x Phi(x) as exporters write it.
GELU = """network (float[N,6,32] x) => (float[N,6,32] y) {
    wide = MatMul(x, w)
    sum = Add(wide, b)
    part = Div(sum, root)
    error = Erf(part)
    more = Add(error, one)
    scaled = Mul(sum, more)
    y = Mul(scaled, half)
}"""


@pytest.mark.parametrize("fuses", [True, False], ids=["fused", "left"])
def test_patterns_of_transformers_become_one_operator_each(fuses: bool, tmp_path: Path) -> None:
    constants = {"root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    proto = networks.prepared(GELU, w=normal(32, 32), b=normal(32), **constants)
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    x = normal(4, 6, 32)
    result = _apply("optimize_graph", model, tmp_path, x, fuse_transformers=fuses)
    counts = operator_counts(onnx.load(result.model.path))
    assert ("Erf" not in counts) is fuses
    assert any("Gelu" in name for name in counts) is fuses
    np.testing.assert_allclose(_answers(result.model, x)[0], _answers(model, x)[0], rtol=1e-4, atol=1e-4)


def test_the_factors_of_a_weight_may_both_be_quantized_at_run_time(tmp_path: Path) -> None:
    """Of the two products that stand for one, the second reads what the first makes."""
    weights = [normal(64, 8, seed=seed) @ normal(8, 64, seed=seed + 1) / np.float32(24) for seed in (1, 3)]
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["h"], "relu"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "second"),
    ]
    rows: tuple[int, list[int | str | None] | None] = (FLOATS, ["N", 64])
    x = normal(64, 64)
    proto = networks.assemble(nodes, {"x": rows}, {"y": rows}, dict(zip("vw", weights, strict=True)))
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    (tmp_path / "factored").mkdir()
    factored = _apply("factorize_low_rank", model, tmp_path / "factored", x, objective="size")
    assert operator_counts(factored.model.structure())["MatMul"] == 4, factored.notes
    result = _apply("quantize_dynamic", factored.model, tmp_path, x, placement="kernels")
    assert operator_counts(result.model.structure()) == {"DynamicQuantizeMatMul": 4, "Relu": 1}, result.notes
    (exact,), (made,) = _answers(factored.model, x), _answers(result.model, x)
    assert _sqnr_db(exact, made) > FLOOR_DB


def test_what_was_made_float16_is_optimized_in_float16(tmp_path: Path) -> None:
    model = ModelFile(networks.save(networks.perceptron(), tmp_path / "model"))
    (tmp_path / "halved").mkdir()
    halved = _apply("convert_float16", model, tmp_path / "halved", normal(32, 8))
    result = _apply("optimize_graph", halved.model, tmp_path, normal(32, 8))
    made, given = result.model.structure(), halved.model.structure()
    assert half_elements(made) == half_elements(given) > 0
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in given.graph.node]
