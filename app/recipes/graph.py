"""What the passes that only rewrite the graph may be asked for."""

from typing import Literal

from pydantic import Field

from app.recipes.base import NodeName, PassConfig


class OptimizeGraph(PassConfig):
    """Fold constants and BatchNorm, drop dead code, fuse what ONNX Runtime can fuse on any machine."""

    pass_: Literal["optimize_graph"] = Field(alias="pass", description="The pass.")
    opset: int | None = Field(
        default=None,
        ge=13,
        le=21,
        description="Convert to this opset; by default files older than 17 are raised to it, newer than 21 lowered.",
    )
    fuse_transformers: bool | None = Field(
        default=None,
        description="Fuse attention, LayerNorm and Gelu where the pattern is found; skipped where it fails. By default "
        "unless a pass behind this one works on products as the standard has them.",
    )


class Compile(PassConfig):
    """The graph as ONNX Runtime optimizes it for the worker's machine, and for no other: loading it takes less work."""

    pass_: Literal["compile"] = Field(alias="pass", description="The pass.")
    ort_format: bool = Field(
        default=True,
        description="Deliver the model as .ort as well, the format that minimal builds of ONNX Runtime read.",
    )


class ConvertFloat16(PassConfig):
    """Store and compute in float16: half the size; faster on a GPU, not on a CPU."""

    pass_: Literal["convert_float16"] = Field(alias="pass", description="The pass.")
    keep_io_types: bool = Field(default=True, description="Leave the model's inputs and outputs in float32.")
    keep_float32: list[NodeName] = Field(
        default=[], max_length=10_000, description="Names of nodes to leave in float32."
    )
    calibration_samples: int = Field(
        default=32, ge=1, le=100_000, description="So many samples are looked at for values beyond float16, at most."
    )
