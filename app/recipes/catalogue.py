"""Every pass there is, and what each needs, known without importing any of them."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from app.recipes.aware import QuantizeAwareTraining
from app.recipes.base import Need, PassConfig
from app.recipes.factorization import FactorizeLowRank
from app.recipes.graph import Compile, ConvertFloat16, OptimizeGraph
from app.recipes.pruning import PruneUnstructured
from app.recipes.quantization import QuantizeDynamic, QuantizeStatic, QuantizeWeights
from app.recipes.structure import PruneStructured
from app.recipes.training import Distill, FineTune

MOST_STEPS = 16


@dataclass(frozen=True)
class PassEntry:
    """One line of the catalogue."""

    name: str
    config: type[PassConfig]
    needs_calibration: bool = False
    uses_calibration: bool = False
    """It does without, and better with it."""
    needs_training_data: bool = False
    needs_labels: bool = False
    needs_trainable_model: bool = False
    needs_float32_weights: bool = False
    """It finds nothing to do behind a pass that stores weights in fewer bits."""
    lowers_precision: bool = False
    """It is such a pass."""
    not_after: tuple[str, ...] = ()
    """Further passes behind which it finds nothing to do."""
    takes_fused: bool = False
    """It works on products that `optimize_graph` has fused into operators of the runtime's own."""
    comes_last: bool = False
    """Nothing can work on what it makes."""
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def summary(self) -> str:
        return (self.config.__doc__ or "").strip()

    def needs(self, config: PassConfig | None = None) -> frozenset[Need]:
        """What the pass cannot do without: whatever it is asked for, and with these arguments, where they are given."""
        flags: dict[Need, bool] = {
            "calibration_data": self.needs_calibration,
            "training_data": self.needs_training_data,
            "labels": self.needs_labels,
            "trainable_model": self.needs_trainable_model,
            "float32_weights": self.needs_float32_weights,
        }
        always = frozenset(need for need, flag in flags.items() if flag)
        return always if config is None else always | config.own_needs()

    @property
    def reads_calibration(self) -> bool:
        return self.needs_calibration or self.uses_calibration

    @property
    def needs_torch(self) -> bool:
        return self.needs_trainable_model


CATALOGUE: dict[str, PassEntry] = {
    entry.name: entry
    for entry in (
        PassEntry("optimize_graph", OptimizeGraph, takes_fused=True),
        PassEntry("prune_unstructured", PruneUnstructured, needs_float32_weights=True),
        PassEntry("prune_structured", PruneStructured, uses_calibration=True, needs_float32_weights=True),
        PassEntry("factorize_low_rank", FactorizeLowRank, uses_calibration=True, needs_float32_weights=True),
        PassEntry("distill", Distill, needs_training_data=True, needs_trainable_model=True, needs_float32_weights=True),
        PassEntry(
            "fine_tune",
            FineTune,
            needs_training_data=True,
            needs_labels=True,
            needs_trainable_model=True,
            needs_float32_weights=True,
        ),
        PassEntry(
            "quantize_static",
            QuantizeStatic,
            needs_calibration=True,
            needs_float32_weights=True,
            lowers_precision=True,
        ),
        PassEntry(
            "quantize_aware_training",
            QuantizeAwareTraining,
            needs_calibration=True,
            needs_training_data=True,
            needs_trainable_model=True,
            needs_float32_weights=True,
            lowers_precision=True,
        ),
        PassEntry(
            "quantize_dynamic", QuantizeDynamic, needs_float32_weights=True, lowers_precision=True, takes_fused=True
        ),
        # What int8 kernels left in float32, an embedding's table above all, it still makes smaller.
        PassEntry(
            "quantize_weights",
            QuantizeWeights,
            lowers_precision=True,
            not_after=("convert_float16",),
        ),
        # Behind weights in few bits it halves all the rest.
        PassEntry(
            "convert_float16",
            ConvertFloat16,
            uses_calibration=True,
            lowers_precision=True,
            not_after=("quantize_static", "quantize_aware_training", "quantize_dynamic"),
            takes_fused=True,
        ),
        PassEntry("compile", Compile, takes_fused=True, comes_last=True, devices=("cpu",)),
    )
}

AnyPass = (
    OptimizeGraph
    | PruneUnstructured
    | PruneStructured
    | FactorizeLowRank
    | Distill
    | FineTune
    | QuantizeStatic
    | QuantizeAwareTraining
    | QuantizeDynamic
    | QuantizeWeights
    | ConvertFloat16
    | Compile
)


def _fused_where_it_may_be(recipe: list[AnyPass]) -> list[AnyPass]:
    """Fill in whether `optimize_graph` fuses transformers, where the recipe does not say."""
    filled: list[AnyPass] = []
    for number, config in enumerate(recipe):
        if isinstance(config, OptimizeGraph) and config.fuse_transformers is None:
            fuses = all(CATALOGUE[later.pass_].takes_fused for later in recipe[number + 1 :])
            filled.append(config.model_copy(update={"fuse_transformers": fuses}))
        else:
            filled.append(config)
    return filled


Recipe = Annotated[
    list[Annotated[AnyPass, Field(discriminator="pass_")]],
    Field(min_length=1, max_length=MOST_STEPS, description="Passes, in the order in which they run."),
    AfterValidator(_fused_where_it_may_be),
]
