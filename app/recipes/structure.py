"""What `prune_structured` may be asked for."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.recipes.base import Need, NodeName, PassConfig, exactly_one, refuse_unless_one
from app.recipes.training import TeachingOptions

RULES = ("ratio", "ratios", "target", "blocks", "given")
Share = Annotated[float, Field(gt=0, lt=1)]
Unit = Annotated[int, Field(ge=0)]


class PruningTarget(BaseModel):
    """How much of the original may be left; exactly one of the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mac_ratio: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Multiply-accumulates of a call over those of the model before the pass, as far as they can be "
        "counted: the report says of how many nodes they cannot.",
    )
    latency_ratio: float | None = Field(
        default=None, gt=0, lt=1, description="Time of a call over that of the model before the pass, measured here."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        refuse_unless_one(self, ("mac_ratio", "latency_ratio"), "`mac_ratio` and `latency_ratio`")
        return self


class GivenUnits(BaseModel):
    """One group and the units that are taken out of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: NodeName = Field(min_length=1, description="Name of the group: that of the first node that makes its units.")
    units: list[Unit] = Field(min_length=1, max_length=1_000_000, description="Their numbers, from 0.")


class GivenBlock(BaseModel):
    """A residual block that is taken out whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    block: NodeName = Field(min_length=1, description="Name of the block: that of the node that adds it.")


class PruneStructured(PassConfig):
    """Channels, hidden units, attention heads and residual blocks taken out whole: a smaller, faster model.

    Hidden units are those of MLPs and of recurrent layers (LSTM, GRU, RNN).
    """

    model_config = ConfigDict(json_schema_extra=exactly_one(RULES))

    argument_needs: ClassVar[Mapping[str, frozenset[Need]]] = {
        "training": frozenset({"training_data", "trainable_model"})
    }

    pass_: Literal["prune_structured"] = Field(alias="pass", description="The pass.")
    ratio: float | None = Field(default=None, gt=0, lt=1, description="Share of the units that is taken out.")
    ratios: dict[NodeName, Share] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="By group the share of its units that is taken out; other groups stay. They are named by the first "
        "node that makes their units, as in the report of a run with `ratio`, and in its manifest (`widths`).",
    )
    target: PruningTarget | None = Field(
        default=None, description="Take out as many units as it needs, those that cost least for what they save."
    )
    blocks: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="So many residual blocks are taken out whole, one after the other, each time the one that the "
        "outputs miss least; units stay. A block is what a sum adds to a tensor of the same shape: the convolutions "
        "beside a shortcut that does nothing, the attention or the feed-forward half of a transformer's layer.",
    )
    given: list[GivenUnits | GivenBlock] | None = Field(
        default=None,
        min_length=1,
        max_length=20_000,
        description="These units and blocks and no others, as a manifest records them; nothing is scored or timed.",
    )
    remove: list[Literal["units", "blocks"]] = Field(
        default=["units"],
        min_length=1,
        max_length=2,
        description="With `target`: what may go. Blocks alone go one by one, those first that cost the outputs least "
        "for what they save; with both, models without a block, without two and so on are cut to the target and "
        "fitted, and what comes closest to the original is kept, which takes as many times as long.",
    )
    scope: Literal["group", "global"] = Field(
        default="group",
        description="With `ratio`: that share of every group, or of all units together, wherever they matter least.",
    )
    importance: Literal["obs", "fisher", "l1", "l2"] = Field(
        default="obs",
        description="What a unit is worth. `obs`: what is lost of the outputs of those that read it when the other "
        "units make up for it, one after the other. `fisher`: what the model's answers feel of it, by gradients. `l1`, "
        "`l2`: the size of its weights; `l2` takes the place of `obs` where time is short. None takes labels.",
    )
    largest_share: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="No group loses a larger share of its units than this, and no part that a Split makes of one.",
    )
    multiple: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Widths that are left, of each part of a Split too, are multiples of this; by default of 16, of 8 "
        "below 64 units, of 4 below 32, of 2 below 16, and any number of heads.",
    )
    recovery: bool = Field(
        default=True,
        description="Fit the layers behind what was taken out, by least squares, to what the original computes there, "
        "and estimate statistics of BatchNormalization anew; kept where the outputs gain by it.",
    )
    calibration_samples: int = Field(
        default=256, ge=1, le=100_000, description="At most this many samples of the calibration data are read."
    )
    exclude: list[NodeName] = Field(
        default=[],
        max_length=10_000,
        description="Names of nodes that stay, with their units and all that are tied to those.",
    )
    training: TeachingOptions | None = Field(
        default=None,
        description="Train what is left, on the training data, to answer as the original does, and by labels where "
        "there are any. By default nothing is trained.",
    )

    @property
    def scores_units(self) -> bool:
        """Whether units may go, and the recipe does not say which."""
        shares = self.ratio is not None or self.ratios is not None
        return shares or (self.target is not None and "units" in self.remove)

    @property
    def scores_blocks(self) -> bool:
        """Whether blocks may go, and the recipe does not say which."""
        return self.blocks is not None or (self.target is not None and "blocks" in self.remove)

    @property
    def weighs_macs(self) -> bool:
        """Whether multiply-accumulates say what goes; where blocks alone go for a latency, times do."""
        return self.target is not None and (self.target.mac_ratio is not None or self.scores_units)

    @property
    def fits_weights(self) -> bool:
        return self.recovery

    def own_needs(self) -> frozenset[Need]:
        gradients: set[Need] = {"trainable_model"} if self.importance == "fisher" and self.scores_units else set()
        return super().own_needs() | gradients

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        refuse_unless_one(self, RULES, "`ratio`, `ratios`, `target` and `blocks`, or `given`")
        if "blocks" in self.remove and self.target is None and self.given is None:
            raise ValueError("`remove` says what goes for a `target`; for a number of blocks give `blocks`")
        return self
