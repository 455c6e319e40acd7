"""What an output means, and which tensor says so."""

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import pytest

from app.recipes.training import FineTune
from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.training.readings import Reading, find_readings, squashed_by
from worker.engine.training.targets import Target
from worker.engine.training.teaching import match_outputs

HEAD = "g (float[N,4] x) => (float[N,4] y) {{ s = MatMul(x, x) y = {} }}"
STEPS = "g (float[N,4] x) => (float[N,4] y) {{ s = MatMul(x, x) {} }}"
SQUEEZED = STEPS.format(
    "at = Constant<value = int64[1] {2}>() u = Unsqueeze(s, at) p = Softmax<axis=1>(u) y = Squeeze(p, at)"
)


@dataclass
class Case:
    id: str
    text: str
    value: str
    axis: int | None
    certain: bool = True
    kinds: dict[str, str] = field(default_factory=dict)
    target: int | None = None
    shape: tuple[int, ...] = (2, 4)
    opset: int = 17
    probabilities: bool = False


CASES = [
    Case("scores-as-they-are", HEAD.format("Identity(s)"), "y", 1, certain=False),
    Case("said-to-be-classes", HEAD.format("Identity(s)"), "y", 1, kinds={"y": "classes"}),
    Case("said-to-be-numbers", HEAD.format("Softmax(s)"), "y", None, kinds={"y": "numbers"}),
    Case("labels-are-classes", HEAD.format("Identity(s)"), "y", 1, target=1),
    Case("behind-a-softmax", HEAD.format("Softmax(s)"), "s", 1),
    Case("behind-a-logarithm", HEAD.format("LogSoftmax<axis=1>(s)"), "s", 1),
    Case("behind-a-softmax-of-another-name", STEPS.format("p = Softmax(s) y = Identity(p)"), "s", 1, target=1),
    Case("behind-a-softmax-in-another-type", STEPS.format("p = Softmax(s) y = Cast<to=1>(p)"), "s", 1, target=1),
    Case("a-softmax-of-another-shape", SQUEEZED, "y", 1, target=1, probabilities=True),
    Case("a-softmax-of-another-shape-without-labels", SQUEEZED, "y", 1, probabilities=True),
    Case("a-softmax-said-to-be-numbers", SQUEEZED, "y", None, kinds={"y": "numbers"}),
    Case("classes-behind-a-sigmoid", HEAD.format("Sigmoid(s)"), "y", 1, target=1, probabilities=True),
    Case("a-sigmoid-without-labels", HEAD.format("Sigmoid(s)"), "y", 1, certain=False),
    Case("softmax-of-old", HEAD.format("Softmax(s)"), "s", 1, opset=9),
    Case("softmax-over-the-samples", HEAD.format("Softmax<axis=0>(s)"), "y", 1, target=1),
    Case("one-column-is-no-class", HEAD.format("Identity(s)"), "y", None, shape=(2, 1)),
    Case("a-sequence-holds-numbers", HEAD.format("Identity(s)"), "y", None, shape=(2, 5, 4)),
    Case("classes-of-a-sequence", HEAD.format("Identity(s)"), "y", 2, kinds={"y": "classes"}, shape=(2, 5, 4)),
    Case("classes-of-pixels", HEAD.format("Identity(s)"), "y", 1, kinds={"y": "classes"}, shape=(2, 4, 5, 5)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_scores_are_read_where_they_are(case: Case) -> None:
    graph = ir.from_proto(networks.parse(case.text, case.opset))
    options = FineTune.model_validate({"pass": "fine_tune", "kinds": case.kinds})
    targets = {"y": Target("y", "label", np.zeros(2), case.target)} if case.target is not None else {}
    found = find_readings(graph, {"y": normal(*case.shape)}, targets, options, whole=False)["y"]
    assert (found.value, found.axis, found.certain) == (case.value, case.axis, case.certain)
    assert found.probabilities == case.probabilities


@pytest.mark.parametrize(
    ("head", "squashed"),
    [
        ("y = Sigmoid(s)", "Sigmoid"),
        ("p = Sigmoid(s) r = Transpose<perm=[0,1]>(p) y = Identity(r)", "Sigmoid"),
        ("y = Softmax(s)", "Softmax"),
        ("p = Sigmoid(s) y = Mul(p, s)", None),
        ("y = LogSoftmax(s)", None),
    ],
    ids=["at-once", "reshaped", "softmax", "a-gate", "logarithms"],
)
def test_probabilities_are_told_by_what_makes_them(head: str, squashed: str | None) -> None:
    text = f"g (float[N,4] x) => (float[N,4] y) {{ s = MatMul(x, x) {head} }}"
    assert squashed_by(ir.from_proto(networks.parse(text)), "y") == squashed


def test_whole_calls_count_one_axis_more() -> None:
    graph = ir.from_proto(networks.parse(HEAD.format("Softmax(s)")))
    options = FineTune.model_validate({"pass": "fine_tune"})
    found = find_readings(graph, {"y": normal(1, 2, 4)}, {}, options, whole=True)["y"]
    assert (found.value, found.axis) == ("s", 2)


@pytest.mark.parametrize("text", [HEAD.format("Softmax(s)"), SQUEEZED], ids=["at-once", "squeezed"])
def test_a_teacher_of_probabilities_is_known_by_them(text: str) -> None:
    (soft,) = match_outputs(ir.from_proto(networks.parse(text)), {"y": Reading("y", "y", 1)})
    assert soft.probabilities
