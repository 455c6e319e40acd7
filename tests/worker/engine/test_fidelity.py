"""What is left of a model in a changed file, as one number."""

from dataclasses import dataclass

import pytest

from worker.engine.fidelity import LARGEST_DB, Power, typical_db


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
