"""What inspection finds out about a model."""

from pydantic import BaseModel, Field

BLOCKERS = (
    "Operators that prevent training; none where `trainable` is false because no constant in float32 or float64 could "
    "be a weight."
)


class TensorSpec(BaseModel):
    """One input or output of a model."""

    name: str = Field(description="Its name in the graph.")
    dtype: str = Field(
        description="Element type as numpy names it (`float32`, `int64`, `bool`, `float16`), or `string`."
    )
    shape: list[int | str | None] | None = Field(
        description="One entry an axis: a number, a symbolic name, or null where unnamed; null: the rank is unknown."
    )


class ModelInspection(BaseModel):
    """Facts read off the graph."""

    inputs: list[TensorSpec] = Field(description="What a call must feed; initializers are not among them.")
    outputs: list[TensorSpec] = Field(description="What a call returns.")
    opset: int = Field(description="Version of the default operator set.")
    ir_version: int = Field(description="Version of the ONNX file format.")
    domains: dict[str, int] = Field(description="Operator sets beside the default one, with their versions.")
    producer: str | None = Field(default=None, description="The tool that wrote the file, as the file says.")
    parameter_count: int = Field(description="Elements in all initializers.")
    mac_count: int | None = Field(
        description="Multiply-accumulates of one call at batch 1; null where a shape cannot be known, and of what ONNX "
        "Runtime compiled to layouts of its own."
    )
    operators: dict[str, int] = Field(description="Nodes by operator type, subgraphs included.")
    trainable: bool = Field(description="Whether passes that train can take it.")
    training_blockers: list[str] = Field(default_factory=list, description=BLOCKERS)
