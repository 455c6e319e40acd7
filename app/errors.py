"""The one error tree of the API, rendered as RFC 9457 problem documents."""

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """An RFC 9457 problem document (`application/problem+json`)."""

    type: str = Field(default="about:blank", description="A URI naming the kind of problem.")
    title: str = Field(description="One short sentence, the same for every occurrence of `code`.")
    status: int = Field(description="The HTTP status of the answer.")
    code: str = Field(description="A stable, machine-readable name of the problem.")
    detail: str = Field(description="What happened here, naming the offending thing.")
    remedy: str | None = Field(default=None, description="What to do about it, where there is something.")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="With `validation_failed`: each field refused, as `location` and `message`."
    )


class Fault(BaseModel):
    """Why a job, a model or a dataset was refused: a problem without an HTTP answer around it."""

    code: str = Field(description="A stable, machine-readable name of the problem.")
    title: str = Field(description="One short sentence, the same for every occurrence of `code`.")
    detail: str = Field(description="What happened here, naming the offending thing.")
    remedy: str | None = Field(default=None, description="What to do about it, where there is something.")


class OurFault(StrEnum):
    """Codes of faults that say more about the service than about what a user sent: the same again may end otherwise."""

    WORKER_LOST = "worker_lost"
    INTERNAL_ERROR = "internal_error"
    RUNNER_CRASHED = "runner_crashed"
    INSPECTION_INTERRUPTED = "inspection_interrupted"
    INSPECTION_TIME_LIMIT = "inspection_time_limit"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    FILE_TOO_LARGE = "file_too_large"
    TOO_MUCH_WRITTEN = "too_much_written"
    STORAGE_FULL = "storage_full"
    UNAVAILABLE = "unavailable"
    CONTENT_CORRUPT = "content_corrupt"
    CONTENT_MISSING = "content_missing"


OUR_FAULTS: frozenset[str] = frozenset(OurFault)


class LatheError(Exception):
    """A refusal with a stable code. Subclasses are nouns; each fixes its status, code and title."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = OurFault.INTERNAL_ERROR
    title: ClassVar[str] = "Something went wrong on our side"
    sends: ClassVar[tuple[str, ...]] = ()
    """Headers that its answer bears."""

    def __init__(self, detail: str, remedy: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy
        self.headers = headers or {}

    def problem(self) -> Problem:
        return Problem(title=self.title, status=self.status, code=self.code, detail=self.detail, remedy=self.remedy)


class Unauthenticated(LatheError):
    status, code, title = 401, "unauthenticated", "A valid API key is needed"
    sends = ("WWW-Authenticate",)


class MissingScope(LatheError):
    status, code, title = 403, "missing_scope", "The API key lacks a scope"


class NotFound(LatheError):
    status, code, title = 404, "not_found", "There is no such thing in this workspace"


class Conflict(LatheError):
    status, code, title = 409, "conflict", "The request conflicts with the present state"


class InUse(Conflict):
    code, title = "in_use", "A job still uses this"


class NotReady(Conflict):
    code, title = "not_ready", "This is still being inspected"
    sends = ("Retry-After",)


class JobOver(Conflict):
    code, title = "job_over", "The job is already over"


class JobNotOver(Conflict):
    code, title = "job_not_over", "The job is not over yet"


class ArtifactPromoted(Conflict):
    code, title = "artifact_promoted", "The artifact was promoted"


class ReportNotReady(Conflict):
    code, title = "report_not_ready", "The job has no report yet"


class NoReport(Conflict):
    code, title = "no_report", "The job ended without a report"


class NoGpuWorker(Conflict):
    code, title = "no_gpu_worker", "No worker with a GPU is there"


class NoTrainingWorker(Conflict):
    code, title = "no_training_worker", "No worker that can train is there"


class TooManyWebhooks(Conflict):
    code, title = "too_many_webhooks", "The workspace has as many webhooks as it may have"


class TooLarge(LatheError):
    status, code, title = 413, "too_large", "The upload is larger than this service accepts"


class TooSlow(LatheError):
    status, code, title = 408, "too_slow", "The bytes arrive too slowly"


class UnsupportedMediaType(LatheError):
    status, code, title = 415, "unsupported_media_type", "The upload is of a type this service does not read"


class RangeNotSatisfiable(LatheError):
    status, code, title = 416, "range_not_satisfiable", "The range lies outside the content"
    sends = ("Content-Range",)


class Unprocessable(LatheError):
    """The request is well-formed and cannot be carried out; subclasses and `code` say why."""

    status, code, title = 422, "unprocessable", "The request cannot be carried out as it stands"


class ValidationFailed(Unprocessable):
    code, title = "validation_failed", "The request does not fit the schema"


class IdempotencyKeyReused(Unprocessable):
    code, title = "idempotency_key_reused", "The idempotency key came with another request before"


class InvalidCursor(Unprocessable):
    code, title = "invalid_cursor", "The cursor is not one that this service gave out"


class ModelRejected(Unprocessable):
    code, title = "model_rejected", "The model was rejected at inspection"


class DatasetRejected(Unprocessable):
    code, title = "dataset_rejected", "The dataset was rejected at inspection"


class DataMismatch(Unprocessable):
    code, title = "data_mismatch", "The data does not fit the model"


class DataRequired(Unprocessable):
    code, title = "data_required", "A pass of the recipe cannot do without data that was not given"


class MetricMismatch(Unprocessable):
    code, title = "metric_mismatch", "The metric does not fit the model or the data"


class NotAModel(Unprocessable):
    code, title = "not_a_model", "The artifact is no model"


class NotTrainable(Unprocessable):
    code, title = "not_trainable", "The model cannot be trained"


class AddressRefused(Unprocessable):
    code, title = "address_refused", "The address is not one that this service sends to"


class TooManyThreads(Unprocessable):
    code, title = "too_many_threads", "No worker has that many cores"


class TooManyRequests(LatheError):
    status, code, title = 429, "too_many_requests", "The workspace has used up its requests for now"
    sends = ("Retry-After", "RateLimit-Policy", "RateLimit")


class TooManyQueuedJobs(LatheError):
    status, code, title = 429, "too_many_queued_jobs", "The workspace has as many jobs waiting as it may have"
    sends = ("Retry-After",)


class TooManyQueuedInspections(LatheError):
    status, code, title = 429, "too_many_queued_inspections", "As many uploads wait for inspection as may"
    sends = ("Retry-After",)


class TooManyResumableUploads(LatheError):
    status, code, title = (
        429,
        "too_many_resumable_uploads",
        "The workspace has as many unfinished uploads as it may",
    )
    sends = ("Retry-After",)


class StorageQuotaExceeded(LatheError):
    status, code, title = 507, "storage_quota_exceeded", "The workspace has stored as much as it may"


class StorageFull(LatheError):
    status, code, title = 507, OurFault.STORAGE_FULL, "The storage of this service is full"


class Unavailable(LatheError):
    status, code, title = 503, OurFault.UNAVAILABLE, "A part this service needs does not answer"
    sends = ("Retry-After",)
