"""What `factorize_low_rank` may be asked for."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.recipes.base import Need, NodeName, PassConfig
from app.recipes.training import TeachingOptions

Rank = Annotated[int, Field(ge=1, le=1_000_000)]
# How many ranks stand between the factors of each form.
RANKS = {"matrix": 1, "channels": 1, "spatial": 1, "tucker": 2}


class GivenFactors(BaseModel):
    """One node and the factors that stand for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: NodeName = Field(min_length=1, description="Name of the node.")
    form: Literal["matrix", "channels", "spatial", "tucker"] = Field(
        description="`matrix` K to r to N, of MatMul and Gemm; of a convolution `channels` k x k to r channels, then 1 "
        "x 1; `spatial` k x 1, then 1 x k; `tucker` 1 x 1, k x k, 1 x 1."
    )
    ranks: list[Rank] = Field(min_length=1, max_length=2, description="The widths between the factors.")

    @model_validator(mode="after")
    def _as_many_ranks_as_the_form_has(self) -> Self:
        if len(self.ranks) != RANKS[self.form]:
            raise ValueError(f"`{self.form}` has {RANKS[self.form]} ranks; {self.node!r} is given {len(self.ranks)}")
        return self


class FactorizeLowRank(PassConfig):
    """Weights as products of smaller ones, fitted to the data, where that measures faster or makes the file smaller."""

    argument_needs: ClassVar[Mapping[str, frozenset[Need]]] = {
        "training": frozenset({"training_data", "trainable_model"})
    }

    pass_: Literal["factorize_low_rank"] = Field(alias="pass", description="The pass.")
    objective: Literal["latency", "size"] = Field(
        default="latency",
        description="`latency`: ranks are multiples of 16, and factors stay where they measure faster on this machine; "
        "`size`: any rank, and nothing is measured.",
    )
    energy: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Give every weight the least rank that keeps this share of the power of what it computes.",
    )
    ratio: float | None = Field(
        default=None,
        gt=0,
        lt=0.7,
        description="Give every weight the largest rank whose factors have at most this share of its elements.",
    )
    fidelity_floor_db: float = Field(
        default=20.0,
        ge=-100,
        le=100,
        description="Least signal to noise ratio at the model's outputs, on calibration data that the factors were not "
        "fitted to; a contract is held there as well. Without `energy` and `ratio` ranks are chosen so that the noise "
        "buys most; with them, the weights that cost most fidelity stay whole.",
    )
    operators: list[Literal["Conv", "Gemm", "MatMul"]] = Field(
        default=["Conv", "Gemm", "MatMul"], min_length=1, description="Operator types whose weights are factored."
    )
    forms: list[Literal["matrix", "channels", "spatial", "tucker"]] = Field(
        default=["matrix", "channels", "spatial", "tucker"],
        min_length=1,
        description="What may stand for a weight: see `given`. Of several, the one that costs least.",
    )
    calibration_samples: int = Field(
        default=1024,
        ge=1,
        le=100_000,
        description="At most this many samples of the calibration data are read; fewer where they hold enough rows.",
    )
    refit: bool = Field(
        default=True,
        description="Fit each last factor anew, by least squares, to what the original computes behind inputs that the "
        "other factors changed; kept where the outputs gain by it.",
    )
    given: list[GivenFactors] | None = Field(
        default=None,
        max_length=10_000,
        description="These factors and no others, as a manifest records them; nothing is measured.",
    )
    exclude: list[NodeName] = Field(default=[], max_length=10_000, description="Names of nodes that stay as they are.")
    training: TeachingOptions | None = Field(
        default=None,
        description="Train the factored model, on the training data, to answer as the original does, and by labels "
        "where there are any. By default weights are fitted layer by layer, and nothing is trained.",
    )

    @property
    def fits_weights(self) -> bool:
        return True

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.energy is not None and self.ratio is not None:
            raise ValueError("give `energy` or `ratio`, not both")
        return self
