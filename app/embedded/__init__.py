"""The whole service on one machine: bundled Postgres and Redis, API, workers and housekeeping under one supervisor.

The same programs as in production; only the URLs differ.
"""

from app.embedded.folder import (
    DataFolderInUse,
    EmbeddedError,
    default_folder,
    holds_service,
    is_running,
    running_url,
)
from app.embedded.services import EmbeddedServices
from app.embedded.stack import Stack

__all__ = [
    "DataFolderInUse",
    "EmbeddedError",
    "EmbeddedServices",
    "Stack",
    "default_folder",
    "holds_service",
    "is_running",
    "running_url",
]
