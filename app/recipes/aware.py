"""What `quantize_aware_training` may be asked for."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from app.recipes.quantization import StaticOptions, WeightBits
from app.recipes.training import TeachingPass


class QuantizeAwareTraining(TeachingPass, StaticOptions):
    """INT8 as `quantize_static` places it, with weights and scales trained around the rounding; needs no labels."""

    # A tenth of what trains a model from the start: in 8 bits this one computes nearly the same already. In few bits it
    # does not, and weights have further to go until they round to another code.
    highest_rates: ClassVar[Mapping[str, float]] = {"adamw": 1e-4, "sgd": 1e-3}
    rate_factors: ClassVar[Mapping[WeightBits, float]] = {8: 1, 4: 3, 2: 10, "ternary": 10, "binary": 10}

    pass_: Literal["quantize_aware_training"] = Field(alias="pass", description="The pass.")
    weight_bits: WeightBits = Field(
        default=8,
        description="Of weights: 8, or fewer for all nodes in int8 but the first and the last, those that no weight "
        "stands before or behind. `ternary` weights are -1, 0 or 1 times a scale of their channel, `binary` ones -1 or "
        "1. They lie packed in the file and run in the 8-bit kernels: the file is smaller, not faster, than in 8 bits.",
    )
    placement: Literal["measured", "kernels", "given"] = Field(
        default="measured",
        description="Which nodes run in int8, as with `quantize_static`; by default `measured` with 8 bits, and "
        "`kernels` with fewer: a weight that stays in float takes 32, and a small file is what they are asked for.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=100,
        allow_inf_nan=False,
        description="The highest, of weights and of scales as shares of where they began; by default 0.0001 with "
        "`adamw` and 0.001 with `sgd`, three times that with 4 bits, and ten times with fewer.",
    )

    @model_validator(mode="before")
    @classmethod
    def _few_bits_take_every_kernel(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("weight_bits", 8) != 8:
            return {"placement": "kernels", **given}
        return given

    @property
    def highest_rate(self) -> float:
        return self.learning_rate or self.highest_rates[self.optimizer] * self.rate_factors[self.weight_bits]

    def filled_in(self) -> dict[str, Any]:
        """The arguments of training alone: the others are what the static form records."""
        return {name: value for name, value in super().filled_in().items() if name not in StaticOptions.model_fields}
