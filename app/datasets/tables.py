"""Uploaded datasets."""

from app.blobs.tables import UploadColumns
from app.database import Base


class DatasetRow(UploadColumns, Base):
    """A user's dataset; `inspection` is a `DatasetInspection` once `status` is `ready`."""

    __tablename__ = "datasets"
