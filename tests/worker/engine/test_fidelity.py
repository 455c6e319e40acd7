"""What is left of a model in a changed file, as one number."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import named_classes, normal, parse, prepared
from worker.engine import fidelity
from worker.engine.fidelity import LARGEST_DB, Answers, Fidelity, Floor, Power, measure_fidelity, typical_db
from worker.engine.model_file import ModelFile


@dataclass(frozen=True)
class Case:
    name: str
    samples: list[Power]
    wanted_db: float


CASES = (
    Case("alike", [Power(100.0, 1.0)] * 3, 20.0),
    Case("one loud sample speaks for itself alone", [Power(1e6, 1.0), *[Power(1.0, 1.0)] * 4], 0.0),
    Case("one quiet sample that is lost is one of many", [*[Power(100.0, 1.0)] * 4, Power(1e-6, 1e-3)], 20.0),
    Case("silent samples have no ratio", [*[Power(0.0, 1.0)] * 4, Power(400.0, 0.0)], 20.0),
    Case("nothing differs", [Power(1.0, 0.0)] * 2, LARGEST_DB),
    Case("nothing but silence", [Power(0.0, 1.0)], -LARGEST_DB),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fidelity_is_that_of_the_usual_sample_where_few_would_hide_it(case: Case) -> None:
    assert typical_db(case.samples) == pytest.approx(case.wanted_db, abs=0.01)


@pytest.mark.parametrize(
    ("batch", "room", "held"),
    [
        pytest.param("N", 4, 4, id="four-samples"),
        pytest.param("N", 0, 1, id="one-at-least"),
        pytest.param("2", 4, 4, id="two-samples-a-call"),
        pytest.param("N", 64, 12, id="all"),
    ],
)
def test_no_more_answers_are_held_than_there_is_room_for(
    batch: str,
    room: int,
    held: int,
    context: SamplesContext,
    saved: Callable[..., ModelFile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = f"network (float[{batch},8] x) => (float[{batch},4] y) {{ y = MatMul(x, w) }}"
    exact, other = (prepared(text, w=normal(8, 4, seed=seed)) for seed in (0, 1))
    original = saved(exact, "exact")
    given = context(exact, x=normal(12, 8, seed=2))
    # Four float32 a sample.
    monkeypatch.setattr(fidelity, "MOST_HELD_BYTES", room * 16)
    answers = Answers.of(original, given, np.arange(20))
    np.testing.assert_array_equal(answers.samples, np.arange(held))
    assert sum(len(outputs[0]) for outputs in answers.outputs) == held
    # Other files are asked about the same samples.
    assert answers.fidelity(original).sqnr_db == LARGEST_DB
    assert answers.fidelity(saved(other, "other")).sqnr_db < 3


INF, NAN = np.inf, np.nan
ONES = [1.0] * 8


@dataclass(frozen=True)
class Pair:
    name: str
    exact: list[float]
    made: list[float]
    wanted_db: float


PAIRS = (
    Pair("infinities in their places", [*ONES, -INF, NAN], [*ONES, -INF, NAN], LARGEST_DB),
    Pair("the rest is compared", [*ONES, -INF], [1.1, *ONES[1:], -INF], 10 * np.log10(8 / 0.01)),
    # Each is as one of eight alike elements that came out as 0.
    Pair("a mask that is gone", [*ONES, -INF], [*ONES, -9.0], 10 * np.log10(8)),
    Pair("a mask in another place", [*ONES, 1.0, -INF], [*ONES, -INF, 1.0], 10 * np.log10(9 / 2)),
    Pair("an infinity of the other sign", [*ONES, -INF], [*ONES, INF], 10 * np.log10(8)),
    Pair("zeros that are masked elsewhere", [0.0, 0.0, -INF], [0.0, -INF, 0.0], -LARGEST_DB),
    Pair("nothing that is finite", [NAN, -INF], [1.0, 2.0], LARGEST_DB),
    Pair("infinite for the first time", ONES, [INF, *ONES[1:]], -LARGEST_DB),
    Pair("NaN for the first time", ONES, [NAN, *ONES[1:]], -LARGEST_DB),
    # All of both is noise: 8 + 9 over a signal of 8.
    Pair("others in number", [*ONES, -INF], [*ONES, 1.0, -INF], 10 * np.log10(8 / 17)),
)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_what_is_not_finite_counts_where_it_came_out_otherwise(pair: Pair) -> None:
    power = Power()
    power.add(np.array(pair.exact, np.float32), np.array(pair.made, np.float32))
    assert power.db == pytest.approx(pair.wanted_db, abs=0.01)


def _classes(*labels: int, with_scores: bool = False) -> onnx.ModelProto:
    """`x` (N, 1) -> `y` (N, 4) int64: these labels whatever it is given; and `x` itself beside them where asked for."""
    scores = ", float[N,1] z" if with_scores else ""
    body = "z = Identity(x)" if with_scores else ""
    text = f"network (float[N,1] x) => (int64[N,4] y{scores}) {{ c = Cast<to = 7>(x) n = Mul(c, zero) y = Add(n, v) "
    return prepared(f"{text} {body} }}", zero=np.int64(0), v=np.array([labels], np.int64))


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        ((1, 2, 3, 4), Fidelity(LARGEST_DB, 1.0)),
        # One of four is another: a quarter is noise.
        ((1, 2, 3, 0), Fidelity(float(10 * np.log10(4)), 0.75)),
    ],
    ids=["the-same", "one-changed"],
)
def test_whole_numbers_are_judged_by_how_many_are_the_same(
    made: tuple[int, ...], wanted: Fidelity, saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    exact = _classes(1, 2, 3, 4)
    given = context(exact, x=normal(5, 1))
    found = measure_fidelity(saved(exact), saved(_classes(*made), "made"), given, np.arange(5))
    assert found.agreement == wanted.agreement
    assert found.sqnr_db == pytest.approx(wanted.sqnr_db)
    assert found.holds(Floor.of(10.0, max_drop=0.01)) == (wanted.agreement == 1.0)


def test_beside_floats_whole_numbers_have_a_say_in_the_agreement_alone(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    exact, made = (_classes(*labels, with_scores=True) for labels in ((1, 2, 3, 4), (1, 0, 0, 4)))
    given = context(exact, x=normal(5, 1))
    found = measure_fidelity(saved(exact), saved(made, "made"), given, np.arange(5))
    assert found == Fidelity(LARGEST_DB, 0.5)


def test_agreement_is_that_of_the_worst_output(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    """A number that never changes does not make up for classes that do."""
    text = "network (float[N,2] x) => (float[N,2] y, int64[1] n) { y = Mul(x, w) n = Identity(one) }"
    files = [
        saved(prepared(text, w=np.array(w, np.float32), one=np.array([1])), name)
        for name, w in (("exact", [1.0, 1.0]), ("made", [-1.0, -1.0]))
    ]
    given = context(prepared(text, w=np.ones(2, np.float32), one=np.array([1])), x=normal(6, 2))
    assert measure_fidelity(files[0], files[1], given, np.arange(6)).agreement == 0.0


def test_a_row_that_comes_out_broken_has_another_class(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    """Argmax says that NaN is the largest, also where it stands at the class that is right."""
    text = "network (float[N,2] x) => (float[N,2] y) { y = Add(x, w) }"
    files = [
        saved(prepared(text, w=np.array(w, np.float32)), name)
        for name, w in (("exact", [100.0, 0.0]), ("made", [np.nan, 0.0]))
    ]
    given = context(prepared(text, w=np.ones(2, np.float32)), x=normal(6, 2))
    assert measure_fidelity(files[0], files[1], given, np.arange(6)).agreement == 0.0


def test_text_is_judged_by_how_much_of_it_is_the_same(saved: Callable[..., ModelFile], context: SamplesContext) -> None:
    exact, made = named_classes([1, 1, 1]), named_classes([1, 1, -1])
    x = np.array([[2, 1, 0], [1, 2, 0], [0, 1, 2], [2, 0, 1]], np.float32)
    found = measure_fidelity(saved(exact), saved(made, "made"), context(exact, x=x), np.arange(4))
    assert found.agreement == 0.75
    assert found.sqnr_db == pytest.approx(10 * np.log10(4))


def test_answers_that_cannot_be_compared_hold_no_floor(
    saved: Callable[..., ModelFile], context: SamplesContext
) -> None:
    exact = parse("g (float[N,3] x) => (seq(float[N,3]) y) { y = SequenceConstruct(x) }")
    found = measure_fidelity(saved(exact), saved(exact, "made"), context(exact, x=normal(4, 3)), np.arange(4))
    assert found.agreement is None
    assert not found.holds(Floor(-100))
