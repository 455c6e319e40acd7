"""The catalogue of passes as the API shows it."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.newer import MayGrow
from app.recipes.base import Need


class PassNeeds(BaseModel):
    """What a pass cannot do without."""

    calibration_data: bool = Field(description="A dataset as `data.calibration`.")
    training_data: bool = Field(description="A dataset as `data.training`.")
    labels: bool = Field(description="A label array in that data.")
    trainable_model: bool = Field(description="A model whose `trainable` is true.")
    float32_weights: bool = Field(
        default=False, description="Weights in float32: no pass that stores them in fewer bits may come before it."
    )
    torch: bool = Field(description="A worker that has torch.")
    with_arguments: dict[str, list[Annotated[Need, MayGrow()]]] = Field(
        default={}, description="By argument: what it needs beside that once the argument is given; what trains, torch."
    )


class PassDescription(BaseModel):
    """One optimization pass."""

    name: str = Field(description="What a recipe calls it: the value of `pass`.")
    summary: str = Field(description="What it does, in one line.")
    needs: PassNeeds = Field(description="What it cannot do without.")
    comes_last: bool = Field(default=False, description="Whether no pass may follow it in a recipe.")
    not_after: list[str] = Field(
        default=[],
        description="Further passes, beside itself, that may not come before it: it would find nothing to do. "
        "`quantize_static` may with `bits` 16, which leaves arithmetic and all else in float.",
    )
    devices: list[str] = Field(default=["cpu", "cuda"], description="What it works for: values of `target.device`.")
    json_schema: dict[str, Any] = Field(description="JSON Schema of its arguments, with their defaults.")
    available: bool = Field(description="Whether a live worker can run it now.")
    unavailable_reason: str | None = Field(description="Why not; null where it is available.")


class Passes(BaseModel):
    """Every pass there is."""

    items: list[PassDescription] = Field(description="The passes, in the order of the catalogue.")
