"""What is left of a model in a changed file, as one number."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from tests.worker.engine.conftest import SamplesContext
from tests.worker.networks import normal, prepared
from worker.engine import fidelity
from worker.engine.fidelity import LARGEST_DB, Answers, Power, typical_db
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
