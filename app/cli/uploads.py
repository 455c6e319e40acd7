"""`lathe upload`, `dataset`, `models`, `datasets`, `delete`."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from app.cli.connection import connect
from app.cli.exits import ExitCode, fail
from app.cli.output import JsonOption, bytes_text, note, print_json
from app.cli.tables import Column, age_text, print_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.client import Dataset, Lathe, Model

MODEL_COLUMNS = (
    Column("name", flexible=True),
    Column("status"),
    Column("size", right=True),
    Column("parameters", right=True),
    Column("opset", right=True),
    Column("uploaded"),
)
DATASET_COLUMNS = (
    Column("name", flexible=True),
    Column("status"),
    Column("size", right=True),
    Column("samples", right=True),
    Column("arrays", flexible=True),
    Column("uploaded"),
)
FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The file.")]
NameOption = Annotated[str | None, typer.Option(help="A name for it; by default the file's.")]
LimitOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="How many, the newest first.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(upload)
    app.command()(dataset)
    app.command()(models)
    app.command()(datasets)
    app.command()(delete)


def upload(file: FileArgument, name: NameOption = None, as_json: JsonOption = False) -> None:
    """Upload a model: one .onnx, or a .tar of it and its external data. Prints its id."""
    with connect() as lathe:
        model = send_model(lathe, file, name)
    if as_json:
        print_json(model)
        return
    typer.echo(model.id)
    inputs = ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in model.inputs or [])
    note(f"{model.name}: opset {model.opset}, {model.parameter_count or 0:,} parameters, takes {inputs}")


def dataset(file: FileArgument, name: NameOption = None, as_json: JsonOption = False) -> None:
    """Upload a dataset: .npz or .safetensors, an array for each model input, and any labels. Prints its id."""
    with connect() as lathe:
        uploaded = send_dataset(lathe, file, name)
    if as_json:
        print_json(uploaded)
        return
    typer.echo(uploaded.id)
    arrays = ", ".join(f"{array.name} {array.dtype} {array.shape}" for array in uploaded.arrays or [])
    note(f"{uploaded.name}: {uploaded.sample_count} samples: {arrays}")


def models(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List models."""
    with connect() as lathe:
        found = list(islice(lathe.models(), limit))
    if as_json:
        print_json(found)
        return
    print_table(MODEL_COLUMNS, (_model_row(model) for model in found), [str(model.id) for model in found])


def datasets(limit: LimitOption = 20, as_json: JsonOption = False) -> None:
    """List datasets."""
    with connect() as lathe:
        found = list(islice(lathe.datasets(), limit))
    if as_json:
        print_json(found)
        return
    print_table(DATASET_COLUMNS, (_dataset_row(item) for item in found), [str(item.id) for item in found])


def delete(
    object_id: Annotated[UUID, typer.Argument(metavar="ID", help="Of a model, a dataset, or a file of a job.")],
    as_json: JsonOption = False,
) -> None:
    """Delete a model or a dataset, or a file that a job delivered (`lathe jobs --json` has the ids of those).

    Refused while a job uses it, and where the file was promoted. The key needs the scope `read` as well.
    """
    with connect() as lathe:
        ways: dict[str, tuple[Callable[[UUID], object], Callable[[UUID], None]]] = {
            "model": (lathe.model, lathe.delete_model),
            "dataset": (lathe.dataset, lathe.delete_dataset),
            "artifact": (lathe.artifact, lathe.delete_artifact),
        }
        # Asked first: a deletion that was sent twice says nothing of one that is not there.
        kind = next((kind for kind, (find, _) in ways.items() if _is_there(find, object_id)), None)
        if kind is None:
            fail(f"there is no model, no dataset and no artifact {object_id} (not_found)", ExitCode.REFUSED)
        ways[kind][1](object_id)
    if as_json:
        print_json({"id": str(object_id), "kind": kind, "deleted": True})
    else:
        note(f"{kind} {object_id} is deleted")


def send_model(lathe: "Lathe", file: Path, name: str | None = None) -> "Model":
    """Upload a file with a progress bar, and wait for its inspection."""
    from app.cli.progress import transferring

    with transferring(f"uploading {file.name}") as on_progress:
        return lathe.upload_model(file, name=name, on_progress=on_progress)


def send_dataset(lathe: "Lathe", file: Path, name: str | None = None) -> "Dataset":
    """As `send_model`."""
    from app.cli.progress import transferring

    with transferring(f"uploading {file.name}") as on_progress:
        return lathe.upload_dataset(file, name=name, on_progress=on_progress)


def check_id_or_file(text: str) -> None:
    """Raises typer.Exit where a text is neither."""
    from app.client.candidates import is_id

    if not is_id(text) and not Path(text).is_file():
        fail(f"`{text}` is neither an id nor a file here: `lathe models` and `lathe datasets` list ids", ExitCode.USAGE)


def id_or_upload(text: str, send: "Callable[[Path], Model | Dataset]") -> str:
    """An id as it is; a file's after its upload."""
    from app.client.candidates import is_id

    if is_id(text):
        return text
    path = Path(text)
    uploaded = send(path)
    note(f"{path.name}: {uploaded.id}")
    return str(uploaded.id)


def _is_there(find: "Callable[[UUID], object]", object_id: UUID) -> bool:
    from app.client import LatheApiError

    try:
        find(object_id)
    except LatheApiError as error:
        if error.code != "not_found":
            raise
        return False
    return True


def _model_row(model: "Model") -> tuple[str, ...]:
    return (
        model.name,
        model.problem.code if model.problem else model.status,
        bytes_text(model.size_bytes),
        "" if model.parameter_count is None else f"{model.parameter_count:,}",
        "" if model.opset is None else str(model.opset),
        age_text(model.created_at),
    )


def _dataset_row(item: "Dataset") -> tuple[str, ...]:
    return (
        item.name,
        item.problem.code if item.problem else item.status,
        bytes_text(item.size_bytes),
        "" if item.sample_count is None else str(item.sample_count),
        ", ".join(array.name for array in item.arrays or []),
        age_text(item.created_at),
    )
