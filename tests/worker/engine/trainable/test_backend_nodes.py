"""ONNX's own backend tests of every operator that is claimed: the module gives the answers that the tests want.

What is left out is left out by rule, printed and counted:
- models with an operator that is not claimed;
- claimed operators that are fed text, sequences, types that torch has no arithmetic for, or half precision, whose
  answers depend on the order of roundings: nothing is trained in it, and inspection says so of these very models;
- answers of such types;
- Dropout in training mode, whose answer is a matter of one generator of random numbers;
- opsets before 7, which ONNX Runtime does not run.
Where ONNX Runtime answers otherwise than the test wants, the module has to agree with ONNX Runtime: it runs the file.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from tests.worker.backend_nodes import EXPANDED, STORED, STORED_KINDS
from tests.worker.engine.trainable.test_opset_ranges import FUSED, OLD
from worker.engine.graph import inputs_of, opset_of, qualified
from worker.engine.inspection import walk
from worker.engine.trainable.arrays import array_from, tensor_from
from worker.engine.trainable.claims import CLAIMED, unsupported
from worker.engine.trainable.importing import module_of

COMPUTED = frozenset({"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"})
OLDEST_OPSET = 7
# The tests' own tolerance; below it, float32 noise of a result that should be zero counts by the tensor's magnitude.
RTOL, NOISE = 1e-3, 1e-6
# What is taken of the pinned onnx. Fewer, and less is proved than it says.
LEAST_CASES, LEAST_OPERATORS, LEAST_DERIVED = 1400, 150, 700
# Rules, and how many tests of the pinned onnx each leaves out.
UNCLAIMED, FED = "with an operator that is not claimed", "fed types that are not trained in"
ANSWERED, DROPPED, OLD_OPSETS = "answering such types", "with Dropout while it trains", "of opsets before 7"
LEFT_OUT = {FED: 262, UNCLAIMED: 217, OLD_OPSETS: 115, ANSWERED: 12, DROPPED: 4}
# Inputs that torch derives nothing by: running statistics, and the weights of classes.
WITHOUT_GRADIENT = {"BatchNormalization": (3, 4), "NegativeLogLikelihoodLoss": (2,), "SoftmaxCrossEntropyLoss": (2,)}


@dataclass(frozen=True)
class Case:
    """A model, what it is fed, and what it has to answer."""

    name: str
    model: ModelProto
    feed: dict[str, np.ndarray]
    answers: list[np.ndarray]


@dataclass
class Taken:
    """The cases, and how many were left out by each rule."""

    cases: list[Case] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def _takes(model: ModelProto, left_out: Counter[str]) -> bool:
    """Whether the rules for models let it in; counted where they do not."""
    names = {qualified(node) for node in walk.nodes(model)}
    rule = None
    if unsupported(model):
        rule = FED if names <= CLAIMED else UNCLAIMED
    elif opset_of(model) < OLDEST_OPSET:
        rule = OLD_OPSETS
    left_out.update([rule] if rule else [])
    return rule is None


def _node_cases(left_out: Counter[str]) -> Iterator[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they overflow and divide by zero on purpose
        found = collect_testcases()
    for case in found:
        if _takes(case.model, left_out):
            inputs, outputs = (list(map(_array, arrays)) for arrays in case.data_sets[0])
            names = [value.name for value in case.model.graph.input]
            yield Case(case.name, case.model, dict(zip(names, inputs, strict=True)), outputs)


def _stored_cases(left_out: Counter[str]) -> Iterator[Case]:
    for kind in STORED_KINDS:
        for folder in sorted((STORED / kind).iterdir()):
            model = onnx.load(folder / "model.onnx")
            if _takes(model, left_out):
                inputs, outputs = (_stored(folder / "test_data_set_0", part) for part in ("input", "output"))
                names = [face.name for face in inputs_of(model)]
                yield Case(f"{kind}/{folder.name}", model, dict(zip(names, inputs, strict=True)), outputs)


def _stored(folder: Path, part: str) -> list[np.ndarray]:
    paths = sorted(folder.glob(f"{part}_*.pb"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [_array(TensorProto.FromString(path.read_bytes())) for path in paths]


def _array(value: object) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def _rule(case: Case) -> str | None:
    """By which a case is left out whose model is taken; None where it is not."""
    if any(array.dtype.name not in COMPUTED for array in [*case.feed.values(), *case.answers]):
        return ANSWERED
    node = case.model.graph.node[0]
    drops = node.op_type == "Dropout" and len(node.input) > 2 and bool(case.feed.get(node.input[2], False))
    return DROPPED if drops and float(case.feed.get(node.input[1], 0.5)) > 0 else None


def _fault(case: Case, answers: list[np.ndarray]) -> str | None:
    """What is wrong with the module's answer, in words."""
    module = module_of(ir.serde.deserialize_model(case.model))
    with torch.no_grad():
        found = module({name: tensor_from(array) for name, array in case.feed.items()})
    for value, wanted in zip(case.model.graph.output, answers, strict=True):
        have = array_from(found[value.name])
        if have.dtype != wanted.dtype or have.shape != wanted.shape:
            return f"{wanted.dtype} {wanted.shape} became {have.dtype} {have.shape}"
        finite = np.abs(wanted[np.isfinite(wanted)]).max(initial=0) if wanted.dtype.kind == "f" else 0
        if not np.allclose(have, wanted, rtol=RTOL, atol=NOISE * finite + 1e-7, equal_nan=True):
            return f"other values of {value.name}"
    return None


def _runtime_answers(case: Case) -> list[np.ndarray] | None:
    """What ONNX Runtime says; None where it does not run the model."""
    try:
        session = onnxruntime.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
        found: list[np.ndarray] = session.run(None, case.feed)
    except Exception:  # its exceptions share no base class
        return None
    return found


def _outcome(case: Case) -> str | None:
    """None where the case passes, or agrees with ONNX Runtime in spite of the test."""
    try:
        fault = _fault(case, case.answers)
        answers = _runtime_answers(case) if fault else None
        return fault if answers is None else _fault(case, answers)
    except Exception as error:  # whatever an operator raises is what is looked for
        return f"{type(error).__name__}: {error}"


def _derived(case: Case) -> list[str] | None:
    """Float inputs whose gradient is not finite; None where the case has no finite float output to derive."""
    feed = {name: tensor_from(array) for name, array in case.feed.items()}
    node = case.model.graph.node[0]
    fixed = {node.input[position] for position in WITHOUT_GRADIENT.get(node.op_type, ()) if position < len(node.input)}
    names = [name for name, one in feed.items() if one.is_floating_point() and name not in fixed]
    for name in names:
        feed[name].requires_grad_(True)
    outputs = [one for one in module_of(ir.serde.deserialize_model(case.model))(feed).values() if one.requires_grad]
    if not outputs or not all(bool(one.isfinite().all()) for one in [*outputs, *(feed[name] for name in names)]):
        return None
    total = sum(one.double().sum() for one in outputs)
    found = torch.autograd.grad(total, [feed[name] for name in names], allow_unused=True)
    return [name for name, one in zip(names, found, strict=True) if one is not None and not one.isfinite().all()]


@pytest.fixture(scope="module")
def taken() -> Taken:
    found = Taken()
    for case in (*_node_cases(found.left_out), *_stored_cases(found.left_out)):
        rule = _rule(case)
        if rule is None:
            found.cases.append(case)
        else:
            found.left_out[rule] += 1
    return found


@pytest.fixture(scope="module")
def cases(taken: Taken) -> list[Case]:
    return taken.cases


def test_what_is_left_out_is_counted_by_rule(taken: Taken, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        counts = ", ".join(f"{count} {rule}" for rule, count in taken.left_out.most_common())
        sys.stdout.write(f"\ntrainable: {len(taken.cases)} backend tests taken; left out: {counts}\n")
    assert taken.left_out == LEFT_OUT


def test_every_claimed_operator_answers_as_the_backend_tests_want(
    cases: list[Case], capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {case.name: fault for case in cases if (fault := _outcome(case)) is not None}
    operators = Counter(name for case in cases for name in {node.op_type for node in case.model.graph.node} & CLAIMED)
    passed = len(cases) - len(failed)
    with capsys.disabled():
        share = f"{passed} of {len(cases)} backend tests pass ({100 * passed / len(cases):.2f} %)"
        sys.stdout.write(f"\ntrainable: {share}, {len(operators)} operators among them\n")
    assert failed == {}
    assert len(cases) >= LEAST_CASES
    assert len(operators) >= LEAST_OPERATORS
    # What only older versions of ONNX have, or its runtime alone, is tried there.
    elsewhere = {case.operator for case in (*OLD, *FUSED)}
    assert {name for name in CLAIMED if "." not in name} - operators.keys() - elsewhere == set()


def test_gradients_are_finite_where_answers_are(cases: list[Case]) -> None:
    """Of the nodes themselves: what they expand to by definition divides by zero in branches that are not taken."""
    derived = {case.name: _derived(case) for case in cases if EXPANDED not in case.name}
    found = {name: inputs for name, inputs in derived.items() if inputs is not None}
    # Acosh is vertical at 1, which the test asks for.
    assert {name for name, inputs in found.items() if inputs} == {"test_acosh_example"}
    assert len(found) >= LEAST_DERIVED
