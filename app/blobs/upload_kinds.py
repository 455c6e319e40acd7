"""Where uploads of models and of datasets differ."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select

from app.access.tables import Action
from app.datasets.tables import DatasetRow
from app.jobs.states import JobKind
from app.models.tables import ModelRow

Row = TypeVar("Row", ModelRow, DatasetRow)

OCTET_STREAM = "application/octet-stream"


@dataclass(frozen=True)
class UploadKind(Generic[Row]):
    """What is to be known of one of the two."""

    noun: str
    table: type[Row]
    media_types: tuple[str, ...]
    inspection: JobKind
    created: Action
    deleted: Action
    jobs_of: Callable[[UUID | ColumnElement[UUID]], tuple[Select[UUID], ...]]
    """The jobs that refer to one, by each way of doing so: apart, for each has an index, and one OR would use none."""
