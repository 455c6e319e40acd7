"""What the passes that only rewrite the graph may be asked for."""

from typing import Literal

from pydantic import Field

from app.recipes.base import PassConfig


class OptimizeGraph(PassConfig):
    """Fold constants and BatchNorm, drop dead code, fuse what ONNX Runtime can fuse on any machine."""

    pass_: Literal["optimize_graph"] = Field(alias="pass", description="The pass.")
    opset: int | None = Field(
        default=None, ge=13, le=21, description="Convert to this opset; by default only files older than 17 are raised."
    )
    fuse_transformers: bool = Field(
        default=True,
        description="Fuse attention, LayerNorm and Gelu where the pattern is found; skipped where it fails.",
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
    keep_float32: list[str] = Field(default=[], max_length=10_000, description="Names of nodes to leave in float32.")
