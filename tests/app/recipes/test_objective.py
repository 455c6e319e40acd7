"""What a search is asked to make small, as weights."""

import math
from typing import Any
from uuid import UUID

import pytest

from app.recipes.request import OptimizeRequest
from worker.engine.search.proposals import Ratios


def asked(objective: Any) -> OptimizeRequest:
    return OptimizeRequest.model_validate({"model_id": UUID(int=1), "recipe": "auto", "objective": objective})


@pytest.mark.parametrize("scale", [0.001, 0.25, 500.0])
def test_only_the_proportions_of_weights_count(scale: float) -> None:
    """By gains it is told what is worth trying and what is a step: by gains of a thousandth nothing would be."""
    plain = asked({"latency": 1.0, "size": 0.5}).weights
    scaled = asked({"latency": scale, "size": scale / 2}).weights
    assert scaled == plain
    assert Ratios(latency=2.0, size=4.0).gain(scaled) == pytest.approx(math.log(2.0 * 4.0**0.5))


@pytest.mark.parametrize("objective", ["latency", "size", "memory"])
def test_a_weight_alone_is_its_name(objective: str) -> None:
    assert asked({objective: 7.0}).weights == asked(objective).weights


def test_a_job_shows_weights_as_they_were_given() -> None:
    objective = {"latency": 4.0, "size": 1.0, "memory": 0.0}
    assert asked(objective).model_dump(mode="json")["objective"] == objective
