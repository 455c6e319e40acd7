"""The jobs that OpenAPI shows are jobs that the API takes."""

from typing import Any

import pytest

from app.jobs.examples import SUBMISSIONS
from app.recipes.request import OptimizeRequest


@pytest.mark.parametrize("example", SUBMISSIONS.values(), ids=list(SUBMISSIONS))
def test_an_example_fits_the_schema(example: dict[str, Any]) -> None:
    OptimizeRequest.model_validate(example["value"])
