"""The client: one class, one method a call of the API, and the waiting between them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

from app.client import submission, transfer, uploading
from app.client.candidates import is_id, model_called
from app.client.errors import LatheApiError, NotConfigured, NothingDelivered
from app.client.following import FollowingCalls
from app.client.shapes import Artifact, AuditEntry, Dataset, Job, JobArtifact, JobState, Model, Page, Pass
from app.client.submission import DatasetLike, Document, ModelLike, RecipeLike, id_of
from app.client.transfer import Progress
from app.client.transport import Transport, read
from app.client.uploads import UploadCalls
from app.jobs.report import Report

DEFAULT_URL = "http://127.0.0.1:8000"


class Lathe(UploadCalls, FollowingCalls):
    """A Lathe service, as one key sees it.

        with Lathe("http://127.0.0.1:8000", "lth_...") as lathe:
            model = lathe.upload_model("model.onnx")
            data = lathe.upload_dataset({"image": images})
            job = lathe.wait(lathe.optimize(model, "quantize_static", data={"calibration": data}))
            lathe.download(job, "model.int8.onnx")

    URL and key come from `LATHE_URL` and `LATHE_KEY` where they are not given. Every method raises `LatheApiError`
    where the service refuses, and `ServiceUnreachable` where no answer came within `retry_seconds` of the first
    failure; the logger `lathe` is told of retries. An upload of `resumable_from_bytes` or more
    (`LATHE_RESUMABLE_FROM_BYTES`, else 64 MiB) goes on where the connection broke; a smaller one is sent again.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_seconds: float = 120,
        retry_seconds: float = 30,
        resumable_from_bytes: int | None = None,
    ) -> None:
        key = key or os.environ.get("LATHE_KEY")
        if not key:
            raise NotConfigured("No API key: give one, or set LATHE_KEY.")
        self.url = url or os.environ.get("LATHE_URL") or DEFAULT_URL
        transport = Transport(self.url, key, timeout_seconds=timeout_seconds, retry_seconds=retry_seconds)
        super().__init__(transport, uploading.threshold_bytes(resumable_from_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.close()

    def passes(self) -> list[Pass]:
        """What a recipe may be made of."""
        return self._get(Page[Pass], "/v1/passes").items

    def optimize(  # noqa: PLR0913 - the fields of a job request
        self,
        model: ModelLike,
        recipe: RecipeLike,
        *,
        data: Mapping[str, DatasetLike] | None = None,
        metric: str | Document | None = None,
        contract: float | Document | None = None,
        objective: str | Document | None = None,
        search: Document | None = None,
        target: Document | None = None,
        deployment_check: bool | None = None,
        budget_seconds: int | None = None,
        priority: str | None = None,
        seed: int | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submit a job, once what it uses is inspected; `wait` follows it.

        `data` names datasets by role (`calibration`, `training`, `evaluation`); `contract=0.01` accepts a loss of one
        point. With the recipe `"auto"` Lathe finds the passes: `search` says what it may do, as
        `{"max_trials": 8}`, and `objective` by what it chooses, `"size"` or weights, as
        `{"latency": 1, "size": 0.5}`. `deployment_check=True` asks whether the delivered file can be put to work; with
        `"auto"` it is asked by default. The same `idempotency_key` and request again answer the same job; without one,
        a new key is made.
        """
        body: dict[str, Any] = {
            "model_id": id_of(self.wait_until_ready(model if isinstance(model, Model) else self.model(model))),
            "recipe": submission.recipe_document(recipe),
            "data": {
                role: id_of(self.wait_until_ready(item if isinstance(item, Dataset) else self.dataset(item)))
                for role, item in (data or {}).items()
            },
            "metric": None if metric is None else submission.metric_document(metric),
            "contract": None if contract is None else submission.contract_document(contract),
            "target": None if target is None else submission.document(target),
            "objective": None if objective is None else submission.objective_document(objective),
            "search": None if search is None else submission.document(search),
            "deployment_check": deployment_check,
            "budget_seconds": budget_seconds,
            "priority": priority,
            "seed": seed,
        }
        response = self._transport.send(
            "POST",
            "/v1/jobs",
            json={field: value for field, value in body.items() if value is not None},
            headers={"Idempotency-Key": idempotency_key or str(uuid4())},
        )
        return read(Job, response)

    def jobs(self, *, state: JobState | str | None = None, model: ModelLike | None = None) -> Iterator[Job]:
        """Jobs, newest first; pages are fetched as they are needed."""
        return self._list(Job, "/v1/jobs", state=state, model=None if model is None else id_of(model))

    def audit(self, *, action: str | None = None, object_id: UUID | str | None = None) -> Iterator[AuditEntry]:
        """Who did what in the workspace, the latest first; pages are fetched as they are needed. Takes `admin`."""
        return self._list(
            AuditEntry, "/v1/audit", action=action, object_id=None if object_id is None else str(object_id)
        )

    def cancel(self, job: Job | UUID | str) -> Job:
        """Cancel a queued job at once, ask a running one to stop; refused as `job_over` afterwards."""
        try:
            return read(Job, self._transport.send("POST", f"/v1/jobs/{id_of(job)}/cancel"))
        except LatheApiError as error:
            if error.code == "job_over" and error.attempt > 1:
                known = self.job(id_of(job))
                if known.state is JobState.CANCELLED:
                    return known
            raise

    def promote(self, job: Job | UUID | str, candidate: JobArtifact | UUID | str) -> Job:
        """Let one of a finished job's models stand for it, so that `download` fetches it: nothing is computed again.

        `candidate` is an artifact, its id or file name, or the name of a candidate of the report. Raises
        NothingDelivered where the job has none of that name.
        """
        if isinstance(candidate, str) and not is_id(candidate):
            known = self.job(id_of(job))
            candidate = model_called(candidate, known, lambda: self.report(known))
        body = {"artifact_id": id_of(candidate)}
        return read(Job, self._transport.send("POST", f"/v1/jobs/{id_of(job)}/promote", json=body))

    def report(self, job: Job | UUID | str) -> Report:
        """Every measurement of a finished job; refused as `report_not_ready` before."""
        return self._get(Report, f"/v1/jobs/{id_of(job)}/report")

    def artifact(self, artifact_id: UUID | str) -> Artifact:
        """What is known about a delivered file."""
        return self._get(Artifact, f"/v1/artifacts/{artifact_id}")

    def delete_artifact(self, artifact: JobArtifact | UUID | str) -> None:
        """Delete a delivered file; refused as `job_not_over` while its job runs, and as `artifact_promoted`."""
        self._delete(f"/v1/artifacts/{id_of(artifact)}")

    def download(
        self,
        source: Job | JobArtifact | UUID | str | None,
        path: str | os.PathLike[str],
        *,
        on_progress: Progress | None = None,
    ) -> Path:
        """Fetch a delivered file to `path`, or into it where it is a folder; the path it has in the end.

        `source` is a job, for the model that stands for it (of a search that runs the best so far), or an artifact or
        its id. An interrupted download is continued; the file appears once its sha256 is verified; a link
        stays, and what it points to is replaced. Raises DownloadCorrupt, FileExistsError where the path is a device or
        a pipe, and NothingDelivered for a job without a model, or whose model was deleted, or for None, which is what
        its `optimized` is then.
        """
        delivered = source.delivered() if isinstance(source, Job) else source
        if delivered is None:
            raise NothingDelivered("There is nothing to download: the job delivered no model.")
        known = delivered if isinstance(delivered, JobArtifact) else self.artifact(delivered)
        destination = Path(path)
        if destination.is_dir():
            destination /= Path(known.file_name).name
        transfer.download(
            self._transport,
            f"/v1/artifacts/{known.id}/content",
            destination,
            sha256=known.sha256,
            size_bytes=known.size_bytes,
            on_progress=on_progress,
        )
        return destination
