"""The Python client of Lathe.

It needs httpx and pydantic; numpy only where arrays are given to it, torch only to export a module.
"""

from app.client.errors import (
    DownloadCorrupt,
    ExportFailed,
    LatheApiError,
    LatheClientError,
    NotConfigured,
    NothingDelivered,
    ServiceUnreachable,
    UploadRejected,
    WaitTimeout,
)
from app.client.lathe import DEFAULT_URL, Lathe
from app.client.shapes import Artifact, AuditEntry, Dataset, Job, JobArtifact, JobEvent, JobState, Model, Pass
from app.jobs.report import Report

__all__ = [
    "DEFAULT_URL",
    "Artifact",
    "AuditEntry",
    "Dataset",
    "DownloadCorrupt",
    "ExportFailed",
    "Job",
    "JobArtifact",
    "JobEvent",
    "JobState",
    "Lathe",
    "LatheApiError",
    "LatheClientError",
    "Model",
    "NotConfigured",
    "NothingDelivered",
    "Pass",
    "Report",
    "ServiceUnreachable",
    "UploadRejected",
    "WaitTimeout",
]
