"""What a job may be asked for: shared by the API, the client and the runner."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from app.recipes.auto import Auto, ObjectiveWeights, Search
from app.recipes.base import Name, exactly_one, refuse_unless_one
from app.recipes.catalogue import CATALOGUE, AnyPass, Recipe

MetricName = Literal["top1", "top5", "f1", "accuracy", "mse", "mae", "agreement", "cosine", "sqnr_db"]
LABEL_FREE: frozenset[str] = frozenset({"agreement", "cosine", "sqnr_db"})
BOUNDS = ("max_drop", "floor")
# What `auto` holds to where the request says nothing: a point of the metric, and how sure it is of that.
USUAL_DROP, USUAL_CONFIDENCE = 0.01, 0.95


# Which of the two a recipe is meant to be; so that one that is neither is told what is wrong with it as that.
LISTED, FOUND = "listed", "found"


def _kind_of_recipe(recipe: object) -> str:
    return FOUND if isinstance(recipe, str) else LISTED


class Data(BaseModel):
    """Datasets by role. Roles may name the same dataset; the report then says that nothing was held out, and no
    contract with a confidence is `met` on what a pass read. Where datasets share some samples, those that passes read
    are left out of what quality is measured on, unless they are a thousandth of it at most; the report says how many.
    """

    model_config = ConfigDict(extra="forbid")

    calibration: UUID | None = Field(default=None, description="Dataset that sets activation ranges.")
    training: UUID | None = Field(default=None, description="Dataset that passes which train learn from.")
    evaluation: UUID | None = Field(default=None, description="Dataset that quality is measured on.")

    def roles(self) -> dict[str, UUID]:
        return {role: value for role, value in self.model_dump().items() if value is not None}


class Metric(BaseModel):
    """How quality is measured: on which output, against which label array."""

    model_config = ConfigDict(extra="forbid")

    name: MetricName = Field(
        description="The metric; `agreement`, `cosine` and `sqnr_db` need no labels. Of an output of floats (N, C) "
        "`agreement` counts samples whose top class stays; and that keep 10 dB as well, where nearly all of the "
        "original's have the same one."
    )
    output: Name | None = Field(
        default=None,
        description="The model output; by default the first that holds numbers, or else text. A contract is of this "
        "one alone: the causes of the verdict name others that changed by more than it allows.",
    )
    labels: Name | None = Field(default=None, description="The label array; by default the one that is no input.")


class Contract(BaseModel):
    """What the optimized model must hold."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=exactly_one(BOUNDS))

    max_drop: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Largest loss of the metric, absolute: 0.01 is one point of top-1. For `mse` and `mae`, which grow "
        "as a model gets worse: the largest growth, as a share of the original's value.",
    )
    floor: float | None = Field(
        default=None,
        ge=-100,
        le=200,
        allow_inf_nan=False,
        description="Least value of a metric without labels: at most 1 of `agreement` and `cosine`, as 0.99, and dB of "
        "`sqnr_db`, as 20.",
    )
    confidence: float | None = Field(
        default=None,
        gt=0.5,
        le=0.999,
        description="How sure it must be that the contract holds beyond these samples: the verdict is `undecidable` "
        "where there are too few to say, or none but those that a pass read. By default 0.95 with `auto`; else the "
        "estimate itself is judged. Beyond 0.999 resampling shows nothing.",
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        refuse_unless_one(self, BOUNDS, "`max_drop` and `floor`")
        return self

    def largest_drop(self, metric: str) -> float:
        """As a drop of this metric: of `sqnr_db`, the share of the signal's power that may be noise."""
        if self.max_drop is not None:
            return self.max_drop
        floor = float(self.floor or 0.0)
        return float(10 ** (-floor / 10)) if metric == "sqnr_db" else 1.0 - floor


class Target(BaseModel):
    """Where and how the model will run."""

    model_config = ConfigDict(extra="forbid")

    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Decides the worker and the kernels.")
    threads: int | None = Field(
        default=None, ge=1, le=256, description="Threads of a model; by default, and at most, the worker's cores."
    )
    batch: int | None = Field(
        default=None, ge=1, le=65_536, description="Batch that latency is measured at; 1 by default."
    )
    shapes: dict[Name, Annotated[list[Annotated[int, Field(ge=1, le=2**31 - 1)]], Field(max_length=64)]] | None = Field(
        default=None,
        max_length=256,
        description="Input shapes that latency is measured at; by default the first sample's.",
    )
    instruction_set: Literal["avx2", "avx512", "vnni"] | None = Field(
        default=None,
        description="The least that the processors have on which the model will run; by default what the worker's has. "
        "With `avx2` and `avx512`, which have no VNNI, int8 weights are rounded so that no sum saturates there. Speed "
        "is measured on the worker's processor all the same.",
    )

    @model_validator(mode="after")
    def refuse_instructions_of_another_device(self) -> Self:
        """Raises ValueError: a GPU has none of them."""
        if self.instruction_set is not None and self.device != "cpu":
            raise ValueError("`instruction_set` is of processors: leave it out with another `device` than `cpu`")
        return self


class OptimizeRequest(BaseModel):
    """A job: make this model smaller or faster, by this recipe, and prove it on this data."""

    model_config = ConfigDict(extra="forbid")

    model_id: UUID = Field(description="The model to optimize.")
    recipe: Annotated[Annotated[Recipe, Tag(LISTED)] | Annotated[Auto, Tag(FOUND)], Discriminator(_kind_of_recipe)] = (
        Field(description="Passes in the order in which they run, or `auto`, which finds them.")
    )
    search: Search | None = Field(default=None, description="With `auto`: what it may do.")
    data: Data = Field(default_factory=Data, description="Datasets by role; all optional.")
    metric: Metric | None = Field(
        default=None,
        description="By default `top1` where the evaluation data has one label array of integers or booleans, a label "
        "each sample, flat or as a column, and the output holds scores or numbers of classes; else `agreement`. The "
        "report names labels that it did not use, as those in floats.",
    )
    contract: Contract | None = Field(
        default=None,
        description="Without one the verdict is `no_contract`; `auto` then allows a drop of 0.01 of the metric.",
    )
    objective: Literal["latency", "size", "memory"] | ObjectiveWeights = Field(
        default="latency",
        description="What to make small: by this `auto` chooses. Of weights only the proportions count.",
    )
    target: Target = Field(default_factory=Target, description="Where the model will run.")
    deployment_check: bool | None = Field(
        default=None,
        description="Check at the end whether the delivered file can be put to work: by a fresh process with ONNX "
        "Runtime alone, 1,000 repeated and as many concurrent calls, input at the edge, memory, and latency with 1, 2 "
        "and all threads. It takes up to 90 seconds of the budget and fails no job; its outcome is the report's "
        "`deployment`.",
    )
    budget_seconds: int | None = Field(
        default=None, ge=1, description="Time the job may take; by default the service's."
    )
    priority: Literal["low", "normal", "high"] = Field(default="normal", description="Order in the queue.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Seed of everything random.")

    @model_validator(mode="after")
    def _search_belongs_to_auto(self) -> Self:
        if self.search is not None and self.recipe != "auto":
            raise ValueError('`search` says what `"recipe": "auto"` may do, and the recipe is a list of passes')
        return self

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes that the request names: with `auto`, which finds them, those that it is given to try."""
        if self.recipe == "auto":
            return list((self.search and self.search.given) or [])
        return [self.recipe]

    @property
    def passes(self) -> list[AnyPass]:
        """The passes of all of them."""
        return [config for recipe in self.recipes for config in recipe]

    @property
    def learns(self) -> bool:
        """Whether something learns from the training data, or with `auto` may."""
        named = any("training_data" in CATALOGUE[config.pass_].needs(config) for config in self.passes)
        return named or bool(self.search and self.search.training)

    def for_given(self, passes: list[dict[str, Any]]) -> dict[str, Any]:
        """The body of a request, as JSON, that has a search try these passes alone, and divide the data as this one's
        does. The request is one whose defaults were filled in at submission.
        """
        asked = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        # Where samples are set aside to learn from they are for these as well, though they may learn nothing.
        return asked | {"search": {"given": [passes], "training": self.learns}}

    @property
    def confidence(self) -> float:
        """Of the bounds on the drop: as the contract asks, or the usual."""
        return (self.contract and self.contract.confidence) or USUAL_CONFIDENCE

    @property
    def searched_contract(self) -> Contract:
        """What a search holds to: the contract, with what `auto` takes where the request does not say."""
        contract = self.contract or Contract(max_drop=USUAL_DROP)
        return contract.model_copy(update={"confidence": self.confidence})

    @property
    def weights(self) -> ObjectiveWeights:
        """The objective, as weights of which the largest is 1: a gain then means the same, however they are given."""
        objective = self.objective
        if not isinstance(objective, ObjectiveWeights):
            return ObjectiveWeights(**{str(objective): 1.0})
        given = objective.model_dump()
        return ObjectiveWeights(**{name: weight / max(given.values()) for name, weight in given.items()})
