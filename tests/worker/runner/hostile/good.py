"""Small files of every kind that is accepted, for mutations to begin from."""

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from app.jobs.states import JobKind
from tests.worker import networks
from tests.worker.runner.hostile.archives import pack, plain
from tests.worker.runner.hostile.case import NPZ, OCTETS, SAFETENSORS, TAR

ARRAYS = {"image": np.arange(96, dtype=np.float32).reshape(4, 24), "label": np.arange(4)}


@dataclass(frozen=True)
class Good:
    """A file that is accepted as it is."""

    kind: JobKind
    media_type: str
    build: Callable[[], bytes]


def _npz(save_arrays: Callable[..., object]) -> bytes:
    stream = io.BytesIO()
    save_arrays(stream, allow_pickle=False, **ARRAYS)
    return stream.getvalue()


def _safetensors() -> bytes:
    content: bytes = save(ARRAYS)
    return content


def _with_data() -> bytes:
    """A model whose weights lie in a file beside it."""
    with tempfile.TemporaryDirectory() as folder:
        saved = networks.save(networks.perceptron(), Path(folder), data_file="weights.bin").parent
        return pack(*(plain(path.name, path.read_bytes()) for path in sorted(saved.iterdir())))


def _model(build: Callable[[], bytes]) -> Good:
    return Good(JobKind.INSPECT_MODEL, OCTETS, build)


GOOD: dict[str, Good] = {
    "perceptron": _model(lambda: networks.perceptron().SerializeToString()),
    "function": _model(lambda: networks.with_function().SerializeToString()),
    "branches": _model(lambda: networks.with_branches().SerializeToString()),
    "quantized": _model(lambda: networks.quantized_product().SerializeToString()),
    "convnet": _model(lambda: networks.convnet().SerializeToString()),
    "tar": Good(JobKind.INSPECT_MODEL, TAR, _with_data),
    "tar-gz": Good(JobKind.INSPECT_MODEL, TAR, lambda: pack(plain("m.onnx", bytes(range(256)) * 4), mode="w:gz")),
    "npz": Good(JobKind.INSPECT_DATASET, NPZ, lambda: _npz(np.savez)),
    "npz-compressed": Good(JobKind.INSPECT_DATASET, NPZ, lambda: _npz(np.savez_compressed)),
    "safetensors": Good(JobKind.INSPECT_DATASET, SAFETENSORS, _safetensors),
}
