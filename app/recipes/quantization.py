"""What the post-training quantization passes may be asked for."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.recipes.base import Name, NodeName, PassConfig

WeightBits = Literal[8, 4, 2, "ternary", "binary"]


class StaticOptions(BaseModel):
    """How a float model becomes its static INT8 form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibration_method: Literal["auto", "mse", "minmax", "percentile", "entropy"] = Field(
        default="auto",
        description="How activation ranges are chosen from the calibration data: least squared error, the extremes, a "
        "share of all values, or least divergence; `auto`: the first or the second, whichever keeps more of the "
        "outputs.",
    )
    percentile: float = Field(
        default=99.99, gt=50, le=100, description="With `percentile`: the share of values kept inside the range."
    )
    calibration_samples: int = Field(
        default=256, ge=1, le=100_000, description="At most this many samples of the calibration data are read."
    )
    per_channel: bool | Literal["auto"] = Field(
        default="auto",
        description="One weight scale per output channel. `auto`: so it is but for products of few rows whose channels "
        "spread alike: with one scale for all their kernels are faster.",
    )
    reduce_range: bool | None = Field(
        default=None,
        description="Weights whose products saturate no kernel that adds them in 16 bits: no two neighbours exceed 128 "
        "together. By default only where VNNI is missing, here or in `target.instruction_set`.",
    )
    placement: Literal["measured", "kernels", "given"] = Field(
        default="measured",
        description="Which nodes run in int8: `measured` leaves in float what is slower in int8 on this machine, "
        "conversions included; `kernels` takes every node that has an int8 kernel; `given` takes all of those "
        "but `in_float`.",
    )
    in_float: list[NodeName] = Field(
        default=[],
        max_length=10_000,
        description="With `given`: nodes that were placed in float, as a manifest records them.",
    )
    given_back: list[NodeName] = Field(
        default=[],
        max_length=10_000,
        description="Nodes given back to float after rounding, for what they lost, as a manifest records them.",
    )
    rounding: Literal["nearest", "gptq"] = Field(
        default="nearest",
        description="How weights are rounded: to the nearest, or by GPTQ so that errors cancel on real inputs.",
    )
    weight_clipping: bool = Field(
        default=True, description="Search the scale of each weight channel for the least error on real inputs."
    )
    bias_correction: bool = Field(
        default=True, description="Add to biases what rounded weights take from the average of each channel."
    )
    smoothing: Literal["auto", "off"] = Field(
        default="auto",
        description="Move outlier channels of a transformer's activations into its weights (SmoothQuant), where that "
        "measures better.",
    )
    smoothing_samples: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="What smoothing looks at, at most: by default 64 samples, or as many as are calibrated with.",
    )
    input_samples: int | None = Field(
        default=None,
        ge=0,
        le=100_000,
        description="Of how many samples it is read what nodes are fed, before weights are rounded, as a manifest "
        "records it; 0: of none, and weights are rounded plainly.",
    )
    equalization: bool = Field(
        default=False,
        description="Rescale channels between convolutions so that their weights spread alike; with a scale for each "
        "weight channel it seldom helps.",
    )
    keep_fidelity: bool = Field(
        default=True,
        description="Leave nodes in float, those first that keep most for the time they cost, until "
        "`fidelity_floor_db` and the job's contract hold on calibration data; with the placement `given` it is "
        "`given_back` that says which.",
    )
    fidelity_floor_db: float = Field(
        default=10.0,
        ge=-100,
        le=100,
        description="Least signal to quantization noise ratio at the model's outputs, over all samples and of the one "
        "in the middle: at 10 dB a tenth of the power is noise. Where all outputs are whole numbers, what changed "
        "is the noise.",
    )
    operators: list[Name] | None = Field(
        default=None,
        max_length=200,
        description="Operator types to quantize; by default those with a fast INT8 kernel.",
    )
    without_int8: Literal["measured", "prepared", "original"] = Field(
        default="measured",
        description="What is delivered where nothing runs in int8: the graph made ready for it, with constants and "
        "BatchNorm folded, the original, or whichever measures faster.",
    )
    exclude: list[NodeName] = Field(default=[], max_length=10_000, description="Names of nodes to leave in float.")


class QuantizeStatic(StaticOptions, PassConfig):
    """INT8 weights and activations, ranges calibrated on data: unsigned activations, signed weights per channel."""

    pass_: Literal["quantize_static"] = Field(alias="pass", description="The pass.")
    bits: Literal[8, 16] = Field(
        default=8,
        description="16 is for size: no CPU has a kernel for it, so weights are stored in 16 bits as by "
        "`quantize_weights`, activations stay in float, and of the other arguments `exclude` alone counts.",
    )


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
        default=None,
        description="Weights whose products saturate no kernel that adds them in 16 bits. By default only where "
        "VNNI is missing, here or in `target.instruction_set`.",
    )
    placement: Literal["measured", "kernels", "given"] = Field(
        default="measured",
        description="Which nodes run in int8: `measured` leaves in float what is slower in int8 on this machine; "
        "`kernels` takes every node that has such a kernel; `given` takes all of those but `in_float`.",
    )
    in_float: list[NodeName] = Field(
        default=[],
        max_length=10_000,
        description="With `given`: nodes that were placed in float, as a manifest records them.",
    )
    without_int8: Literal["measured", "prepared", "original"] = Field(
        default="measured",
        description="What is delivered where nothing runs in int8: the graph made ready for it, with constants and "
        "BatchNorm folded, the original, or whichever measures faster.",
    )
    exclude: list[NodeName] = Field(default=[], max_length=10_000, description="Names of nodes to leave in float.")


class QuantizeWeights(PassConfig):
    """Weights in 4, 8 or 16 bits, arithmetic in float: the file gets small, no slower and needs no data."""

    pass_: Literal["quantize_weights"] = Field(alias="pass", description="The pass.")
    bits: Literal[4, 8, 16] = Field(
        default=8,
        description="Bits of a weight: matrices of MatMul and Gemm in 4 if asked, convolutions and embeddings in 8 at "
        "least, constants of other operators in 16.",
    )
    block_size: Literal[16, 32, 64, 128] = Field(
        default=128, description="Rows of a matrix that share a scale, in 4 bits and in MatMulNBits."
    )
    kernels: Literal["auto", "stored", "matmul_nbits"] = Field(
        default="auto",
        description="`stored`: float kernels, weights are float32 again once the file is loaded; `matmul_nbits`: "
        "products read the bits as they lie, faster for one row or a few; `auto` measures both here and keeps the "
        "faster.",
    )
    keep_stored: list[NodeName] = Field(
        default=[],
        max_length=10_000,
        description="With `matmul_nbits`: names of nodes whose weights are stored all the same.",
    )
    minimum_elements: int = Field(default=1024, ge=1, description="Tensors with fewer elements stay in float32.")
    exclude: list[NodeName] = Field(
        default=[], max_length=10_000, description="Names of nodes whose weights stay in float32."
    )

    @model_validator(mode="after")
    def _kernel_has_the_bits(self) -> Self:
        if self.kernels == "matmul_nbits" and self.bits == 16:
            raise ValueError("`matmul_nbits` reads 4 or 8 bits, and `bits` is 16")
        return self
