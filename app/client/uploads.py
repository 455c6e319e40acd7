"""Models and datasets: into the service, looked at, and out of it."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from app.client import conversion, transfer, uploading
from app.client.calls import FIRST_POLL_SECONDS, POLL_SECONDS, WAIT_SECONDS, Calls, sleep_before
from app.client.errors import LatheApiError, UploadRejected
from app.client.shapes import Dataset, Model
from app.client.submission import DatasetLike, ModelLike, id_of
from app.client.transfer import Progress
from app.client.transport import Transport, read

if TYPE_CHECKING:
    import numpy.typing as npt

UploadedT = TypeVar("UploadedT", Model, Dataset)


class UploadCalls(Calls):
    """What `Lathe` can do with uploads. One of `resumable_from_bytes` or more goes on where the connection broke."""

    def __init__(self, transport: Transport, resumable_from_bytes: int) -> None:
        super().__init__(transport)
        self._resumable_from_bytes = resumable_from_bytes

    def upload_model(
        self,
        source: str | os.PathLike[str] | bytes,
        *,
        name: str | None = None,
        wait: bool = True,
        on_progress: Progress | None = None,
    ) -> Model:
        """Upload an `.onnx` file, or a `.tar` of one with its external data; the same bytes give the same model.

        With `wait`, returns when inspection is over. Raises UploadRejected where it found the model unusable, OSError
        where the source is a pipe or a device.
        """
        content = source if isinstance(source, bytes) else transfer.source_file(source)
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

        With `wait`, returns when inspection is over. Raises UploadRejected where it found the dataset unusable, OSError
        where the source is a pipe or a device.
        """
        with tempfile.TemporaryDirectory(prefix="lathe-") as folder:
            if isinstance(source, Mapping):
                content: Path | bytes = Path(folder) / "dataset.npz"
                conversion.write_npz(Path(folder) / "dataset.npz", source)
            else:
                content = source if isinstance(source, bytes) else transfer.source_file(source)
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
        self._delete(f"/v1/models/{id_of(model)}")

    def delete_dataset(self, dataset: DatasetLike) -> None:
        """Delete a dataset; refused as `in_use` while a job needs it."""
        self._delete(f"/v1/datasets/{id_of(dataset)}")

    def _delete(self, path: str) -> None:
        try:
            self._transport.send("DELETE", path)
        except LatheApiError as error:
            if error.code != "not_found" or error.attempt == 1:
                raise

    def wait_until_ready(self, upload: UploadedT, *, timeout_seconds: float = WAIT_SECONDS) -> UploadedT:
        """The upload after inspection; the service may be away for two minutes. Raises UploadRejected, WaitTimeout."""
        path = f"/v1/{'models' if isinstance(upload, Model) else 'datasets'}/{upload.id}"
        what = f"{path} is not known to be inspected"
        deadline = time.monotonic() + timeout_seconds
        pause = FIRST_POLL_SECONDS
        while upload.status == "inspecting":
            sleep_before(deadline, pause, what)
            pause = min(2 * pause, POLL_SECONDS)
            upload = read(type(upload), self._look(path, what, deadline))
        if upload.status == "rejected" and upload.problem is not None:
            raise UploadRejected(upload.problem)
        return upload

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
            name=name.encode(errors="replace").decode(),  # a file's may hold what is not UTF-8
            media_type=media_type,
            on_progress=on_progress,
            resumable_from_bytes=self._resumable_from_bytes,
        )
        return read(shape, response)
