"""Reads what a runner left behind, as something untrusted, and publishes it in one transaction."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import delete
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.artifacts.tables import ArtifactRow, provisional
from app.blobs.service import keep, replace, stored_copy
from app.blobs.tables import storage_key
from app.jobs import lease, subjects
from app.jobs.lease import Claim
from app.jobs.report import Interval, Latency, Measurement, Quality, Report, StepFile
from app.jobs.states import JobKind, JobState
from app.jobs.tables import MeasurementRow, ReportRow
from app.storage import Storage
from worker.runner.contract import MAX_RESULT_BYTES, OUTPUT_FOLDER, RESULT_FILE, OutputFile, RunnerResult, without_nul

# A metric, its value, and both ends of its interval where it has one.
Figure = tuple[str, float | None, float | None, float | None]
# What a job of each kind is for.
PRODUCTS: dict[JobKind, Callable[[RunnerResult], BaseModel | None]] = {
    JobKind.INSPECT_MODEL: lambda result: result.model,
    JobKind.INSPECT_DATASET: lambda result: result.dataset,
    JobKind.OPTIMIZE: lambda result: result.report,
}


class RunnerBroken(Exception):
    """The runner left something that it must not leave."""


@dataclass(frozen=True)
class StoredOutput:
    """An output whose bytes are in storage, and not yet in a row."""

    output: OutputFile
    blob_id: UUID
    sha256: bytes
    size_bytes: int


def read_result(folder: Path, kind: JobKind) -> RunnerResult | None:
    """What the runner said at its end; None where it said nothing. Raises RunnerBroken where that is of no use."""
    try:
        descriptor = _open_regular(folder / RESULT_FILE)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MAX_RESULT_BYTES + 1)
    if len(text) > MAX_RESULT_BYTES:
        raise RunnerBroken("the result is too long")
    try:
        result = RunnerResult.model_validate_json(without_nul(text))
    except ValueError as error:
        raise RunnerBroken("the result does not fit its schema") from error
    if result.outcome == "succeeded" and PRODUCTS[kind](result) is None:
        raise RunnerBroken("the result lacks what the job was for")
    return result


def store_outputs(storage: Storage, claim: Claim, result: RunnerResult, folder: Path) -> list[StoredOutput]:
    """Hash the outputs and put them into storage, under keys that no row knows yet."""
    if (folder / OUTPUT_FOLDER).is_symlink():
        raise RunnerBroken("the output folder is a link")
    stored = []
    for output in result.artifacts:
        path = folder / output.path
        with os.fdopen(_open_regular(path), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            size = os.fstat(file.fileno()).st_size
        blob_id = uuid7()
        storage.store(path, storage_key(claim.workspace_id, blob_id))
        stored.append(StoredOutput(output, blob_id, digest, size))
    return stored


def find_copies(session: Session, claim: Claim, stored: list[StoredOutput]) -> dict[UUID, int]:
    """The blobs that held these outputs' bytes before, and how many bytes each should have."""
    found = ((session.scalar(stored_copy(claim.workspace_id, each.sha256)), each.size_bytes) for each in stored)
    return {blob_id: size_bytes for blob_id, size_bytes in found if blob_id is not None}


def without_bytes(storage: Storage, claim: Claim, copies: Mapping[UUID, int]) -> set[UUID]:
    """Those of them whose bytes are not in storage."""
    keys = {blob_id: storage_key(claim.workspace_id, blob_id) for blob_id in copies}
    return {blob_id for blob_id, size in copies.items() if not storage.holds_sync(keys[blob_id], size)}


def publish(
    session: Session,
    claim: Claim,
    result: RunnerResult,
    stored: list[StoredOutput],
    runner_seconds: float,
    lost: Collection[UUID] = (),
) -> list[UUID] | None:
    """Every row of a job that succeeded. None where the lease is not ours: the caller must roll back.

    Returns the blobs whose bytes were stored before: the new copies are garbage, except of those that are `lost`.
    """
    if not lease.still_held(session, claim):
        return None
    duplicates = []
    for item in stored:
        blob_id = keep_output(session, claim, item, lost)
        if blob_id != item.blob_id:
            duplicates.append(item.blob_id)
        session.add(artifact_row(claim, item, blob_id))
    if result.report is not None:
        session.add(ReportRow(job_id=claim.job_id, body=as_json(result.report)))
        session.add_all(_measurements(claim.job_id, result.report))
    product = PRODUCTS[claim.kind](result)
    if claim.kind is not JobKind.OPTIMIZE and product is not None:
        subjects.accept(session, claim.job_id, claim.kind, as_json(product))
    session.flush()
    finished = lease.finish(
        session,
        claim,
        JobState.SUCCEEDED,
        verdict=as_json(result.verdict) if result.verdict else None,
        summary=as_json(result.summary) if result.summary else None,
        runner_seconds=runner_seconds,
        peak_memory_bytes=result.peak_memory_bytes,
    )
    # Behind the end: nothing can take this place once the job is over.
    session.execute(delete(ArtifactRow).where(provisional(claim.job_id)))
    return duplicates if finished else None


def keep_output(session: Session, claim: Claim, item: StoredOutput, lost: Collection[UUID]) -> UUID:
    """The blob that holds these bytes from now on: that of before, unless it is `lost`, or else the new one."""
    blob_id = session.execute(keep(claim.workspace_id, item.blob_id, item.sha256, item.size_bytes)).scalar_one()
    if blob_id not in lost:
        return blob_id
    session.execute(replace(blob_id, item.blob_id))
    return item.blob_id


def artifact_row(claim: Claim, item: StoredOutput, blob_id: UUID) -> ArtifactRow:
    return ArtifactRow(
        workspace_id=claim.workspace_id,
        job_id=claim.job_id,
        blob_id=blob_id,
        kind=item.output.kind,
        file_name=item.output.file_name,
        media_type=item.output.media_type,
        sha256=item.sha256,
        size_bytes=item.size_bytes,
    )


def _measurements(job_id: UUID, report: Report) -> list[MeasurementRow]:
    subjects = [("baseline", _figures(report.baseline))]
    subjects += [(each.name, [*_figures(each.measurement), _ratio(each.latency_ratio)]) for each in report.candidates]
    subjects += [
        (f"step {number} {step.pass_}", _step_figures(step.file))
        for number, step in enumerate(report.steps, 1)
        if step.file is not None
    ]
    return [
        MeasurementRow(job_id=job_id, subject=subject, metric=name, value=value, low=low, high=high)
        for subject, figures in subjects
        for name, value, low, high in figures
    ]


def _figures(measurement: Measurement) -> list[Figure]:
    plain: dict[str, float] = {
        "size_bytes": measurement.size_bytes,
        "compressed_size_bytes": measurement.compressed_size_bytes,
        "load_ms": measurement.load_ms,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        **_percentiles(measurement.latency),
        "throughput_per_second": measurement.throughput_per_second,
        "int8_share": measurement.kernels.int8_share,
    }
    return [*((name, value, None, None) for name, value in plain.items()), *_qualities(measurement.quality)]


def _step_figures(file: StepFile) -> list[Figure]:
    """What was measured of it: what was not has no row."""
    plain: dict[str, float] = {"size_bytes": file.size_bytes, **(_percentiles(file.latency) if file.latency else {})}
    ratio = [_ratio(file.latency_ratio)] if file.latency_ratio else []
    return [*((name, value, None, None) for name, value in plain.items()), *_qualities(file.quality), *ratio]


def _percentiles(latency: Latency) -> dict[str, float]:
    return {"latency_p50_ms": latency.p50_ms, "latency_p90_ms": latency.p90_ms, "latency_p99_ms": latency.p99_ms}


def _qualities(measured: list[Quality]) -> list[Figure]:
    named = {".".join(part for part in (each.name, each.output, each.labels) if part): each for each in measured}
    return [(name, each.value, each.low, each.high) for name, each in named.items()]


def _ratio(ratio: Interval) -> Figure:
    return "latency_ratio", ratio.value, ratio.low, ratio.high


def _open_regular(path: Path) -> int:
    """A descriptor of a plain file. Raises RunnerBroken for a link, a pipe, a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunnerBroken(f"{path.name} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunnerBroken(f"{path.name} is no plain file")
    return descriptor


def as_json(model: BaseModel) -> dict[str, Any]:
    """As Postgres keeps it: what is not finite becomes null."""
    value: dict[str, Any] = json.loads(model.model_dump_json(by_alias=True))
    return value
