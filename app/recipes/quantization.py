"""What the post-training quantization passes may be asked for."""

from typing import Literal

from pydantic import Field

from app.recipes.base import PassConfig


class QuantizeStatic(PassConfig):
    """INT8 weights and activations, ranges calibrated on data: unsigned activations, signed weights per channel."""

    pass_: Literal["quantize_static"] = Field(alias="pass", description="The pass.")
    calibration_method: Literal["minmax", "percentile", "entropy"] = Field(
        default="minmax", description="How activation ranges are chosen from the calibration data."
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="With `percentile`: the share of values kept inside the range."
    )
    calibration_samples: int = Field(
        default=256, ge=1, le=100_000, description="At most this many samples of the calibration data are read."
    )
    per_channel: bool = Field(
        default=True, description="One weight scale per output channel; costs nothing at run time."
    )
    reduce_range: bool | None = Field(
        default=None, description="Weights in 7 bits, which saturate nowhere; by default only where VNNI is missing."
    )
    operators: list[str] | None = Field(
        default=None,
        max_length=200,
        description="Operator types to quantize; by default those with a fast INT8 kernel.",
    )
    exclude: list[str] = Field(default=[], max_length=10_000, description="Names of nodes to leave in float.")


class QuantizeDynamic(PassConfig):
    """INT8 weights, activations quantized at run time: no data needed; for MatMul, Gemm and LSTM, never Conv."""

    pass_: Literal["quantize_dynamic"] = Field(alias="pass", description="The pass.")
    operators: list[Literal["MatMul", "Gemm", "LSTM", "Attention"]] = Field(
        default=["MatMul", "Gemm", "LSTM", "Attention"],
        min_length=1,
        description="Operator types to quantize.",
    )
    per_channel: bool = Field(default=True, description="One weight scale per output channel.")
    reduce_range: bool | None = Field(
        default=None, description="Weights in 7 bits, which saturate nowhere; by default only where VNNI is missing."
    )
    exclude: list[str] = Field(default=[], max_length=10_000, description="Names of nodes to leave in float.")
