"""What inspection finds out about a dataset."""

from pydantic import BaseModel, Field


class ArraySpec(BaseModel):
    """One array of a dataset."""

    name: str = Field(description="Its name: that of a model input, or of a label.")
    dtype: str = Field(description="Element type as numpy names it.")
    shape: list[int] = Field(description="Its shape; the first axis counts samples.")


class DatasetInspection(BaseModel):
    """Facts read off a dataset."""

    arrays: list[ArraySpec] = Field(description="Every array, in the order of the file.")
    sample_count: int = Field(description="Length of the first axis, the same for every array.")
