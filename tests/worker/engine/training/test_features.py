"""Inner tensors of two networks by pairs."""

from dataclasses import dataclass, field

import onnx_ir as ir
import pytest
import torch

from tests.worker import networks
from tests.worker.networks import normal
from worker.engine.training.features import (
    Inner,
    NoSuchFeature,
    Pair,
    convolved,
    fit_projection,
    match_features,
    project,
)


def _values(**shapes: tuple[int, ...]) -> Inner:
    return Inner({name: normal(2, *shape) for name, shape in shapes.items()})


def _convolved(whole: bool = False, **shapes: tuple[int, ...]) -> Inner:
    return Inner(_values(**shapes).rows, frozenset(shapes), whole)


@dataclass
class Case:
    id: str
    student: Inner
    teacher: Inner
    expected: list[Pair]
    asked: dict[str, str] = field(default_factory=dict)


DEEP = {f"c{number}": (8, 4, 4) for number in range(8)}
CASES = [
    Case("names-match", _values(a=(8, 4, 4)), _values(a=(8, 4, 4), b=(8, 4, 4)), [Pair("a", "a")]),
    Case("narrower-of-the-same-name", _values(a=(4, 4, 4)), _values(a=(8, 4, 4)), [Pair("a", "a", 1)]),
    Case(
        "a-few-spread-over-the-depth",
        _values(**DEEP),
        _values(**DEEP),
        [Pair(name, name) for name in ("c1", "c3", "c5", "c7")],
    ),
    Case(
        "the-last-of-each-place",
        _values(s1=(4, 8, 8), s2=(4, 8, 8), s3=(6, 4, 4), s4=(10,)),
        _values(t1=(16, 8, 8), t2=(16, 4, 4), t3=(16, 4, 4), t4=(16, 2, 2), t5=(32,)),
        [Pair("s2", "t1", 1), Pair("s3", "t3", 1), Pair("s4", "t5", 1)],
    ),
    Case("sequences-have-channels-last", _values(s=(6, 4)), _values(t=(6, 16)), [Pair("s", "t", 2)]),
    Case("convolved-sequences-have-them-second", _convolved(s=(4, 9)), _convolved(s=(8, 9)), [Pair("s", "s", 1)]),
    Case("convolved-under-other-names", _convolved(s=(4, 9)), _convolved(t=(8, 9)), [Pair("s", "t", 1)]),
    Case(
        "whole-calls-count-one-axis-more",
        _convolved(whole=True, s=(1, 4, 9)),
        _convolved(whole=True, s=(1, 8, 9)),
        [Pair("s", "s", 2)],
    ),
    Case("nothing-alike", _values(s=(4, 8, 8)), _values(t=(4, 7, 7)), []),
    Case("as-asked", _values(s=(4, 8, 8)), _values(t=(4, 8, 8)), [Pair("s", "t")], {"s": "t"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_tensors_find_their_partner(case: Case) -> None:
    assert match_features(case.student, case.teacher, case.asked) == case.expected


@pytest.mark.parametrize(
    ("asked", "words"),
    [({"x": "t"}, "the student has none"), ({"s": "x"}, "the teacher has none"), ({"s": "t"}, "more than their chann")],
    ids=["not-the-students", "not-the-teachers", "of-another-extent"],
)
def test_a_feature_that_cannot_be_learned_is_named(asked: dict[str, str], words: str) -> None:
    with pytest.raises(NoSuchFeature, match=words):
        match_features(_values(s=(4, 8, 8)), _values(t=(4, 7, 7)), asked)


def test_what_was_convolved_is_told_by_what_makes_it() -> None:
    text = """g (float[N,3,9] x) => (float[N,9,5] y) {
        c = Conv(x, w) r = Relu(c) s = Add(r, c) t = Transpose<perm=[0,2,1]>(s) y = MatMul(t, v) }"""
    graph = ir.from_proto(networks.parse(text))
    assert convolved(graph) == {"c", "r", "s"}


def test_a_projection_starts_at_the_best_there_is() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(16, 5, 4, 4, generator=generator)
    wanted = torch.randn(7, 5, generator=generator)
    projection = fit_projection(student, project(student, wanted, 1), 1)
    assert projection.requires_grad
    # The ridge is 1e-4 of what it is added to.
    assert torch.allclose(projection.detach(), wanted, atol=1e-3)
    assert project(student, projection, 1).shape == (16, 7, 4, 4)
