"""What a contract may ask for."""

import pytest
from pydantic import ValidationError

from app.recipes.request import Contract


def test_a_contract_asks_for_no_more_confidence_than_resampling_shows() -> None:
    assert Contract(max_drop=0.01, confidence=0.999).confidence == 0.999
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.999"):
        Contract(max_drop=0.01, confidence=0.9991)
