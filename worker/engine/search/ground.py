"""What is known of the model and the machine before anything is tried: the ground that expectations stand on."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.jobs.report import KernelTime
from worker.engine.turns import LEAST_ROUNDS

# Kernels by what a pass does to them; names as ONNX Runtime executes them.
CONVOLUTIONS = frozenset({"Conv", "FusedConv", "ConvTranspose"})
PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Attention", "MultiHeadAttention", "LSTM"})
WITH_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
# How many times as fast such kernels were in int8 on the machines of the benchmarks; conversions not counted.
INT8_SPEED = {True: 3.5, False: 1.5}
DYNAMIC_SPEED = {True: 2.5, False: 1.2}
# A model is read and written about ten times until it is prepared.
PREPARED_BYTES_A_SECOND = 15e6


@dataclass(frozen=True)
class Ground:
    """Times in seconds; shares of the time of a call, 0 to 1."""

    call_seconds: float
    load_seconds: float
    size_bytes: int
    convolution_share: float
    product_share: float
    calibration_samples: int
    selection_samples: int
    training_samples: int
    has_vnni: bool
    device: str
    left_without_blocks: float = 1.0
    """Share of the multiply-accumulates that is left once every residual block is gone."""

    @property
    def static_speed(self) -> float:
        """Amdahl's law over the kernels that have an int8 form."""
        return amdahl(self.convolution_share + self.product_share, INT8_SPEED[self.has_vnni])

    @property
    def dynamic_speed(self) -> float:
        return amdahl(self.product_share, DYNAMIC_SPEED[self.has_vnni])

    @property
    def preparing_seconds(self) -> float:
        """What the first candidate takes beyond its own pass; the others begin with the same preparation."""
        return self.size_bytes / PREPARED_BYTES_A_SECOND

    @property
    def forward_seconds(self) -> float:
        """What one run over the samples that calibrate takes."""
        return self.call_seconds * min(256, self.calibration_samples)

    @property
    def measuring_seconds(self) -> float:
        """Turns by the clock, each round of which loads both models, and both over the samples for choosing."""
        return 5.0 + 2 * LEAST_ROUNDS * self.load_seconds + 2 * self.call_seconds * self.selection_samples

    def epoch_seconds(self) -> float:
        """Forward and backward, in torch, which takes about twice the time of ONNX Runtime for either."""
        return 6 * self.call_seconds * self.training_samples


def amdahl(share: float, speed: float) -> float:
    """How many times as fast the whole gets where this share of it gets `speed` times as fast."""
    return 1 / (1 - min(share, 1.0) + min(share, 1.0) / speed)


def shares(kernels: list[KernelTime]) -> Mapping[str, float]:
    """Of the time in kernels: `convolutions` and `products`."""
    return {
        "convolutions": sum(one.share for one in kernels if one.operator in CONVOLUTIONS),
        "products": sum(one.share for one in kernels if one.operator in PRODUCTS),
    }
