"""What `quantize_aware_training` may be asked for."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from app.recipes.base import PassConfig
from app.recipes.quantization import StaticOptions, WeightBits
from app.recipes.training import TeachingOptions


class QuantizeAwareTraining(TeachingOptions, StaticOptions, PassConfig):
    """INT8 as `quantize_static` places it, with weights and scales trained around the rounding; needs no labels."""

    # A tenth of what trains a model from the start: this one computes nearly the same already.
    highest_rates: ClassVar[dict[str, float]] = {"adamw": 1e-4, "sgd": 1e-3}

    pass_: Literal["quantize_aware_training"] = Field(alias="pass", description="The pass.")
    weight_bits: WeightBits = Field(
        default=8,
        description="Of weights: 8, or fewer for all nodes in int8 but the first and the last. `ternary` weights are "
        "-1, 0 or 1 times a scale of their channel, `binary` ones -1 or 1. They lie packed in the file and run in the "
        "8-bit kernels: the file is smaller, not faster, than in 8 bits.",
    )
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
