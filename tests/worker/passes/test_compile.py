"""The graph as it runs here, in a file, and what is said of it."""

import time
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from app.recipes.catalogue import CATALOGUE
from tests.worker import networks
from worker.engine.feeds import match_arrays
from worker.engine.float16.halves import half_elements
from worker.engine.graph import inputs_of, replace_field
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, PassResult
from worker.engine.processor import instruction_sets, processor_name
from worker.engine.sessions import ModelFails, session_options
from worker.passes import compile as compile_pass
from worker.passes.registry import load_pass

IMAGES = {"image": np.random.default_rng(1).standard_normal((2, 3, 16, 16)).astype(np.float32)}
BRANCHING_WEIGHTS = {
    "w": networks.normal(16, 3, 3, 3),
    "v": networks.normal(8, 16, 1, 1),
    "t": networks.normal(8, 16, 1, 1, seed=1),
    "s": networks.normal(8, 3, 3, 3),
}
ROWS = {"x": networks.normal(2, 8)}
TOKENS = {"tokens": np.random.default_rng(1).integers(0, 50, (2, 6))}


def _apply(
    model: onnx.ModelProto, folder: Path, arrays: dict[str, np.ndarray], name: str = "compile", **arguments: Any
) -> PassResult:
    file = ModelFile(networks.save(model, folder / "model"))
    (folder / "scratch").mkdir()
    feeds = match_arrays(inputs_of(file.structure()), arrays, "the data")
    deadline = arguments.pop("deadline", float("inf"))
    config = CATALOGUE[name].config.model_validate({"pass": name, **arguments})
    return load_pass(name)(file, config, PassContext(folder / "scratch", feeds, seed=0, threads=1, deadline=deadline))


def _operators(path: Path) -> Counter[tuple[str, str]]:
    return Counter((node.domain, node.op_type) for node in onnx.load(path).graph.node)


def _executed(path: Path, folder: Path) -> Counter[tuple[str, str]]:
    options = session_options(1)
    options.optimized_model_filepath = str(folder / "executed.onnx")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return _operators(folder / "executed.onnx")


@pytest.mark.parametrize(
    ("model", "arrays"),
    [(networks.convnet(), IMAGES), (networks.attention_block(), TOKENS)],
    ids=["convnet", "attention"],
)
def test_the_file_holds_the_graph_that_runs(
    model: onnx.ModelProto, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    result = _apply(model, tmp_path, arrays)
    held = _operators(result.model.path)
    assert held == _executed(tmp_path / "model" / "model.onnx", tmp_path)
    assert result.manifest["load_ms"].keys() == {"original", "compiled", "ort"}
    assert all(value > 0 for value in result.manifest["load_ms"].values())
    # Nothing is left to be optimized when it is loaded.
    assert held == _executed(result.model.path, tmp_path)


def test_what_a_node_leaves_out_stays_left_out(tmp_path: Path) -> None:
    """Inputs and outputs of one node, which would be its own source were they given a name."""
    model = networks.recurrent()
    lstm = next(node for node in model.graph.node if node.op_type == "LSTM")
    replace_field(lstm.input, [*lstm.input[:4], "", "", ""])
    replace_field(lstm.output, [lstm.output[0], "", ""])
    model.graph.node.append(onnx.helper.make_node("Identity", [model.graph.output[0].name], ["copy"]))
    model.graph.output[0].name = "copy"
    result = _apply(model, tmp_path, {"x": np.ones((2, 5, 1, 3), np.float32)})
    assert result.modified
    assert "could not be compiled" not in " ".join(result.notes)


@pytest.mark.parametrize(
    ("model", "arrays"),
    [(networks.convnet(), IMAGES), (networks.recurrent(), {"x": np.ones((2, 5, 1, 3), np.float32)})],
    ids=["compiled", "nothing-to-compile"],
)
def test_the_ort_file_answers_as_the_original(
    model: onnx.ModelProto, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = "classes", "cat,dog"
    result = _apply(model, tmp_path, arrays)
    sessions = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (tmp_path / "model" / "model.onnx", result.extras["ort"])
    ]
    name, array = next(iter(arrays.items()))
    feed = {name: array[0] if array.ndim == 4 and name == "x" else array[:1]}
    expected, actual = (session.run(None, feed)[0] for session in sessions)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    faces = [[(value.name, value.type, value.shape) for value in session.get_inputs()] for session in sessions]
    assert faces[0] == faces[1]
    assert sessions[1].get_modelmeta().custom_metadata_map["classes"] == "cat,dog"


def test_the_target_is_named(tmp_path: Path) -> None:
    result = _apply(networks.convnet(), tmp_path, IMAGES)
    assert result.manifest["target"] == {
        "processor": processor_name(),
        "instruction_sets": instruction_sets(),
        "onnxruntime": ort.__version__,
    }
    said = " ".join(result.notes)
    assert f"for {processor_name()}" in said
    assert "for this machine only" in said
    layouts = sum(count for (domain, _), count in _operators(result.model.path).items() if "nchwc" in domain)
    assert (f"{layouts} nodes of com.microsoft.nchwc" in said) == bool(layouts)


def test_weights_in_few_bits_are_said_to_be_taken_apart(tmp_path: Path) -> None:
    stored = _apply(networks.convnet(), tmp_path, IMAGES, name="quantize_weights", minimum_elements=1)
    (tmp_path / "again").mkdir()
    result = _apply(stored.model.load(), tmp_path / "again", IMAGES)
    assert any("were taken apart" in note for note in result.notes)


def test_a_model_in_float16_is_said_to_be_float32_again(tmp_path: Path) -> None:
    halved = _apply(networks.perceptron(width=64), tmp_path, ROWS, name="convert_float16")
    (tmp_path / "again").mkdir()
    result = _apply(halved.model.load(), tmp_path / "again", ROWS)
    kept = half_elements(result.model.structure())
    assert kept < half_elements(halved.model.structure())
    assert any("became float32" in note for note in result.notes)


def test_the_ort_file_is_left_out_where_it_is_not_asked_for(tmp_path: Path) -> None:
    result = _apply(networks.convnet(), tmp_path, IMAGES, ort_format=False)
    assert (result.modified, result.extras) == (True, {})


def test_a_model_too_large_for_the_format_has_no_ort_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_pass, "MAX_SINGLE_FILE_BYTES", 1000)
    result = _apply(networks.convnet(), tmp_path, IMAGES)
    assert (result.modified, result.extras) == (True, {})
    assert any("no model over 2 GB" in note for note in result.notes)
    assert result.manifest["load_ms"].keys() == {"original", "compiled"}


# Convolutions in the processor's layout, whose results are read in the file's as well: each of them is brought back.
BRANCHING = """network (float[N,3,8,8] x) => (float[N,8] y, float[N,8] z, float[N,16,8,8] u) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Relu(a) u = Sin(b) c = Conv(b, v) e = Conv(b, v) d = Conv(b, t)
    f = Softmax<axis = 1>(c) g = Softmax<axis = 2>(d) p = Conv<pads = [1, 1, 1, 1]>(x, s) r = Erf(p)
    h = ReduceMean<axes = [2, 3], keepdims = 0>(f) k = ReduceMean<axes = [2, 3], keepdims = 0>(g)
    q = ReduceMean<axes = [2, 3], keepdims = 0>(r) i = ReduceMax<axes = [2, 3], keepdims = 0>(e)
    o = Add(h, q) y = Mul(o, i) z = Add(k, q)
}"""


def _written_otherwise(model: ModelFile, names: Collection[str], seed: int) -> ModelFile:
    """As the runtime may write it another time: other names of its own, and nodes in another valid order."""
    proto = model.load()
    random = np.random.default_rng(seed)
    nodes, order = list(proto.graph.node), list[onnx.NodeProto]()
    made = {one.name for one in [*proto.graph.initializer, *proto.graph.input]} | {""}
    while nodes:
        ready = [node for node in nodes if set(node.input) <= made]
        order.append(ready[random.integers(len(ready))])
        nodes.remove(order[-1])
        made |= set(order[-1].output)
    new = {name: f"token_{number}" for number, name in enumerate(random.permutation(sorted(made - set(names) - {""})))}
    for number, node in enumerate(order):
        node.name = node.name if node.name in names else f"node_{number}"
        replace_field(node.input, [new.get(name, name) for name in node.input])
        replace_field(node.output, [new.get(name, name) for name in node.output])
    for tensor in proto.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    replace_field(proto.graph.node, order)
    replace_field(proto.graph.initializer, random.permutation(np.array(list(proto.graph.initializer), object)))
    model.path.write_bytes(proto.SerializeToString())
    return model


@pytest.mark.parametrize(
    ("model", "arrays"),
    [
        (networks.prepared(BRANCHING, **BRANCHING_WEIGHTS), {"x": networks.normal(2, 3, 8, 8)}),
        (networks.convnet(), IMAGES),
        (networks.attention_block(), TOKENS),
    ],
    ids=["branches", "convnet", "attention"],
)
def test_the_bytes_do_not_depend_on_where_the_runtime_s_memory_lies(
    model: onnx.ModelProto, arrays: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {node.name for node in model.graph.node} | {name for node in model.graph.node for name in node.output}
    names |= {one.name for one in [*model.graph.initializer, *model.graph.input]}
    write, written = compile_pass.write_optimized, set[bytes]()
    for seed in range(4):

        def otherwise(*arguments: Any, seed: int = seed) -> ModelFile:
            return _written_otherwise(write(*arguments), names, seed)

        monkeypatch.setattr(compile_pass, "write_optimized", otherwise)
        (tmp_path / str(seed)).mkdir()
        result = _apply(model, tmp_path / str(seed), arrays, ort_format=False)
        assert result.modified, result.notes
        written.add(result.model.path.read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize(("seconds", "loads"), [(0.0, 3), (600.0, 9)], ids=["no-time", "time"])
def test_loads_are_not_repeated_without_time(
    seconds: float, loads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three files: the original, the compiled one and the .ort, once each, or three times."""
    made: list[ort.InferenceSession] = []
    given = compile_pass.open_session
    monkeypatch.setattr(compile_pass, "open_session", lambda *arguments: made.append(given(*arguments)))
    result = _apply(networks.convnet(), tmp_path, IMAGES, deadline=time.monotonic() + seconds)
    assert len(made) == loads
    assert result.manifest["load_ms"].keys() == {"original", "compiled", "ort"}


@pytest.mark.parametrize(("suffix", "modified"), [(".ort", True), (".onnx", False)])
def test_what_the_runtime_cannot_write_is_left_out(
    suffix: str, modified: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = compile_pass.write_optimized

    def refusing(model: ModelFile, target: Path, threads: int, level: Any) -> ModelFile:
        if target.suffix == suffix:
            raise ModelFails("it cannot be written", None)
        return write(model, target, threads, level)

    monkeypatch.setattr(compile_pass, "write_optimized", refusing)
    result = _apply(networks.convnet(), tmp_path, IMAGES)
    assert (result.modified, result.extras) == (modified, {})
    assert any("it cannot be written" in note for note in result.notes)
