"""What training may be asked for."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.recipes.training import Distill


@pytest.mark.parametrize("argument", ["alpha", "beta", "gamma", "clip_norm"])
@pytest.mark.parametrize("value", [float("inf"), "Infinity", float("nan")], ids=str)
def test_numbers_without_end_are_refused(argument: str, value: Any) -> None:
    """No weighted sum is left with them, and no manifest can record them."""
    with pytest.raises(ValidationError, match=argument):
        Distill.model_validate({"pass": "distill", argument: value})
