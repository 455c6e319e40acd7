"""What the search for a recipe may be asked for."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.recipes.base import Name
from app.recipes.catalogue import CATALOGUE, Recipe

Auto = Annotated[
    Literal["auto"],
    Field(description="Lathe finds the passes: it tries what fits the model, and keeps what measures best."),
]
# What a search makes candidates of by itself; then what it trains with, and the pass beside which it does.
TRIED = (
    "optimize_graph",
    "prune_structured",
    "factorize_low_rank",
    "quantize_static",
    "quantize_dynamic",
    "quantize_weights",
    "convert_float16",
)
TRAINED_BESIDE = {"distill": "prune_structured", "quantize_aware_training": "quantize_static"}
Weight = Annotated[float, Field(ge=0, le=1_000)]


class ObjectiveWeights(BaseModel):
    """What counts how much: the gain is the product of the ratios, each to the power of its weight over the largest."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    latency: Weight = Field(default=0.0, description="Of the time of a call.")
    size: Weight = Field(default=0.0, description="Of the bytes of the file.")
    memory: Weight = Field(default=0.0, description="Of the peak memory of a process that runs it.")

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not (self.latency or self.size or self.memory):
            raise ValueError("one of `latency`, `size` and `memory` must count")
        return self


class Search(BaseModel):
    """What `auto` may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: bool | None = Field(
        default=None,
        description="Whether candidates may be trained. By default where there is training data, the model can be, "
        "and `passes` allows one that trains: false where no worker can train, which refuses the job otherwise.",
    )
    passes: list[Name] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Passes that candidates may be made of; by default all that a search ever tries: "
        f"{', '.join(f'`{name}`' for name in TRIED)}, and in training "
        f"{' and '.join(f'`{name}` where `{beside}` is allowed' for name, beside in TRAINED_BESIDE.items())}.",
    )
    max_trials: int = Field(
        default=32, ge=1, le=1_000, description="Candidates that are built and measured at most, beside the original."
    )
    given: list[Recipe] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Try these and no others, as a manifest records them: on samples divided as in a search. Each has "
        "an equal share of the time that is left. `passes` and `max_trials` have no say in them, and are refused "
        "beside them.",
    )
    reuse: bool = Field(
        default=True,
        description="Go on from what earlier searches of the same model and data finished. With `false` every "
        "candidate is built and measured anew, and takes the place of what was kept of it.",
    )

    # As requests are stored by processes of the release before, beside a database that is migrated. Until the next one.
    @model_validator(mode="before")
    @classmethod
    def _by_its_former_name(cls, said: Any) -> Any:
        if isinstance(said, dict) and "max_candidates" in said and "max_trials" not in said:
            return {"max_trials" if name == "max_candidates" else name: value for name, value in said.items()}
        return said

    @model_validator(mode="after")
    def _known_passes(self) -> Self:
        unknown = sorted(set(self.passes or ()) - CATALOGUE.keys())
        if unknown:
            raise ValueError(f"`passes` names {', '.join(unknown)}; there are {', '.join(CATALOGUE)}")
        return self

    @model_validator(mode="after")
    def _given_may_be_trained(self) -> Self:
        named = [config for recipe in self.given or () for config in recipe]
        trained = [one.pass_ for one in named if "trainable_model" in CATALOGUE[one.pass_].needs(one)]
        if trained and self.training is False:
            raise ValueError(f"`training` is false, and `given` names passes that train: {', '.join(trained)}")
        return self

    def allows(self, name: str) -> bool:
        return self.passes is None or name in self.passes

    @property
    def may_try(self) -> bool:
        """Whether any candidate can be made of the passes that are allowed."""
        return any(self.allows(name) for name in TRIED)

    @property
    def may_train(self) -> bool:
        """Whether one that is trained can."""
        return any(self.allows(name) and self.allows(beside) for name, beside in TRAINED_BESIDE.items())
