"""float16: what it cannot hold stays in float32."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from app.recipes.graph import ConvertFloat16
from tests.worker import networks
from worker.engine.faults import OutOfMemory, UserFault
from worker.engine.feeds import match_arrays
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import ModelFails
from worker.passes.convert_float16 import apply

# Expands to as many elements as `x` says.
GROWING = networks.parse(
    "network (float[N,1] x) => (float[N,1] y) <int64[1] flat = {-1}, float[1] one = {1}>"
    "{ n = Reshape(x, flat) size = Cast<to=7>(n) big = Expand(one, size) sum = ReduceSum(big) y = Mul(x, sum) }"
)
# In float16 2049 is 2048, and so many elements there are not.
COUNTING = networks.parse(
    "network (float[1] x) => (float[N,M] y) <float[2049] v = {"
    + ", ".join(["1"] * 2049)
    + "}> { n = Abs(x) one = Div(x, n) sizes = Concat<axis = 0>(n, one) "
    + "shape = Cast<to = 7>(sizes) y = Reshape(v, shape) }"
)
UNCHANGEABLE = networks.parse("network (float[N,4] x) => (float[N,4] y) <int64 axis = {1}> { y = CumSum(x, axis) }")
TINY = np.float32(1e-12)
LARGE = networks.parse("network (float[N,4] x) => (float[N,4] y) { big = Mul(x, x) y = Sqrt(big) }")

ACCOUNTED = networks.parse(
    "network (float[N,4] x) => (float[N,4] y) <int64 axis = {1}, float[4] far = {2000, 3000, 4000, 5000}> { e = Exp(x) "
    "c = CumSum(e, axis) n = Neg(c) wide = Mul(n, far) near = Div(wide, far) y = Add(near, e) }"
)


def _context(model: ModelFile, x: np.ndarray, scratch: Path) -> PassContext:
    scratch.mkdir()
    return PassContext(scratch, match_arrays(inputs_of(model.structure()), {"x": x}, "the data"), seed=0, threads=1)


def test_values_beyond_its_range_stay_in_float32(tmp_path: Path) -> None:
    """1000 squared is beyond 65504; its root is not."""
    model = ModelFile(networks.save(LARGE, tmp_path / "model"))
    x = np.full((2, 4), 1000.0, np.float32)
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(model, config, _context(model, x, tmp_path / "scratch"))
    (y,) = ort.InferenceSession(result.model.path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_allclose(y, 1000.0, rtol=1e-3)
    assert any("stay in float32" in note for note in result.notes)


def test_what_follows_an_operator_unknown_to_shape_inference_is_looked_at(tmp_path: Path) -> None:
    """Files that ONNX Runtime itself optimized hold such operators."""
    model = networks.holding(
        'network (float[N,4] x) => (float[N,4] y) { large = com.microsoft.FusedGemm<activation = "Relu">(x, w) '
        "r = Relu(large) small = MatMul(r, v) y = Sigmoid(small) }",
        w=np.full((4, 4), 3e4, np.float32),
        v=np.full((4, 4), 1e-5, np.float32),
    )
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    file = ModelFile(networks.save(model, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(file, config, _context(file, np.ones((2, 4), np.float32), tmp_path / "scratch"))
    account = {layer.operator: layer.planned for layer in result.layers}
    assert account == {"FusedGemm": "float", "Relu": "float", "MatMul": "float", "Sigmoid": "float16"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_hides_no_value_beyond_its_range(bad: float, tmp_path: Path) -> None:
    model = ModelFile(networks.save(LARGE, tmp_path / "model"))
    x = np.full((4, 4), 1000.0, np.float32)
    x[2] = bad
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(model, config, _context(model, x, tmp_path / "scratch"))
    assert not result.modified or {layer.planned for layer in result.layers} == {"float"}
    assert any("their values leave float16's range: Mul_0, Sqrt_1" in note for note in result.notes)
    assert any("in some samples" in note for note in result.notes)


def test_what_was_never_finite_stays_in_float32_and_that_is_said(tmp_path: Path) -> None:
    """A mask of minus infinity leaves nothing to be known of what it is added to; what comes behind is."""
    model = networks.prepared(
        "network (float[N,4] x) => (float[N,4] y) { masked = Add(x, m) p = Softmax(masked) y = Mul(p, p) }",
        m=np.array([0, 0, 0, -np.inf], np.float32),
    )
    file = ModelFile(networks.save(model, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(file, config, _context(file, networks.normal(4, 4), tmp_path / "scratch"))
    account = {layer.operator: layer for layer in result.layers}
    assert {name for name, layer in account.items() if layer.planned == "float16"} == {"Mul"}
    assert "in every sample" in str(account["Softmax"].reason)
    assert any(note.startswith("2 nodes stay in float32, as NaN or infinity") for note in result.notes)


@pytest.mark.parametrize("keep_io", [True, False])
def test_every_node_is_accounted_for(keep_io: bool, tmp_path: Path) -> None:
    named = onnx.ModelProto()
    named.CopyFrom(ACCOUNTED)
    named.graph.node[2].name = "negated"
    model = ModelFile(networks.save(named, tmp_path / "model"))
    arguments = {"keep_io_types": keep_io, "keep_float32": ["negated"]}
    config = ConvertFloat16.model_validate({"pass": "convert_float16", **arguments})
    x = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    result = apply(model, config, _context(model, x, tmp_path / "scratch"))
    account = {layer.operator: layer for layer in result.layers}
    assert [layer.operator for layer in result.layers] == ["Exp", "CumSum", "Neg", "Mul", "Div", "Add"]
    assert {name for name, layer in account.items() if layer.planned == "float16"} == {"Exp", "Add"}
    reasons = {name: layer.reason for name, layer in account.items() if layer.planned == "float"}
    assert reasons["CumSum"] == "sums up a whole axis, in the type of its input"
    assert reasons["Neg"] == "kept so, as asked"
    assert reasons["Mul"] == reasons["Div"] == "its values leave float16's range"
    # 11 bits of every number: some 70 dB of random ones, or nothing where the runtime here leaves out the rounding.
    lost = {name: layer.sqnr_db for name, layer in account.items() if layer.sqnr_db is not None}
    assert set(lost) == {"Exp", "Add"}
    assert all(sqnr_db > 55 for sqnr_db in lost.values())
    assert all(layer.executed and layer.executed_ms is not None for layer in account.values())


BRANCHED = networks.parse(
    "network (float[N,4] x) => (float[N,4] y) <float[1] limit = {0}> { h = Neg(x) m = ReduceMax<keepdims = 0>(h) "
    "above = Greater(m, limit) above_all = Squeeze(above) y = If(above_all) "
    "<then_branch = g () => (float[N,4] p) { big = Mul(h, h) p = Sqrt(big) },"
    " else_branch = e () => (float[N,4] q) { q = Neg(h) }> }"
)


def test_what_nobody_sees_stays_in_float32(tmp_path: Path) -> None:
    """A branch that no sample takes would be infinite in float16."""
    model = ModelFile(networks.save(BRANCHED, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(model, config, _context(model, np.ones((2, 4), np.float32), tmp_path / "scratch"))
    taken = np.full((1, 4), -1000.0, np.float32)
    (y,) = ort.InferenceSession(result.model.path, providers=["CPUExecutionProvider"]).run(None, {"x": taken})
    np.testing.assert_allclose(y, 1000.0, rtol=1e-3)
    [branch] = [node for node in result.model.structure().graph.node if node.op_type == "If"]
    inside = [node.op_type for attribute in branch.attribute for node in attribute.g.node]
    assert "Cast" not in inside
    assert any("branches and loops" in note for note in result.notes)


def test_what_was_looked_at_is_replayed(tmp_path: Path) -> None:
    model = ModelFile(networks.save(networks.perceptron(), tmp_path / "model"))
    x = np.ones((3, 8), np.float32)
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    first = apply(model, config, _context(model, x, tmp_path / "scratch"))
    assert first.manifest["replay"]["calibration_samples"] == 3
    again = ConvertFloat16.model_validate(first.manifest["replay"])
    assert apply(model, again, _context(model, x, tmp_path / "again")).model.sha256() == first.model.sha256()


def test_inputs_and_outputs_become_float16_when_asked(tmp_path: Path) -> None:
    model = ModelFile(networks.save(networks.perceptron(), tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16", "keep_io_types": False})
    result = apply(model, config, _context(model, np.ones((2, 8), np.float32), tmp_path / "scratch"))
    graph = result.model.structure().graph
    kinds = {value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]}
    assert kinds == {TensorProto.FLOAT16}


def test_the_file_is_about_half_the_size(tmp_path: Path) -> None:
    model = ModelFile(networks.save(networks.perceptron(width=4096), tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(model, config, _context(model, np.ones((2, 8), np.float32), tmp_path / "scratch"))
    # Names and casts cost a little: of 200 kB, well under 5 %.
    assert result.model.size_bytes() < 0.55 * model.size_bytes()


# The first sample runs; what comes after it is beyond any memory, or no size at all.
@pytest.mark.parametrize(("second", "fault"), [(1e15, OutOfMemory), (-5.0, ModelFails)], ids=["huge", "fails"])
def test_what_the_model_itself_meets_is_not_hidden(second: float, fault: type[UserFault], tmp_path: Path) -> None:
    model = ModelFile(networks.save(GROWING, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    x = np.array([[2.0], [second]], np.float32)
    with pytest.raises(fault):
        apply(model, config, _context(model, x, tmp_path / "scratch"))


def test_what_does_not_run_in_float16_is_said_and_changes_nothing(tmp_path: Path) -> None:
    model = ModelFile(networks.save(COUNTING, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16", "keep_io_types": False})
    result = apply(model, config, _context(model, np.full((2, 1), 2049, np.float32), tmp_path / "scratch"))
    assert (result.modified, result.model) == (False, model)
    assert "does not run it in float16" in result.notes[-1]


def test_a_model_without_a_node_for_float16_is_unchanged(tmp_path: Path) -> None:
    model = ModelFile(networks.save(UNCHANGEABLE, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(model, config, _context(model, np.ones((2, 4), np.float32), tmp_path / "scratch"))
    assert (result.modified, result.model) == (False, model)
    assert "nothing was changed" in result.notes[-1]


@pytest.mark.parametrize(
    ("text", "modified"),
    [
        pytest.param("w = Constant() f = Cast<to = 1>(x) p = MatMul(f, w) y = ArgMax<axis = 1>(p)", True, id="tensor"),
        pytest.param("f = Cast<to = 1>(x) p = Mul(f, f) y = ArgMax<axis = 1>(p)", True, id="cast"),
        pytest.param("p = Mul(x, x) y = ArgMax<axis = 1>(p)", False, id="none"),
    ],
)
def test_float32_between_integers_is_seen(text: str, modified: bool, tmp_path: Path) -> None:
    model = networks.parse(f"network (int64[N,4] x) => (int64[N,1] y) {{ {text} }}")
    if "Constant" in text:
        weight = onnx.numpy_helper.from_array(networks.normal(4, 4))
        model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", weight))
    file = ModelFile(networks.save(model, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    result = apply(file, config, _context(file, np.ones((2, 4), np.int64), tmp_path / "scratch"))
    assert result.modified == modified, result.notes
    assert ("The model holds no float32; nothing was changed." in result.notes) != modified


def test_values_too_small_for_it_are_raised_and_said(tmp_path: Path) -> None:
    """What keeps a root from 0 must not become 0 itself."""
    model = networks.prepared("network (float[N,4] x) => (float[N,4] y) { r = Add(x, e) y = Div(x, r) }", e=TINY)
    file = ModelFile(networks.save(model, tmp_path / "model"))
    config = ConvertFloat16.model_validate({"pass": "convert_float16"})
    x = np.zeros((2, 4), np.float32)
    result = apply(file, config, _context(file, x, tmp_path / "scratch"))
    (y,) = ort.InferenceSession(result.model.path, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert np.isfinite(y).all()
    assert any("1 values in 1 constants were too close to 0" in note for note in result.notes)
