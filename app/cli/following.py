"""A job followed to its end, and what it delivers put where the caller wants it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.exits import ExitCode, code_of_job
from app.cli.output import bytes_text, note, print_json, stdout

if TYPE_CHECKING:
    from app.client import Job, JobArtifact, Lathe

DownloadOption = Annotated[
    Path | None, typer.Option("--download", help="When the job is over, put the optimized model here; implies --watch.")
]


def follow(lathe: "Lathe", job_id: UUID, download_to: Path | None, *, as_json: bool) -> ExitCode:
    """Watch, report, download; the exit code that says how it went."""
    job = watch_to_end(lathe, job_id)
    if as_json:
        print_json(job)
    elif job.succeeded:
        from app.cli.report_table import print_report

        print_report(stdout(), lathe.report(job))
    if not job.succeeded:
        if job.is_search and not as_json:
            show_trials(lathe, job_id)
        note(failure_text(job))
        _point_to_best(job, downloaded=download_to is not None)
    if download_to is not None and job.optimized is not None:
        save(lathe, job.optimized, download_to, as_json=as_json, quiet=as_json)
    return code_of_job(job)


def watch_to_end(lathe: "Lathe", job_id: UUID) -> "Job":
    """The job when it is over, its progress on stderr until then; who interrupts is told that it goes on."""
    from app.cli.progress import watching

    try:
        with watching() as shown:
            return lathe.wait(job_id, on_update=shown.on_update, on_event=shown.on_event)
    except KeyboardInterrupt:
        note(f"The job goes on: `lathe watch {job_id}` follows it, `lathe cancel {job_id}` ends it.")
        raise


def show_trials(lathe: "Lathe", job_id: UUID) -> None:
    """What a search without a report tried, where there is anything."""
    from app.cli.trials_table import print_trials

    if trials := lathe.trials(job_id):
        print_trials(trials)


def _point_to_best(job: "Job", *, downloaded: bool) -> None:
    best = job.optimized
    if best is not None and best.trial is not None:
        how = "" if downloaded else f"; `lathe download {job.id}` fetches it"
        note(f"The best that was found until then is kept: {best.trial.name}, as {best.file_name}{how}.")


def failure_text(job: "Job") -> str:
    """Why a job that is over did not succeed, with the remedy and the code."""
    if job.error is None:
        return f"lathe: job {job.id} is {job.state}"
    remedy = f" {job.error.remedy}" if job.error.remedy else ""
    return f"lathe: job {job.id} {job.state}: {job.error.title}: {job.error.detail}{remedy} ({job.error.code})"


def save(lathe: "Lathe", artifact: "JobArtifact", path: Path, *, as_json: bool, quiet: bool = False) -> None:
    """Download a file with a progress bar, and say where it is."""
    from app.cli.progress import transferring

    with transferring(f"downloading {artifact.file_name}") as on_progress:
        saved = lathe.download(artifact, path, on_progress=on_progress)
    if as_json and not quiet:
        print_json({"path": str(saved), "size_bytes": artifact.size_bytes, "sha256": artifact.sha256})
        return
    note(f"{saved}: {bytes_text(artifact.size_bytes)}, sha256 {artifact.sha256}")
