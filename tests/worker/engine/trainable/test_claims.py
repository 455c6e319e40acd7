"""What inspection claims without torch is what there are functions for, and the documentation lists the rest."""

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import ModelProto, TensorProto, defs, helper

from tests.worker import networks
from worker.engine.trainable.claims import CLAIMED, NEWEST_OPSET, unsupported
from worker.engine.trainable.operators import TABLE

ROOT = Path(__file__).parents[4]
OLDEST_OPSET = 7
# Read when the graph is, and so in no table.
READ_AT_IMPORT = {"Constant"}
FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING


def _standard() -> set[str]:
    """Names of the operators that some opset from 7 on has, deprecated ones included where that is so."""
    newest = range(OLDEST_OPSET, defs.onnx_opset_version() + 1)
    return {
        schema.name
        for schema in defs.get_all_schemas_with_history()
        if schema.domain == "" and (not schema.deprecated or schema.since_version in newest)
    }


def test_the_table_and_the_claims_agree() -> None:
    assert TABLE.names | READ_AT_IMPORT == CLAIMED


@pytest.mark.parametrize("opset", range(OLDEST_OPSET, NEWEST_OPSET + 1))
def test_a_claimed_operator_has_one_function_in_every_opset(opset: int) -> None:
    for name in CLAIMED - READ_AT_IMPORT:
        fitting = [entry for entry in TABLE.entries[name] if entry.since <= opset <= entry.until]
        assert len(fitting) <= 1, name
        if defs.has(name, opset, "") and not defs.get_schema(name, opset, "").deprecated:
            assert fitting, name


def test_the_claims_know_the_newest_operators_that_onnx_has() -> None:
    assert defs.onnx_opset_version() == NEWEST_OPSET


def test_the_documentation_lists_what_is_not_claimed() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("## Operators that cannot be trained")[2].partition("\n## ")[0]
    listed = {word for line in section.splitlines() if line.startswith("    ") for word in line.split()}
    assert listed == _standard() - CLAIMED


def test_what_cannot_be_trained_is_known_without_torch(tmp_path: Path) -> None:
    path = networks.save(networks.with_branches(), tmp_path)
    code = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from worker.engine.inspection.model import inspect
print(inspect(Path({str(path)!r})).training_blockers)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['If']"


def _foreign() -> ModelProto:
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0], scale=[2.0])
    return networks.assemble([node], {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])}, domains={"ai.onnx.ml": 3})


def _text() -> ModelProto:
    return networks.parse("g (string[N] a, string[N] b) => (bool[N] y) { y = Equal(a, b) }", opset=19)


def _half() -> ModelProto:
    """Weights in half precision, one of them only stored so."""
    return networks.parse(
        """g (float16[N,4] x) => (float[N,4] y) <float16[4,4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
        { p = MatMul(x, w) y = Cast<to=1>(p) }"""
    )


def _with_past() -> ModelProto:
    names = ["q", "k", "v", "", "", "", "past_key", "past_value"]
    node = helper.make_node("MultiHeadAttention", names, ["y", "pk", "pv"], domain="com.microsoft", num_heads=2)
    faces = {name: (FLOAT, None) for name in names if name}
    return networks.assemble([node], faces, {"y": (FLOAT, None)}, domains={"com.microsoft": 1})


def _behind_a_cast() -> ModelProto:
    """What is in half precision within alone."""
    return networks.parse("g (float[N,4] x) => (float[N,4] y) { h = Cast<to=10>(x) r = Relu(h) y = Cast<to=1>(r) }")


def _packed(*names: str) -> ModelProto:
    """Keys and values in one tensor with queries, or with each other."""
    node = helper.make_node("MultiHeadAttention", list(names), ["y"], domain="com.microsoft", num_heads=2)
    faces = {name: (FLOAT, None) for name in names if name}
    return networks.assemble([node], faces, {"y": (FLOAT, None)}, domains={"com.microsoft": 1})


def _text_constant() -> ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["t"], value_strings=["a"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    return networks.assemble(nodes, {"x": (FLOAT, ["N"])}, {"y": (FLOAT, ["N"])})


def _of_the_future() -> ModelProto:
    """An opset that onnx does not know yet, of operators that have not changed since."""
    model = networks.perceptron()
    model.opset_import[0].version = NEWEST_OPSET
    return model


@pytest.mark.parametrize(
    ("model", "names"),
    [
        pytest.param(networks.convnet(), [], id="convolutions"),
        pytest.param(networks.attention_block(), [], id="attention"),
        pytest.param(networks.recurrent(), [], id="lstm"),
        pytest.param(networks.with_function(), [], id="functions"),
        pytest.param(networks.with_branches(), ["If"], id="control-flow"),
        pytest.param(_foreign(), ["ai.onnx.ml.Scaler"], id="foreign-domain"),
        pytest.param(_text(), ["Equal"], id="text"),
        pytest.param(_text_constant(), ["Constant"], id="constant-text"),
        pytest.param(_half(), ["MatMul"], id="half-precision"),
        pytest.param(_with_past(), ["com.microsoft.MultiHeadAttention"], id="a-past"),
        pytest.param(_behind_a_cast(), ["Relu"], id="half-precision-within"),
        pytest.param(_packed("qkv"), ["com.microsoft.MultiHeadAttention"], id="packed"),
        pytest.param(_packed("q", "kv", "", "", "mask"), ["com.microsoft.MultiHeadAttention"], id="packed-in-twos"),
        pytest.param(_packed("q", "k", "v"), [], id="apart"),
        pytest.param(_of_the_future(), [], id="newest-opset"),
        pytest.param(networks.quantized_product(), ["DequantizeLinear", "QLinearMatMul", "QuantizeLinear"], id="int8"),
    ],
)
def test_operators_that_prevent_training_are_named(model: ModelProto, names: list[str]) -> None:
    assert unsupported(model) == names
