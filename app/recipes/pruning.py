"""What the passes that take weights away may be asked for."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.recipes.base import Need, NodeName, PassConfig, exactly_one, refuse_unless_one
from app.recipes.training import TeachingOptions

RULES = ("threshold", "percentile", "sparsity", "pattern")


class PruneUnstructured(PassConfig):
    """Small weights set to zero: a file that compresses better, keeps its size and runs no faster in ONNX Runtime."""

    model_config = ConfigDict(json_schema_extra=exactly_one(RULES))

    argument_needs: ClassVar[Mapping[str, frozenset[Need]]] = {
        "training": frozenset({"training_data", "trainable_model"})
    }

    pass_: Literal["prune_unstructured"] = Field(alias="pass", description="The pass.")
    threshold: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Theta itself: weights with |w| < theta become zero."
    )
    percentile: float | None = Field(
        default=None,
        gt=0,
        lt=100,
        description="Theta is the magnitude at this percentile of all |w|, the higher of two neighbours.",
    )
    sparsity: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the weights that is zero afterwards, to the nearest weight; of equal magnitudes those "
        "that stand first go first.",
    )
    pattern: str | None = Field(
        default=None,
        pattern=r"^[1-9]\d{0,2}:[1-9]\d{0,2}$",
        description="N:M, as `2:4`: of every M consecutive weights along the input axis of the product the N largest "
        "stay. Of a last group of fewer than M, N stay as well.",
    )
    scope: Literal["layer", "global"] = Field(
        default="layer",
        description="With `percentile` and `sparsity`: whether each weight tensor has a theta of its own, or all share "
        "one.",
    )
    operators: list[Literal["Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention"]] = Field(
        default=["Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention"],
        min_length=1,
        description="Operator types whose weights are pruned.",
    )
    exclude: list[NodeName] = Field(
        default=[], max_length=10_000, description="Names of nodes whose weights stay as they are."
    )

    training: TeachingOptions | None = Field(
        default=None,
        description="Train the weights that stay, on the training data, to answer as the original did, and by labels "
        "where there are any. `sparsity` and `percentile` then grow over the first half of it. By default weights are "
        "set to zero once, and nothing else changes.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        refuse_unless_one(self, RULES, "`threshold`, `percentile`, `sparsity` and `pattern`")
        if self.pattern is not None and self.kept_of_group[0] >= self.kept_of_group[1]:
            raise ValueError(f"`pattern` is {self.pattern}: N, how many of M weights stay, must be less than M")
        return self

    @property
    def kept_of_group(self) -> tuple[int, int]:
        """N and M of `pattern`."""
        kept, size = (self.pattern or "0:0").split(":")
        return int(kept), int(size)
