"""What `quantize_aware_training` may be asked for."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from app.recipes.base import PassConfig
from app.recipes.quantization import StaticOptions
from app.recipes.training import TeachingOptions


class QuantizeAwareTraining(TeachingOptions, StaticOptions, PassConfig):
    """INT8 as `quantize_static` places it, with weights and scales trained around the rounding; needs no labels."""

    # A tenth of what trains a model from the start: this one computes nearly the same already.
    highest_rates: ClassVar[dict[str, float]] = {"adamw": 1e-4, "sgd": 1e-3}

    pass_: Literal["quantize_aware_training"] = Field(alias="pass", description="The pass.")
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=100,
        allow_inf_nan=False,
        description="The highest, of weights and of scales as shares of where they began; by default 0.0001 with "
        "`adamw` and 0.001 with `sgd`.",
    )

    @property
    def highest_rate(self) -> float:
        return self.learning_rate or self.highest_rates[self.optimizer]

    def filled_in(self) -> dict[str, Any]:
        """The arguments of training alone: the others are what the static form records."""
        return {name: value for name, value in super().filled_in().items() if name not in StaticOptions.model_fields}
