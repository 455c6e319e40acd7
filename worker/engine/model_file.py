"""A model as a path: the `.onnx` file with its external data beside it, in a folder of its own."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx

# Protocol buffers stop at 2 GiB; past this much a model's tensors go into a file beside it.
MAX_SINGLE_FILE_BYTES = 1_900_000_000
HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """`path` is the `.onnx`; every other file of its folder is external data of it."""

    path: Path

    def files(self) -> list[Path]:
        """The `.onnx` first, then its external data by name."""
        others = sorted(file for file in self.path.parent.iterdir() if file.is_file() and file != self.path)
        return [self.path, *others]

    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files())

    def load(self) -> onnx.ModelProto:
        """The whole model, external data included, in memory."""
        return onnx.load(str(self.path))

    def structure(self) -> onnx.ModelProto:
        """The graph without external data: small even where the model is large."""
        return onnx.load(str(self.path), load_external_data=False)

    def sha256(self) -> str:
        """Hash over all files, the `.onnx` first; of a model in one file, that file's own hash."""
        digest = hashlib.sha256()
        for file in self.files():
            with file.open("rb") as stream:
                while chunk := stream.read(HASH_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()


def save_model(model: onnx.ModelProto, folder: Path, name: str = "model") -> ModelFile:
    """Write `folder/name.onnx`, one file where protocol buffers allow it. `folder` must hold nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    if tensor_bytes(model.graph) <= MAX_SINGLE_FILE_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return ModelFile(path)
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{name}.onnx.data",
        size_threshold=1024,
        convert_attribute=False,
    )
    return ModelFile(path)


def tensor_bytes(graph: onnx.GraphProto) -> int:
    """Bytes of the tensors a graph holds, those of its subgraphs and attributes included."""
    total: int = sum(tensor.ByteSize() for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            total += attribute.t.ByteSize() + sum(tensor.ByteSize() for tensor in attribute.tensors)
            total += sum(tensor_bytes(subgraph) for subgraph in [attribute.g, *attribute.graphs])
    return total
