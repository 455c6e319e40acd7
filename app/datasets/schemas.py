"""Datasets as the API shows them."""

from pydantic import Field

from app.blobs.schemas import Upload, common
from app.datasets.inspection import ArraySpec, DatasetInspection
from app.datasets.tables import DatasetRow


class Dataset(Upload):
    """An uploaded dataset, with what inspection found out; those fields are null until it is `ready`."""

    arrays: list[ArraySpec] | None = Field(description="Every array, in the order of the file.")
    sample_count: int | None = Field(description="Length of the first axis, the same for every array.")


def show(row: DatasetRow) -> Dataset:
    facts = DatasetInspection.model_validate(row.inspection).model_dump() if row.inspection is not None else {}
    return Dataset.model_validate({**dict.fromkeys(DatasetInspection.model_fields), **facts, **common(row)})
