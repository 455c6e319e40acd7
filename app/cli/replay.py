"""`lathe replay`: a manifest's job run again, with its choices, and its bytes compared."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connection import connect
from app.cli.exits import ExitCode, code_of_job, fail
from app.cli.following import failure_text, watch_to_end
from app.cli.output import JsonOption, note, print_json, printable
from app.cli.uploads import send_dataset, send_model

if TYPE_CHECKING:
    from app.client import Job, Lathe
    from app.jobs.report import Report

VERSION = 1
ManifestArgument = Annotated[Path, typer.Argument(help="The `manifest.json` of a job, as downloaded.")]
ModelOption = Annotated[Path | None, typer.Option(help="The original, where this service does not have it.")]
OthersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--other",
        metavar="ID=FILE",
        help="A teacher or student that the recipe names, by its id in the manifest, where this service does not have "
        "it; once for each.",
    ),
]
DatasetOption = Annotated[Path | None, typer.Option(help="That dataset, where this service does not have it.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(replay)


def replay(
    manifest: ManifestArgument,
    model: ModelOption = None,
    others: OthersOption = None,
    calibration: DatasetOption = None,
    training: DatasetOption = None,
    evaluation: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a job again as its manifest says, and say whether the same bytes come out."""
    document = _read(manifest)
    given = {"calibration": calibration, "training": training, "evaluation": evaluation}
    request = document["request"]
    recipe = replayed_recipe(document)
    if not recipe:
        fail(f"{manifest} is of a search that delivered the original: there is nothing to run again", ExitCode.USAGE)
    files = given_models(others or [], document)
    with connect() as lathe:
        data = {
            role: _dataset(lathe, path, document["datasets"].get(role), request["data"].get(role))
            for role, path in given.items()
            if path is not None or request["data"].get(role) is not None
        }
        original = _model(lathe, model, document)
        sent = {model_id: str(send_model(lathe, path).id) for model_id, path in files.items()}
        recipe = renamed(recipe, {request["model_id"]: original} | sent)
        search = replayed_search(document, recipe)
        job = lathe.optimize(
            original,
            recipe if search is None else "auto",
            search=search,
            deployment_check=None if search is None else False,
            data=data,
            metric=document["metric"],
            contract=request.get("contract"),
            objective=request.get("objective"),
            target=request.get("target"),
            budget_seconds=request.get("budget_seconds"),
            seed=request.get("seed"),
        )
        _finish(lathe, job, document, as_json=as_json)


def replayed_recipe(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The passes that ran, each with its arguments and, where it chose anything by measuring, with its choices."""
    asked_for = document["request"]["recipe"]
    asked_for = document.get("recipe", []) if asked_for == "auto" else asked_for
    ran = zip(asked_for, document["passes"], strict=False)
    return [step.get("replay", asked) for asked, step in ran]


def renamed(recipe: list[dict[str, Any]], models: dict[str, str]) -> list[dict[str, Any]]:
    """The recipe with other ids of `models`, by those that it names."""
    return [
        {name: models.get(value, value) if isinstance(value, str) else value for name, value in step.items()}
        for step in recipe
    ]


def replayed_search(document: dict[str, Any], recipe: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Of what a search found: to be run as its one candidate, anew, on samples divided as they were then."""
    request = document["request"]
    if request["recipe"] != "auto":
        return None
    # Where samples were set aside to learn from they are again, though this one candidate may learn nothing.
    trained = bool((request.get("search") or {}).get("training"))
    # Steps that an earlier search left would be the same bytes though no pass ran.
    return {"given": [recipe], "training": trained or None, "reuse": False}


def given_models(pairs: list[str], document: dict[str, Any]) -> dict[str, Path]:
    """Files by the ids that a manifest has for them, from texts `ID=FILE`.

    Raises:
        typer.Exit: a text is of another form, or the manifest knows no such model, or by another hash.

    """
    known = document.get("other_models", {})
    found = {}
    for pair in pairs:
        model_id, separator, path = pair.partition("=")
        if not separator:
            fail(f"`--other` takes ID=FILE, and `{pair}` has no `=`", ExitCode.USAGE)
        if model_id not in known:
            names = ", ".join(known) or "none beside the original"
            fail(f"`--other` names the model {model_id}; those of the manifest are: {names}", ExitCode.USAGE)
        found[model_id] = Path(path)
        _check_hash(found[model_id], known[model_id]["sha256"])
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What two manifests say of their machines, libraries and Lathe itself that is not the same, in words."""
    found = [
        f"{name}: {before['versions'].get(name)} then, {after['versions'].get(name)} now"
        for name in sorted({*before["versions"], *after["versions"]})
        if before["versions"].get(name) != after["versions"].get(name)
    ]
    sources = before.get("source_sha256"), after.get("source_sha256")
    if sources[0] != sources[1]:
        found.append(f"source of Lathe: sha256 {sources[0]} then, {sources[1]} now")
    for name in ("name", "instruction_sets"):
        if before["processor"].get(name) != after["processor"].get(name):
            found.append(f"processor {name}: {before['processor'].get(name)} then, {after['processor'].get(name)} now")
    return found


def _finish(lathe: "Lathe", job: "Job", document: dict[str, Any], *, as_json: bool) -> None:
    job = watch_to_end(lathe, job.id)
    if not job.succeeded:
        if as_json:
            print_json(job)
        note(failure_text(job))
        raise typer.Exit(code_of_job(job))
    report = lathe.report(job)
    then_sha256, now_sha256 = document["artifact"]["sha256"], _made(report)
    found = differences(document, report.manifest)
    if as_json:
        print_json(
            {
                "job_id": str(job.id),
                "match": then_sha256 == now_sha256,
                "sha256": {"manifest": then_sha256, "replay": now_sha256},
                "differences": found,
            }
        )
    elif then_sha256 == now_sha256:
        typer.echo(f"The same bytes: sha256 {now_sha256}")
    else:
        typer.echo(f"Other bytes: sha256 {then_sha256} in the manifest, {now_sha256} now")
        for line in found or ["Machine, libraries and Lathe's source are the same."]:
            typer.echo(f"  {printable(line)}")
    raise typer.Exit(ExitCode.DONE if then_sha256 == now_sha256 else ExitCode.UNMET)


def _made(report: "Report") -> str:
    """The hash of what the passes made: of a search also where the original was delivered in its place."""
    made = [one.sha256 for one in report.candidates if one.recipe]
    return made[0] if made else str(report.manifest["artifact"]["sha256"])


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be read as a manifest: {error}", ExitCode.USAGE)
    wanted = {"version", "request", "passes", "artifact", "datasets", "model", "metric", "versions", "processor"}
    if not isinstance(document, dict) or not wanted <= document.keys() or document["version"] != VERSION:
        fail(f"{path} is no manifest of version {VERSION}: download a job's manifest.json", ExitCode.USAGE)
    return dict(document)


def _model(lathe: "Lathe", path: Path | None, document: dict[str, Any]) -> str:
    if path is None:
        return str(document["request"]["model_id"])
    _check_hash(path, document["model"]["sha256"])
    return str(send_model(lathe, path).id)


def _dataset(lathe: "Lathe", path: Path | None, described: dict[str, Any] | None, known: str | None) -> str:
    if path is None:
        return str(known)
    if described is not None:
        _check_hash(path, described["sha256"])
    return str(send_dataset(lathe, path).id)


def _check_hash(path: Path, sha256: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        fail(f"{path} is not the file of the manifest: its sha256 is {found}, not {sha256}", ExitCode.USAGE)
