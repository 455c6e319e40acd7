"""The client: one class, one method a call of the API, and the waiting between them."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID, uuid4

import httpx
from httpx_sse import EventSource
from pydantic import BaseModel

from app.client import conversion, submission, transfer, uploading
from app.client.candidates import is_id, model_called
from app.client.errors import NotConfigured, NothingDelivered, UploadRejected, WaitTimeout
from app.client.shapes import (
    Artifact,
    AuditEntry,
    Dataset,
    Job,
    JobArtifact,
    JobEvent,
    JobEvents,
    JobState,
    Model,
    Page,
    Pass,
)
from app.client.submission import DatasetLike, Document, ModelLike, RecipeLike, id_of
from app.client.transfer import Progress
from app.client.transport import OUTAGE_SECONDS, Transport, read
from app.jobs.report import Attempt, Report

if TYPE_CHECKING:
    import numpy.typing as npt

DEFAULT_URL = "http://127.0.0.1:8000"
POLL_SECONDS = 1.0
FIRST_POLL_SECONDS = 0.05
PAGE_ITEMS = 100
EVENTS_A_PAGE = 500
WAIT_SECONDS = 86_400.0

UploadedT = TypeVar("UploadedT", Model, Dataset)
ItemT = TypeVar("ItemT", bound=BaseModel)


class Lathe:
    """A Lathe service, as one key sees it.

        with Lathe("http://127.0.0.1:8000", "lth_...") as lathe:
            model = lathe.upload_model("model.onnx")
            data = lathe.upload_dataset({"image": images})
            job = lathe.wait(lathe.optimize(model, "quantize_static", data={"calibration": data}))
            lathe.download(job, "model.int8.onnx")

    URL and key come from `LATHE_URL` and `LATHE_KEY` where they are not given. Every method raises `LatheApiError`
    where the service refuses, and `ServiceUnreachable` where no answer came in `retry_seconds`. An upload of
    `resumable_from_bytes` or more (`LATHE_RESUMABLE_FROM_BYTES`, else 64 MiB) goes on where the connection broke; a
    smaller one is sent again.
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
        self._resumable_from_bytes = uploading.threshold_bytes(resumable_from_bytes)
        self._transport = Transport(self.url, key, timeout_seconds=timeout_seconds, retry_seconds=retry_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._transport.close()

    def upload_model(
        self,
        source: str | os.PathLike[str] | bytes,
        *,
        name: str | None = None,
        wait: bool = True,
        on_progress: Progress | None = None,
    ) -> Model:
        """Upload an `.onnx` file, or a `.tar` of one with its external data; the same bytes give the same model.

        With `wait`, returns when inspection is over. Raises UploadRejected where it found the model unusable.
        """
        content = source if isinstance(source, bytes) else Path(source)
        name = name or ("model" if isinstance(content, bytes) else content.name)
        model = self._upload(
            Model,
            "model",
            content,
            name=name,
            media_type=transfer.model_media_type(content),
            on_progress=on_progress,
        )
        return self.wait_until_ready(model) if wait else model

    def upload_dataset(
        self,
        source: "str | os.PathLike[str] | bytes | Mapping[str, npt.ArrayLike]",
        *,
        name: str | None = None,
        wait: bool = True,
        on_progress: Progress | None = None,
    ) -> Dataset:
        """Upload a `.npz` or `.safetensors` file, or arrays by name: one for each model input, and any labels.

        With `wait`, returns when inspection is over. Raises UploadRejected where it found the dataset unusable.
        """
        with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
            if isinstance(source, Mapping):
                content: Path | bytes = Path(folder) / "dataset.npz"
                conversion.write_npz(Path(folder) / "dataset.npz", source)
            else:
                content = source if isinstance(source, bytes) else Path(source)
            name = name or ("dataset" if isinstance(content, bytes) else content.name)
            dataset = self._upload(
                Dataset,
                "dataset",
                content,
                name=name,
                media_type="application/octet-stream",
                on_progress=on_progress,
            )
        return self.wait_until_ready(dataset) if wait else dataset

    def upload_module(
        self,
        module: Any,
        example_inputs: Sequence[Any],
        *,
        name: str | None = None,
        dynamic_shapes: Any = None,
        input_names: Sequence[str] | None = None,
        output_names: Sequence[str] | None = None,
        opset: int | None = None,
        wait: bool = True,
    ) -> Model:
        """Export a `torch.nn.Module` to ONNX on this machine and upload that: no code of yours reaches the service.

        `example_inputs` and `dynamic_shapes` are those of `torch.onnx.export`; `name` is by default that of the
        module's class. Raises ExportFailed where torch or onnxscript are missing or the export fails, and as
        `upload_model`.
        """
        with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
            path = conversion.export_module(
                module,
                example_inputs,
                Path(folder),
                dynamic_shapes=dynamic_shapes,
                input_names=input_names,
                output_names=output_names,
                opset=opset,
            )
            return self.upload_model(path, name=name or type(module).__name__, wait=wait)

    def model(self, model_id: UUID | str) -> Model:
        """One model."""
        return self._get(Model, f"/v1/models/{model_id}")

    def dataset(self, dataset_id: UUID | str) -> Dataset:
        """One dataset."""
        return self._get(Dataset, f"/v1/datasets/{dataset_id}")

    def models(self, *, name: str | None = None, status: str | None = None) -> Iterator[Model]:
        """Models, newest first; pages are fetched as they are needed."""
        return self._list(Model, "/v1/models", name=name, status=status)

    def datasets(self, *, name: str | None = None, status: str | None = None) -> Iterator[Dataset]:
        """Datasets, newest first; pages are fetched as they are needed."""
        return self._list(Dataset, "/v1/datasets", name=name, status=status)

    def delete_model(self, model: ModelLike) -> None:
        """Delete a model; refused as `in_use` while a job needs it."""
        self._transport.send("DELETE", f"/v1/models/{id_of(model)}")

    def delete_dataset(self, dataset: DatasetLike) -> None:
        """Delete a dataset; refused as `in_use` while a job needs it."""
        self._transport.send("DELETE", f"/v1/datasets/{id_of(dataset)}")

    def wait_until_ready(self, upload: UploadedT, *, timeout_seconds: float = WAIT_SECONDS) -> UploadedT:
        """The upload after inspection. Raises UploadRejected, and WaitTimeout."""
        path = f"/v1/{'models' if isinstance(upload, Model) else 'datasets'}/{upload.id}"
        deadline = time.monotonic() + timeout_seconds
        pause = FIRST_POLL_SECONDS
        while upload.status == "inspecting":
            _sleep_before(deadline, pause, f"{path} is still being inspected")
            pause = min(2 * pause, POLL_SECONDS)
            upload = self._get(type(upload), path, retry_seconds=OUTAGE_SECONDS)
        if upload.status == "rejected" and upload.problem is not None:
            raise UploadRejected(upload.problem)
        return upload

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
        `{"max_candidates": 8}`, and `objective` by what it chooses, `"size"` or weights, as
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

    def job(self, job_id: UUID | str) -> Job:
        """One job."""
        return self._get(Job, f"/v1/jobs/{job_id}")

    def jobs(self, *, state: JobState | str | None = None, model: ModelLike | None = None) -> Iterator[Job]:
        """Jobs, newest first; pages are fetched as they are needed."""
        return self._list(Job, "/v1/jobs", state=state, model=None if model is None else id_of(model))

    def audit(self, *, action: str | None = None, object_id: UUID | str | None = None) -> Iterator[AuditEntry]:
        """Who did what in the workspace, the latest first; pages are fetched as they are needed. Takes `admin`."""
        return self._list(
            AuditEntry, "/v1/audit", action=action, object_id=None if object_id is None else str(object_id)
        )

    def wait(
        self,
        job: Job | UUID | str,
        *,
        on_update: Callable[[Job], None] | None = None,
        on_event: Callable[[JobEvent], None] | None = None,
        timeout_seconds: float = WAIT_SECONDS,
    ) -> Job:
        """The job when it is over, however it ended; `on_update` is called with it now and at every change, and
        `on_event` with each of its events, from the first one on.

        The service may be away for two minutes meanwhile. Raises WaitTimeout.
        """
        path = f"/v1/jobs/{id_of(job)}"
        deadline = time.monotonic() + timeout_seconds
        headers: dict[str, str] = {}
        after = 0
        while True:
            response = self._transport.send("GET", path, headers=headers, retry_seconds=OUTAGE_SECONDS)
            # After the job: one that is over has every event by then.
            if on_event is not None:
                for event in self.recorded_events(job, after=after):
                    after = event.id
                    on_event(event)
            if response.status_code != httpx.codes.NOT_MODIFIED:
                current = read(Job, response)
                headers = {"If-None-Match": etag} if (etag := response.headers.get("ETag")) else {}
                if on_update is not None:
                    on_update(current)
                if current.is_over:
                    return current
            retry_after = response.headers.get("Retry-After", "")
            pause = max(float(retry_after), FIRST_POLL_SECONDS) if retry_after.isdigit() else POLL_SECONDS
            _sleep_before(deadline, pause, f"job {id_of(job)} is not over")

    def recorded_events(self, job: Job | UUID | str, *, after: int = 0) -> list[JobEvent]:
        """What has happened to a job so far, later than the event with the id `after`, oldest first."""
        path, headers = f"/v1/jobs/{id_of(job)}/events", {"Accept": "application/json"}
        found: list[JobEvent] = []
        while True:
            params = {"after": found[-1].id if found else after, "limit": EVENTS_A_PAGE}
            answer = self._transport.send("GET", path, params=params, headers=headers, retry_seconds=OUTAGE_SECONDS)
            page = read(JobEvents, answer).items
            found += page
            if len(page) < EVENTS_A_PAGE:
                return found

    def events(self, job: Job | UUID | str, *, after: int = 0) -> Iterator[JobEvent]:
        """What happens to a job, as it happens, until it is over; a broken stream is taken up after the last event."""
        path = f"/v1/jobs/{id_of(job)}/events"
        while True:
            headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": str(after)}
            with self._transport.open("GET", path, headers=headers, retry_seconds=OUTAGE_SECONDS) as response:
                try:
                    for message in EventSource(response).iter_sse():
                        if message.data:
                            event = JobEvent.model_validate_json(message.data)
                            after = event.id
                            yield event
                except httpx.TransportError:
                    time.sleep(POLL_SECONDS)
                    continue
            # A service that shuts down ends its streams as well.
            if self.job(id_of(job)).is_over:
                return

    def trials(self, job: Job | UUID | str) -> list[Attempt]:
        """What a search has tried so far, in that order, also where it did not come to its end and has no report."""
        tried = (event.data["attempt"] for event in self.recorded_events(job) if "attempt" in event.data)
        return list({one["name"]: Attempt.model_validate(one) for one in tried if isinstance(one, dict)}.values())

    def cancel(self, job: Job | UUID | str) -> Job:
        """Cancel a queued job at once, ask a running one to stop; refused as `job_over` afterwards."""
        return read(Job, self._transport.send("POST", f"/v1/jobs/{id_of(job)}/cancel"))

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

    def download(
        self,
        source: Job | JobArtifact | UUID | str | None,
        path: str | os.PathLike[str],
        *,
        on_progress: Progress | None = None,
    ) -> Path:
        """Fetch a delivered file to `path`, or into it where it is a folder; the path it has in the end.

        `source` is a job, for the model that stands for it (of a search that runs the best so far), or an artifact or
        its id. An interrupted download is continued; the file appears once its sha256 is verified. Raises
        DownloadCorrupt, and NothingDelivered for a job without a model, or for None, which is what its `optimized` is.
        """
        delivered = source.delivered() if isinstance(source, Job) else source
        if delivered is None:
            raise NothingDelivered("There is nothing to download: the job delivered no model.")
        known = delivered if isinstance(delivered, JobArtifact) else self.artifact(delivered)
        destination = Path(path)
        if destination.is_dir():
            destination /= Path(known.file_name).name
        return transfer.download(
            self._transport,
            f"/v1/artifacts/{known.id}/content",
            destination,
            sha256=known.sha256,
            size_bytes=known.size_bytes,
            on_progress=on_progress,
        )

    def _upload(
        self,
        shape: type[UploadedT],
        kind: uploading.Kind,
        content: Path | bytes,
        *,
        name: str,
        media_type: str,
        on_progress: Progress | None,
    ) -> UploadedT:
        response = uploading.send(
            self._transport,
            kind,
            content,
            name=name,
            media_type=media_type,
            on_progress=on_progress,
            resumable_from_bytes=self._resumable_from_bytes,
        )
        return read(shape, response)

    def _get(self, shape: type[ItemT], path: str, *, retry_seconds: float | None = None) -> ItemT:
        return read(shape, self._transport.send("GET", path, retry_seconds=retry_seconds))

    def _list(self, shape: type[ItemT], path: str, **filters: str | None) -> Iterator[ItemT]:
        stated = {name: value for name, value in filters.items() if value is not None}
        params: dict[str, Any] = {"limit": PAGE_ITEMS, **stated}
        while True:
            response = self._transport.send("GET", path, params=params)
            page = read(Page[shape], response)  # type: ignore[valid-type] # known at run time
            yield from page.items
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor


def _sleep_before(deadline: float, pause: float, what: str) -> None:
    """Sleep, but never past the deadline. Raises WaitTimeout when it has come."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise WaitTimeout(f"Waited long enough: {what}.")
    time.sleep(min(pause, left))
