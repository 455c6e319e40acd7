"""`lathe jobs`, `watch`, `cancel`, `report`, `promote`, `download`, `passes`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.connection import connect
from app.cli.following import DownloadOption, follow, save, show_trials
from app.cli.output import JsonOption, note, print_json, stdout
from app.cli.tables import Column, age_text, print_table
from app.cli.uploads import LimitOption

if TYPE_CHECKING:
    from app.client import Job, JobArtifact, Lathe, Pass

JOB_COLUMNS = (
    Column("state"),
    Column("passes", flexible=True),
    Column("verdict"),
    Column("faster", right=True),
    Column("smaller", right=True),
    Column("submitted"),
)
PASS_COLUMNS = (
    Column("pass"),
    Column("what it does", flexible=True),
    Column("needs", flexible=True),
    Column("available", flexible=True),
)
WITHOUT_REPORT = frozenset({"no_report", "report_not_ready"})
LayersOption = Annotated[
    bool,
    typer.Option(
        "--layers", help="Node by node, of passes that decide so: what ran for it, how long, and what it lost."
    ),
]
JobArgument = Annotated[UUID, typer.Argument(metavar="JOB", help="A job's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(name="jobs")(list_jobs)
    app.command()(watch)
    app.command()(cancel)
    app.command()(report)
    app.command()(promote)
    app.command()(download)
    app.command()(passes)


def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[UUID | None, typer.Option(help="Only jobs on this model.")] = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs."""
    with connect() as lathe:
        found = list(islice(lathe.jobs(state=state, model=model), limit))
    if as_json:
        print_json(found)
        return
    print_table(JOB_COLUMNS, (_job_row(job) for job in found), [str(job.id) for job in found])


def watch(job_id: JobArgument, download_to: DownloadOption = None, as_json: JsonOption = False) -> None:
    """Follow a job to its end, then print its report. Interrupting this leaves the job alone."""
    with connect() as lathe:
        raise typer.Exit(follow(lathe, job_id, download_to, as_json=as_json))


def cancel(job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Cancel a job: a queued one at once, a running one within seconds."""
    with connect() as lathe:
        job = lathe.cancel(job_id)
    if as_json:
        print_json(job)
    else:
        note(f"job {job.id}: {job.state}" if job.is_over else f"job {job.id} was asked to stop")


def report(job_id: JobArgument, layers: LayersOption = False, as_json: JsonOption = False) -> None:
    """Print what a job measured: the original beside the optimized file; of a search without a report what it tried."""
    from app.client import LatheApiError

    with connect() as lathe:
        try:
            measured = lathe.report(job_id)
        except LatheApiError as error:
            if error.code in WITHOUT_REPORT and not as_json:
                show_trials(lathe, job_id)
            raise
    if as_json:
        print_json(measured)
        return
    if layers:
        from app.cli.layers_table import print_layers

        print_layers(measured)
        return
    from app.cli.report_table import print_report

    print_report(stdout(), measured)


def promote(
    job_id: JobArgument,
    candidate: Annotated[
        str, typer.Argument(metavar="CANDIDATE", help="As the report names it; or an artifact, by file name or id.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Let another model of a finished job stand for it: `lathe download JOB` fetches that one then."""
    with connect() as lathe:
        job = lathe.promote(job_id, candidate)
    if as_json:
        print_json(job)
    else:
        note(f"job {job.id}: {job.delivered().file_name} stands for it now")


def download(
    source: Annotated[UUID, typer.Argument(metavar="ID", help="Of a job, or of an artifact.")],
    path: Annotated[Path, typer.Argument(help="Where to: a file, or a folder.")] = Path(),
    kind: Annotated[str, typer.Option(help="Of a job: `model`, `manifest`, `ort` or `plot`.")] = "model",
    as_json: JsonOption = False,
) -> None:
    """Download what a job delivered, or promoted; its hash is verified, and an interrupted download continued."""
    with connect() as lathe:
        save(lathe, _artifact_of(lathe, source, kind, path.suffix), path, as_json=as_json)


def passes(as_json: JsonOption = False) -> None:
    """List what a recipe may be made of, and what each pass needs."""
    with connect() as lathe:
        found = lathe.passes()
    if as_json:
        print_json(found)
        return
    print_table(PASS_COLUMNS, (_pass_row(item) for item in found))


def _artifact_of(lathe: "Lathe", source: UUID, kind: str, suffix: str) -> "JobArtifact":
    """A job's file of that kind, of its pictures the one with that suffix; or the artifact of that id.

    Raises NothingDelivered where the job has none.
    """
    from app.client import LatheApiError

    try:
        job = lathe.job(source)
    except LatheApiError as error:
        if error.code != "not_found":
            raise
        return lathe.artifact(source)
    pictures = [one for one in job.artifacts if one.kind == kind == "plot" and one.file_name.endswith(suffix)]
    return pictures[0] if pictures else job.delivered(kind)


def _pass_row(item: "Pass") -> tuple[str, ...]:
    needs = [name.replace("_", " ") for name, needed in item.needs.model_dump().items() if needed is True]
    needs += ["to come last"] if item.comes_last else []
    needs += [
        f"with `{argument}`: {' and '.join(more).replace('_', ' ')}"
        for argument, more in item.needs.with_arguments.items()
    ]
    return item.name, item.summary, ", ".join(needs) or "nothing", item.unavailable_reason or "yes"


def _job_row(job: "Job") -> tuple[str, ...]:
    recipe = (job.request or {}).get("recipe", [])
    passes = recipe if isinstance(recipe, str) else " + ".join(str(item.get("pass")) for item in recipe)
    ratio = job.summary.ratio if job.summary else {}
    return (
        str(job.state) if job.state != "running" else f"{job.phase or 'running'} {job.progress:.0%}",
        passes,
        job.verdict.outcome.replace("_", " ") if job.verdict else (job.error.code if job.error else ""),
        f"{ratio['latency']:.2f} x" if "latency" in ratio else "",
        f"{ratio['size']:.2f} x" if "size" in ratio else "",
        age_text(job.created_at),
    )
