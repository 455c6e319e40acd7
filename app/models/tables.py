"""Uploaded models."""

from app.blobs.tables import UploadColumns
from app.database import Base


class ModelRow(UploadColumns, Base):
    """A user's model; `inspection` is a `ModelInspection` once `status` is `ready`."""

    __tablename__ = "models"
