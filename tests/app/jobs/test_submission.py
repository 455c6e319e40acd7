"""Which requests are the same under an Idempotency-Key."""

from typing import Any

import pytest
from pydantic import Field

from app.jobs.submission import fingerprint_of
from app.recipes.request import Data, OptimizeRequest

MODEL_ID = "0190b0b0-0000-7000-8000-000000000000"
BODY: dict[str, Any] = {
    "model_id": MODEL_ID,
    "recipe": [{"pass": "quantize_static"}],
    "data": {"calibration": MODEL_ID},
}


class LaterData(Data):
    distillation: str | None = None


class LaterRequest(OptimizeRequest):
    """As a later release may have it: new fields, and another default."""

    data: LaterData = Field(default_factory=LaterData)
    seed: int = 7
    owner: str | None = None


@pytest.mark.parametrize("body", [BODY, {"model_id": MODEL_ID, "recipe": "auto"}], ids=["listed", "auto"])
def test_a_request_is_the_same_after_an_upgrade(body: dict[str, Any]) -> None:
    assert fingerprint_of(LaterRequest.model_validate(body)) == fingerprint_of(OptimizeRequest.model_validate(body))


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"recipe": [{"pass": "quantize_dynamic"}]}, {"recipe": [{"pass": "quantize_static", "bits": 16}]}],
    ids=["seed", "pass", "argument"],
)
def test_another_request_is_another(change: dict[str, Any]) -> None:
    assert fingerprint_of(OptimizeRequest.model_validate(BODY | change)) != fingerprint_of(
        OptimizeRequest.model_validate(BODY)
    )
