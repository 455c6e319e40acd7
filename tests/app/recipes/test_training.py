"""What training may be asked for."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.recipes.aware import QuantizeAwareTraining
from app.recipes.training import Distill


@pytest.mark.parametrize("argument", ["alpha", "beta", "gamma", "clip_norm"])
@pytest.mark.parametrize("value", [float("inf"), "Infinity", float("nan")], ids=str)
def test_numbers_without_end_are_refused(argument: str, value: Any) -> None:
    """No weighted sum is left with them, and no manifest can record them."""
    with pytest.raises(ValidationError, match=argument):
        Distill.model_validate({"pass": "distill", argument: value})


def test_features_without_a_weight_are_refused() -> None:
    """They would be left out without a word."""
    with pytest.raises(ValidationError, match="`features` are named and have no weight: give `beta`"):
        Distill.model_validate({"pass": "distill", "features": {"a": "b"}})
    assert Distill.model_validate({"pass": "distill", "features": {"a": "b"}, "beta": 0.5}).features == {"a": "b"}


@pytest.mark.parametrize(
    ("given", "rate", "placement"),
    [
        pytest.param({}, 1e-4, "measured", id="8-bits"),
        pytest.param({"weight_bits": 4}, 3e-4, "kernels", id="4-bits"),
        pytest.param({"weight_bits": 2}, 1e-3, "kernels", id="2-bits"),
        pytest.param({"weight_bits": "ternary", "optimizer": "sgd"}, 1e-2, "kernels", id="ternary-by-sgd"),
        pytest.param({"weight_bits": "binary", "learning_rate": 0.1}, 0.1, "kernels", id="a-rate-that-is-given"),
        pytest.param({"weight_bits": 4, "placement": "measured"}, 3e-4, "measured", id="a-placement-that-is-given"),
    ],
)
def test_few_bits_learn_faster_and_take_every_kernel(given: dict[str, Any], rate: float, placement: str) -> None:
    """Unless it is asked otherwise."""
    config = QuantizeAwareTraining.model_validate({"pass": "quantize_aware_training", **given})
    assert config.highest_rate == pytest.approx(rate)
    assert config.placement == placement
