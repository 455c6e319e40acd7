"""Models as the API shows them."""

from pydantic import Field

from app.blobs.schemas import Upload, common
from app.models.inspection import BLOCKERS, ModelInspection, TensorSpec
from app.models.tables import ModelRow


class Model(Upload):
    """An uploaded model, with what inspection found out; those fields are null until it is `ready`."""

    inputs: list[TensorSpec] | None = Field(description="What a call must feed.")
    outputs: list[TensorSpec] | None = Field(description="What a call returns.")
    opset: int | None = Field(description="Version of the default operator set.")
    ir_version: int | None = Field(description="Version of the ONNX file format.")
    domains: dict[str, int] | None = Field(description="Operator sets beside the default one, with their versions.")
    producer: str | None = Field(description="The tool that wrote the file, as the file says.")
    parameter_count: int | None = Field(description="Elements in all initializers.")
    mac_count: int | None = Field(
        description="Multiply-accumulates of one call at batch 1; null as well where a shape cannot be known, and of "
        "what ONNX Runtime compiled to layouts of its own."
    )
    operators: dict[str, int] | None = Field(description="Nodes by operator type, subgraphs included.")
    trainable: bool | None = Field(description="Whether passes that train can take it.")
    training_blockers: list[str] | None = Field(description=BLOCKERS)


def show(row: ModelRow) -> Model:
    facts = ModelInspection.model_validate(row.inspection).model_dump() if row.inspection is not None else {}
    return Model.model_validate({**dict.fromkeys(ModelInspection.model_fields), **facts, **common(row)})
