"""How ranges are chosen, and in how many bits weights are: what keeps most of the outputs on this processor.

Neither has one answer. The least squared error of a tensor cuts its largest values off: behind an outlier that is what
saves a model, elsewhere the cut adds up from layer to layer as rounding does not (ResNet-50 with random weights, 8
bits, 48 samples: 18.3 dB with extremes, 17.2 with the least squared error). Without VNNI two products of 8 bits by 8
may saturate the kernel's 16: weights in 7 bits never do, and are twice as coarse.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.engine.calibration import Calibration, Method
from worker.engine.int8.fidelity import Fidelity, measure_fidelity
from worker.engine.int8.placement import Placement
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext

SAMPLES = 16
# A later variant must be better by this much: less is chance, and saturation may be worse on other inputs.
WORTHWHILE_DB = 0.5
# What is left to do takes about as long as three trials.
TRIALS_AFTER = 3


@dataclass(frozen=True)
class Variant:
    """`calibration` holds the ranges of `method`."""

    method: Method
    bits: int
    calibration: Calibration

    @property
    def in_words(self) -> str:
        return f"{self.method} ranges and {self.bits}-bit weights"


@dataclass(frozen=True)
class Tried:
    """The variant to keep, and what each that was tried keeps of the outputs."""

    kept: Variant
    fidelities: list[tuple[Variant, Fidelity]]

    def in_words(self) -> list[str]:
        """One sentence; none where there was no choice."""
        if not self.fidelities:
            return []
        found = ", ".join(f"{fidelity.sqnr_db:.1f} dB with {variant.in_words}" for variant, fidelity in self.fidelities)
        return [f"Measured here, outputs keep {found}."]

    def manifest(self) -> list[dict[str, Any]]:
        return [
            {"calibration_method": variant.method, "weight_bits": variant.bits, "sqnr_db": round(fidelity.sqnr_db, 2)}
            for variant, fidelity in self.fidelities
        ]


def most_faithful(
    prepared: ModelFile,
    placement: Placement,
    methods: dict[Method, Calibration],
    bits: tuple[int, ...],
    build: Callable[[Variant, Placement, Path], ModelFile],
    context: PassContext,
) -> Tried:
    """The best pair of `methods` and `bits`. Each is tried with each: what saturates depends on both.

    Raises:
        ModelFails: a call fails.

    """
    variants = [Variant(method, wide, calibration) for method, calibration in methods.items() for wide in bits]
    kept, best = variants[0], -float("inf")
    if len(variants) == 1:
        return Tried(kept, [])
    tried: list[tuple[Variant, Fidelity]] = []
    for number, variant in enumerate(variants):
        started = time.monotonic()
        made = build(variant, placement, context.scratch / f"variant-{number}")
        fidelity = measure_fidelity(prepared, made, context, SAMPLES)
        tried.append((variant, fidelity))
        if fidelity.sqnr_db > best + WORTHWHILE_DB:
            kept, best = variant, fidelity.sqnr_db
        if context.seconds_left() < (1 + TRIALS_AFTER) * (time.monotonic() - started):
            break
    return Tried(kept, tried)
