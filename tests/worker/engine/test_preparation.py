"""Preparing a graph: a step that fails is left out; a shortage and a model that fails are not its business."""

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.worker import networks
from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal
from worker.engine.faults import OutOfMemory
from worker.engine.graph import computes_the_same, name_nodes, nodes_of, opset_of
from worker.engine.model_file import ModelFile
from worker.engine.preparation import Preparation, Preparations, defaults_in_words, prepare, prepared
from worker.engine.sessions import ModelFails, open_session, run_session

# Expands to as many elements as `x` says.
GROWING = networks.parse(
    "network (float[1,1] x) => (float[1,1] y) <int64[1] flat = {-1}, float[1] one = {1}>"
    "{ n = Reshape(x, flat) size = Cast<to=7>(n) big = Expand(one, size) sum = ReduceSum(big) y = Mul(x, sum) }"
)
GATED = "network (float[N,8] x) => (float[N,8] y) { s = Mul(x, scale) y = Add(s, shift) }"
BEYOND_ANY_MEMORY = 1e15
X = {"x": np.ones((2, 8), np.float32)}


def _preparation(tmp_path: Path, x: float = 1.0) -> Preparation:
    model = ModelFile(networks.save(GROWING, tmp_path / "model"))
    return Preparation.start(model, {"x": np.full((1, 1), x, np.float32)}, tmp_path / "scratch", threads=1)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(MemoryError(), id="memory"),
        pytest.param(OutOfMemory("too much"), id="memory of the job"),
        pytest.param(RuntimeError("std::bad_alloc"), id="memory in a library"),
        pytest.param(OSError(errno.ENOSPC, "No space left on device"), id="disk"),
        pytest.param(RuntimeError("write failed: No space left on device"), id="disk in a library"),
    ],
)
def test_a_shortage_is_not_taken_for_a_step_that_fails(error: Exception, tmp_path: Path) -> None:
    def step(_model: ModelFile, _folder: Path) -> ModelFile:
        raise error

    with pytest.raises(type(error)):
        _preparation(tmp_path).attempt("a step", step)


def test_a_step_that_fails_is_left_out(tmp_path: Path) -> None:
    def step(_model: ModelFile, _folder: Path) -> ModelFile:
        raise ValueError("no such thing\nand more")

    preparation = _preparation(tmp_path)
    assert not preparation.attempt("a step", step)
    assert (preparation.notes, preparation.applied) == (["Left out: a step (no such thing)."], [])


def test_a_result_that_does_not_run_is_left_out(tmp_path: Path) -> None:
    def step(_model: ModelFile, folder: Path) -> ModelFile:
        (folder / "model.onnx").write_bytes(b"no model")
        return ModelFile(folder / "model.onnx")

    preparation = _preparation(tmp_path)
    before = preparation.model
    assert not preparation.attempt("a step", step)
    assert preparation.model == before
    assert "does not load" in preparation.notes[0]


def test_a_note_does_not_say_where_a_worker_keeps_its_files(tmp_path: Path) -> None:
    def step(_model: ModelFile, folder: Path) -> ModelFile:
        raise ValueError(f"cannot write {folder}/model.onnx")

    preparation = _preparation(tmp_path)
    preparation.attempt("a step", step)
    assert preparation.notes == ["Left out: a step (cannot write step-0/model.onnx)."]


@pytest.mark.parametrize(("x", "fault"), [(-5.0, ModelFails), (BEYOND_ANY_MEMORY, OutOfMemory)], ids=["fails", "huge"])
def test_a_model_that_does_not_run_is_said(x: float, fault: type[Exception], tmp_path: Path) -> None:
    model = ModelFile(networks.save(GROWING, tmp_path / "model"))
    with pytest.raises(fault):
        prepare(model, {"x": np.full((1, 1), x, np.float32)}, tmp_path / "scratch", threads=1)


def test_nodes_keep_the_names_that_the_user_knows(tmp_path: Path) -> None:
    """ONNX Runtime calls what it makes of a MatMul and an Add by a name of its own, which no `exclude` would find."""
    model = networks.perceptron()
    model.graph.node[2].name = "mine/SomeFusion"
    prepared = prepare(ModelFile(networks.save(model, tmp_path / "model")), X, tmp_path / "scratch", threads=1)
    assert [node.name for node in prepared.model.structure().graph.node] == ["first", "mine/SomeFusion", "second"]


def test_a_name_that_the_user_gave_is_taken_by_no_other_node(tmp_path: Path) -> None:
    """An `exclude` would protect the nameless node in its place; names within branches count."""
    model = networks.parse(
        "network (float[N,8] x) => (float[N,8] y) { a = Sin(x) b = Cos(a) c = Cos(b) d = Cos(c) above = IsNaN(d) "
        "m = Cast<to = 1>(above) s = ReduceMax<keepdims = 0>(m) t = Cast<to = 9>(s) e = If(t) "
        "<then_branch = g () => (float[N,8] f) { f = Sin(d) }, else_branch = h () => (float[N,8] i) { i = Cos(d) }> "
        "y = Add(a, e) }"
    )
    model.graph.node[1].name = "Sin_0"
    model.graph.node[3].name = "Sin_0"
    model.graph.node[-2].attribute[0].g.node[0].name = "Cos_2"
    name_nodes(model)
    assert [node.name for node in model.graph.node[:4]] == ["Sin_0_0", "Sin_0", "Cos_2_2", "Sin_0_3"]
    assert model.graph.node[-2].attribute[0].g.node[0].name == "Cos_2"
    names = [node.name for node in nodes_of(model.graph)]
    assert len(set(names)) == len(names)
    prepared = prepare(ModelFile(networks.save(model, tmp_path / "model")), X, tmp_path / "scratch", threads=1)
    made = {node.name: node.output[0] for node in prepared.model.structure().graph.node}
    assert made["Sin_0"] == "b"


@pytest.mark.parametrize(("version", "named"), [(3, False), (8, True)], ids=["ir-3", "ir-8"])
def test_inputs_with_a_default_that_become_constants_are_named(version: int, named: bool, tmp_path: Path) -> None:
    """Before IR 4 they are listed because they have to be, and no call can give them."""
    model = networks.with_initializers_as_inputs(networks.holding(GATED, scale=np.float32(2), shift=np.float32(1)))
    model.ir_version = version
    file = ModelFile(networks.save(model, tmp_path / "model"))
    preparation = Preparation.start(file, X, tmp_path / "scratch", threads=1)
    preparation.normalise()
    assert [value.name for value in preparation.model.structure().graph.input] == ["x"]
    assert preparation.notes == []
    said = "Inputs with a default value, 2 of them (scale, shift), are no inputs of what this pass made"
    notes = defaults_in_words(file, preparation.model)
    assert [note.startswith(said) for note in notes] == [True] * named
    assert defaults_in_words(file, file) == []


def test_sparse_constants_become_dense_wherever_they_stand(tmp_path: Path) -> None:
    model = networks.parse(
        "network (float[N,8] x) => (float[N,8] y) { w = Constant() a = MatMul(x, w) s = ReduceMax<keepdims = 0>(a) "
        "above = Cast<to = 9>(s) e = If(above) "
        "<then_branch = g () => (float[N,8] f) { f = Add(a, b) }, else_branch = h () => (float[N,8] i) { i = Neg(a) }> "
        "y = Add(a, e) }"
    )
    w, b = np.diag(np.arange(8, dtype=np.float32)), np.eye(8, dtype=np.float32)[2]
    model.graph.node[0].attribute.append(
        helper.make_attribute("sparse_value", networks.sparse_tensor(w, "", axes=True))
    )
    model.graph.node[-2].attribute[0].g.sparse_initializer.append(networks.sparse_tensor(b, "b"))
    prepared = prepare(ModelFile(networks.save(model, tmp_path / "model")), X, tmp_path / "scratch", threads=1)
    (branching,) = (node for node in prepared.model.structure().graph.node if node.op_type == "If")
    (inner,) = branching.attribute[0].g.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(inner), b)
    (outer,) = prepared.model.structure().graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(outer), w)
    assert not any(note.startswith("Left out") for note in prepared.notes)


def test_a_model_without_standard_operators_is_not_converted_and_not_changed(tmp_path: Path) -> None:
    model = networks.assemble(
        [helper.make_node("Binarizer", ["x"], ["y"], "binarizer", domain="ai.onnx.ml", threshold=0.5)],
        {"x": (TensorProto.FLOAT, ["N", 8])},
        {"y": (TensorProto.FLOAT, ["N", 8])},
        domains={"ai.onnx.ml": 3},
    )
    del model.opset_import[0]
    file = ModelFile(networks.save(model, tmp_path / "model"))
    prepared = prepare(file, X, tmp_path / "scratch", threads=1)
    assert not any("opset" in note for note in prepared.notes)
    assert computes_the_same(file.structure(), prepared.model.structure())


@pytest.mark.parametrize("apart", [False, True], ids=["as it is", "sums kept apart"])
def test_passes_of_one_job_begin_with_one_preparation(apart: bool, tmp_path: Path, context: SamplesContext) -> None:
    proto = networks.attention_block()
    model = ModelFile(networks.save(proto, tmp_path / "model"))
    alone = context(proto, tokens=np.ones((2, 6), np.int64))
    job = replace(alone, preparations=Preparations(model, tmp_path / "shared"))
    wanted = prepared(model, alone, sums_apart=apart)
    first = prepared(model, job, sums_apart=apart)
    first.notes.append("of the first pass")
    assert not first.attempt("a step of its own", lambda _file, _folder: None)
    (job.scratch / "second").mkdir()
    second = prepared(model, replace(job, scratch=job.scratch / "second"), sums_apart=apart)
    assert second.model == first.model
    assert second.model.path.read_bytes() == wanted.model.path.read_bytes()
    assert (second.notes, second.applied) == (wanted.notes, wanted.applied)
    # Whatever it took to make it, a model of gigabytes lies there once for each form.
    assert len(list((tmp_path / "shared").rglob("*.onnx"))) <= 1 + apart


def test_another_model_of_the_job_is_prepared_by_itself(tmp_path: Path, context: SamplesContext) -> None:
    proto = networks.perceptron()
    original, pruned = (ModelFile(networks.save(proto, tmp_path / name)) for name in ("original", "pruned"))
    job = replace(context(proto, **X), preparations=Preparations(original, tmp_path / "shared"))
    made = prepared(pruned, job)
    assert made.model.path.is_relative_to(job.scratch)
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(("opset", "expected"), [(13, 17), (17, 17), (21, 21), (22, 21)], ids=str)
def test_an_opset_is_brought_to_what_rewrites_are_written_for(opset: int, expected: int, tmp_path: Path) -> None:
    model = networks.parse("network (float[N,8] x) => (float[N,8] y) { r = Relu(x) y = Neg(r) }", opset)
    file = ModelFile(networks.save(model, tmp_path / "model"))
    made = prepare(file, {"x": networks.normal(2, 8)}, tmp_path / "scratch", 1)
    assert opset_of(made.model.structure()) == expected


def test_shapes_that_the_file_gives_between_its_nodes_are_not_believed(tmp_path: Path) -> None:
    """They are of the call that was traced. Without symbolic inference, which drops them, nothing else would."""
    model = networks.holding(
        "network (float[N,T,16] x) => (float[P,Q,R] y) { sizes = Shape(x) more = Mul(sizes, times) "
        "target = Div(more, parts) r = Reshape(x, target) s = Relu(r) y = com.microsoft.FusedMatMul(s, w) }",
        times=np.array([2, 2, 1]),
        parts=np.array([1, 1, 4]),
        w=normal(4, 4),
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [2, 8, 4]))
    file = ModelFile(networks.save(model, tmp_path / "model"))
    made = prepare(file, {"x": normal(1, 4, 16)}, tmp_path / "scratch", threads=1)
    assert "shape inference" in made.applied
    assert any("symbolic shape inference" in note for note in made.notes)
    exact, answer = (run_session(open_session(one.path, 1), {"x": normal(3, 4, 16)})[0] for one in (file, made.model))
    np.testing.assert_allclose(answer, exact, rtol=1e-5, atol=1e-6)


def _operators(file: ModelFile) -> list[str]:
    return [node.op_type for node in file.structure().graph.node]


def test_what_computes_in_half_precision_goes_on_doing_so(tmp_path: Path) -> None:
    """The CPU has no such kernels: folding would leave its Casts to float32 and back in the file."""
    dtype = TensorProto.FLOAT16
    weights = helper.make_tensor("w", dtype, [8, 8], normal(8, 8).ravel())
    model = networks.assemble(
        [
            helper.make_node("Cast", ["x"], ["h"], to=dtype),
            helper.make_node("MatMul", ["h", "w"], ["p"]),
            helper.make_node("Relu", ["p"], ["r"]),
            helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
        ],
        {"x": (TensorProto.FLOAT, ["N", 8])},
        {"y": (TensorProto.FLOAT, ["N", 8])},
    )
    model.graph.initializer.append(weights)
    made = prepare(ModelFile(networks.save(model, tmp_path / "model")), X, tmp_path / "scratch", threads=1)
    assert _operators(made.model) == ["Cast", "MatMul", "Relu", "Cast"]
    assert any("half precision" in note for note in made.notes)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "for a pass that stores weights anew"])
def test_weights_that_are_stored_in_half_precision_may_stay_so(keep: bool, tmp_path: Path) -> None:
    model = networks.parse(
        "network (float[N,8] x) => (float[N,8] y) { w = Cast<to = 1>(stored) p = MatMul(x, w) y = Relu(p) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(normal(8, 8).astype(np.float16), "stored"))
    file = ModelFile(networks.save(model, tmp_path / "model"))
    made = prepare(file, X, tmp_path / "scratch", threads=1, keep_halves=keep)
    assert _operators(made.model) == (["Cast", "MatMul", "Relu"] if keep else ["MatMul", "Relu"])
    assert any("fewer bits" in note for note in made.notes) == keep


@pytest.mark.parametrize(
    ("body", "small", "left"),
    [
        ("s = Cast<to = 1>(small) p = Mul(x, s) y = Add(p, s)", np.float16(3), ["Mul", "Add"]),
        ("s = Cast<to = 1>(small) p = Mul(x, s) y = Add(p, s)", np.uint8(3), ["Mul", "Add"]),
        ("s = Cast<to = 9>(small) n = Neg(x) y = Where(s, x, n)", np.tri(8, dtype=np.uint8)[:2], ["Neg", "Where"]),
    ],
    ids=["half precision", "8 bits", "mask"],
)
def test_a_small_constant_that_is_no_weight_lets_others_be_folded(
    body: str, small: np.generic | np.ndarray, left: list[str], tmp_path: Path
) -> None:
    model = networks.parse(f"network (float[N,8] x) => (float[N,8] y) {{ {body} }}")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(small), "small"))
    file = ModelFile(networks.save(model, tmp_path / "model"))
    made = prepare(file, X, tmp_path / "scratch", threads=1, keep_halves=True)
    assert _operators(made.model) == left


def test_where_chance_lets_nothing_be_folded_constants_are_found_all_the_same(tmp_path: Path) -> None:
    model = networks.parse(
        "network (float[N,8] x) => (float[N,8] y) "
        "{ two = Constant<value_float = 2.0>() n = Neg(two) m = Mul(x, n) r = RandomNormalLike(m) y = Add(m, r) }"
    )
    file = ModelFile(networks.save(model, tmp_path / "model"))
    made = prepare(file, X, tmp_path / "scratch", threads=1)
    assert any("nothing can be compared" in note for note in made.notes)
    assert _operators(made.model) == ["Neg", "Mul", "RandomNormalLike", "Add"]
    assert [tensor.name for tensor in made.model.structure().graph.initializer] == ["two"]


@pytest.mark.parametrize("opset", [10, 13], ids=str)
def test_a_model_with_functions_is_brought_to_a_newer_opset(opset: int, tmp_path: Path) -> None:
    """The converter of onnx drops functions, and leaves calls of what is no longer there."""
    model = networks.with_function()
    for entry in [*model.opset_import, *(one for function in model.functions for one in function.opset_import)]:
        entry.version = entry.version if entry.domain else opset
    made = prepare(ModelFile(networks.save(model, tmp_path / "model")), X, tmp_path / "scratch", threads=1)
    assert opset_of(made.model.structure()) == 17
    assert f"converting opset {opset} to 17" in made.applied
    assert _operators(made.model) == ["MatMul", "Relu"]
    assert "Inlined 2 functions of the model, as ONNX Runtime does at every load." in made.notes


def test_a_model_with_functions_of_another_opset_is_brought_to_a_newer_one(tmp_path: Path) -> None:
    model = networks.with_function()
    model.opset_import[0].version = 13
    made = prepare(ModelFile(networks.save(model, tmp_path / "model")), X, tmp_path / "scratch", threads=1)
    assert (opset_of(made.model.structure()), _operators(made.model)) == (17, ["MatMul", "Relu"])
