"""`lathe optimize`: a job submitted, its files uploaded first."""

import json
import math
import re
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.connection import connect
from app.cli.exits import ExitCode, fail
from app.cli.following import DownloadOption, follow
from app.cli.output import JsonOption, note, print_json
from app.cli.search_options import (
    AllowOption,
    AutoOption,
    ConfidenceOption,
    FloorOption,
    MaxDropOption,
    MaxTrialsOption,
    ObjectiveOption,
    ReuseOption,
    TrainOption,
    contract_of,
    objective_of,
    search_of,
)
from app.cli.uploads import check_id_or_file, id_or_upload, send_dataset, send_model

if TYPE_CHECKING:
    from app.client import Job


class Device(StrEnum):
    """Where the optimized model will run."""

    CPU = "cpu"
    CUDA = "cuda"


class Priority(StrEnum):
    """Order in the queue."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


# The size of an axis, in no more figures than the service takes.
AXIS = re.compile(r"[1-9][0-9]{0,9}")
ModelArgument = Annotated[str, typer.Argument(help="A model's id, or a file to upload.")]
PassesOption = Annotated[
    list[str] | None, typer.Option("--pass", help="A pass with its defaults; repeat it for a chain.")
]
RecipeOption = Annotated[Path | None, typer.Option(help="A JSON file with a list of passes, each with its parameters.")]
CalibrationOption = Annotated[str | None, typer.Option(help="Dataset (id or file) that sets ranges.")]
TrainingOption = Annotated[str | None, typer.Option(help="Dataset (id or file) to train on.")]
EvaluationOption = Annotated[str | None, typer.Option(help="Dataset (id or file) to judge by.")]
MetricOption = Annotated[str | None, typer.Option(help="top1, top5, f1, accuracy, mse, mae, agreement, ...")]
OutputOption = Annotated[str | None, typer.Option(help="Model output that the metric reads.")]
LabelsOption = Annotated[str | None, typer.Option(help="Label array of the evaluation dataset.")]
TargetOption = Annotated[Device, typer.Option(help="Where the model will run.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads that the model will have.")]
InstructionSetOption = Annotated[
    str | None, typer.Option(help="The least that the processors have there: avx2, avx512 or vnni.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Batch that latency is measured at.")]
ShapeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="INPUT=SIZES",
        help="Shape of an input that latency is measured at, as input_ids=1x128; repeat it. By default the first "
        "sample's.",
    ),
]
DeploymentCheckOption = Annotated[
    bool | None,
    typer.Option(help="Check at the end whether the delivered file can be put to work. With --auto that is done."),
]
BudgetOption = Annotated[int | None, typer.Option(min=1, help="Seconds that the job may take.")]
PriorityOption = Annotated[Priority | None, typer.Option(help="Order in the queue.")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
IdempotencyKeyOption = Annotated[str | None, typer.Option(help="The same key and request answer the same job.")]
WatchOption = Annotated[bool, typer.Option("--watch", help="Follow the job and print its report.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(optimize)


def optimize(
    model: ModelArgument,
    passes: PassesOption = None,
    recipe: RecipeOption = None,
    auto: AutoOption = False,
    calibration: CalibrationOption = None,
    training: TrainingOption = None,
    evaluation: EvaluationOption = None,
    metric: MetricOption = None,
    output: OutputOption = None,
    labels: LabelsOption = None,
    max_drop: MaxDropOption = None,
    floor: FloorOption = None,
    confidence: ConfidenceOption = None,
    train: TrainOption = None,
    allow: AllowOption = None,
    max_trials: MaxTrialsOption = None,
    reuse: ReuseOption = None,
    target: TargetOption = Device.CPU,
    threads: ThreadsOption = None,
    batch: BatchOption = None,
    shape: ShapeOption = None,
    instruction_set: InstructionSetOption = None,
    objective: ObjectiveOption = None,
    deployment_check: DeploymentCheckOption = None,
    budget: BudgetOption = None,
    priority: PriorityOption = None,
    seed: SeedOption = None,
    idempotency_key: IdempotencyKeyOption = None,
    watch_it: WatchOption = False,
    download_to: DownloadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a job. Models and datasets are ids, or files, which are uploaded first."""
    chain = _recipe(passes, recipe, auto=auto)
    search = search_of(auto=auto, train=train, allow=allow, max_trials=max_trials, reuse=reuse)
    contract, wanted = contract_of(max_drop, floor, confidence), objective_of(objective)
    sizes = {"threads": threads, "batch": batch, "shapes": shapes_of(shape), "instruction_set": instruction_set}
    if metric is None and (output or labels):
        fail("--output and --labels say where a metric is measured: name it with --metric", ExitCode.USAGE)
    roles = _stated(calibration=calibration, training=training, evaluation=evaluation)
    for text in (model, *roles.values()):
        check_id_or_file(text)
    with connect() as lathe:
        job = lathe.optimize(
            id_or_upload(model, partial(send_model, lathe)),
            chain,
            data={role: id_or_upload(text, partial(send_dataset, lathe)) for role, text in roles.items()},
            metric=_stated(name=metric, output=output, labels=labels) if metric else None,
            contract=contract,
            target=_stated(device=target.value, **sizes),
            objective=wanted,
            search=search,
            deployment_check=deployment_check,
            budget_seconds=budget,
            priority=priority,
            seed=seed,
            idempotency_key=idempotency_key,
        )
        if watch_it or download_to is not None:
            raise typer.Exit(follow(lathe, job.id, download_to, as_json=as_json))
    _say_submitted(job, as_json=as_json)


def _recipe(passes: list[str] | None, file: Path | None, *, auto: bool) -> str | list[str | dict[str, Any]]:
    """Raises typer.Exit unless exactly one of the three is given and can be read."""
    if sum((bool(passes), file is not None, auto)) != 1:
        fail("give the recipe as --pass NAME, as often as needed, or as --recipe FILE, or --auto", ExitCode.USAGE)
    if auto:
        return "auto"
    if file is None:
        return list(passes or ())
    try:
        document = json.loads(file.read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite)
    except ValueError as error:
        fail(f"{file} is not JSON: {error}", ExitCode.USAGE)
    chain = document if isinstance(document, list) else []
    if not chain or not all(isinstance(item, str | dict) for item in chain):
        words = 'must hold a list of passes, each a name or an object, as [{"pass": "quantize_static"}]'
        fail(f"{file} {words}", ExitCode.USAGE)
    return chain


def shapes_of(texts: list[str] | None) -> dict[str, list[int]] | None:
    """By input, of `input_ids=1x128`; None where there is none. Raises typer.Exit where it is no shape."""
    shapes: dict[str, list[int]] = {}
    for text in texts or ():
        name, _, sizes = text.rpartition("=")
        axes = sizes.split("x")
        if not name or name in shapes or not all(map(AXIS.fullmatch, axes)):
            fail(f"--shape is an input and its sizes, once for each, as input_ids=1x128; not `{text}`", ExitCode.USAGE)
        shapes[name] = [int(axis) for axis in axes]
    return shapes or None


def _finite(text: str) -> float:
    """Raises ValueError for what Python reads as a number, and no request can say."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number that JSON has")
    return number


def _stated(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _say_submitted(job: "Job", *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    typer.echo(job.id)
    note(f"follow it with `lathe watch {job.id}`")
