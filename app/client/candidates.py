"""Which of a job's models is meant by a name."""

from collections.abc import Callable
from uuid import UUID

from app.client.errors import NothingDelivered
from app.client.shapes import Job, JobArtifact
from app.jobs.report import Report


def is_id(name: str) -> bool:
    """Whether it is an id, rather than the name of a file or of a candidate."""
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def model_called(name: str, job: Job, read_report: Callable[[], Report]) -> JobArtifact:
    """The model of that file name, or of the candidate that the report calls so.

    Raises NothingDelivered where there is none, and where a job that goes on has no report yet to look the name up in.
    """
    models = {artifact.file_name: artifact for artifact in job.artifacts if artifact.kind == "model"}
    if name in models:
        return models[name]
    if not job.is_over:
        raise NothingDelivered(f"Job {job.id} is {job.state}: wait for its end, or cancel it, and promote then.")
    candidates = {one.name: one.file_name for one in read_report().candidates} if job.succeeded else {}
    file_name = candidates.get(name)
    if file_name not in models:
        names = ", ".join(f"`{one}`" for one in (*candidates, *models)) or "none"
        raise NothingDelivered(f"Job {job.id} has no model `{name}`. It has {names}.")
    return models[file_name]
