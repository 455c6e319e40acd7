"""How much memory training takes with N samples and with ten times as many: it should be the same.

    python -m benchmarks.training_memory --mnist FOLDER      MNIST's test set, IDX

Samples are digits of a megabyte each, drawn large, and repeated: held in memory, ten times as many would be seen. A
small network that looks at them coarsely is trained for an epoch, by its labels and by what it answers itself. Counted
is what belongs to the process alone, over what did before it trained: pages of the samples' file, which is mapped, are
the system's to take back. Prints a markdown table.
"""

import argparse
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ours
from benchmarks.children import run_in_child
from benchmarks.comparing import say
from benchmarks.digit_images import read_digits
from benchmarks.subjects import LABELS
from benchmarks.tables import MIB
from benchmarks.tasks import write_arrays
from tests.worker import networks

FEW, TIMES = 400, 10
CALIBRATING = 16
# A pixel of a digit, 28 wide, becomes a square of so many: 504 x 504 float32 are a megabyte.
LARGER = 18
NETWORK = """network (float[N, 1, 504, 504] image) => (float[N, 10] logits) {
    coarse = Conv <kernel_shape = [18, 18], strides = [18, 18]> (image, stem, stem_bias)  first = Relu (coarse)
    inner = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (first, body, body_bias)  second = Relu (inner)
    sum = Add (first, second)  flat = Flatten (sum)  logits = Gemm (flat, head, head_bias)
}"""
MODEL = "network"
CHANNELS, PLACES, CLASSES = 16, 28 * 28, 10
RECIPES: dict[str, dict[str, Any]] = {
    "fine_tune": {"epochs": 1},
    "distill": {"epochs": 1},
    "quantize_aware_training": {"epochs": 1, "placement": "kernels"},
}
SECONDS_BETWEEN_LOOKS = 0.02


def train(task: dict[str, Any], recipe: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest memory that was the process's own, in bytes, before and while it trained."""
    before, found, ended = own_bytes(), [0], threading.Event()

    def look() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            found.append(own_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        seconds = ours.follow(task, recipe)["seconds"]
    finally:
        ended.set()
        looking.join()
    return {"before": before, "most": max(found), "seconds": seconds}


def own_bytes() -> int:
    """Resident pages that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def measure(mnist: Path, threads: int) -> Iterator[str]:
    """Rows of the table, each as soon as it is measured.

    Raises:
        ChildFailed: one could not be trained.

    """
    yield f"| pass | MiB beyond what was there before, {FEW} samples | {FEW * TIMES} samples | more | s |"
    yield "| --- | --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as name:
        folder = Path(name)
        _write_inputs(mnist, folder)
        for which, arguments in RECIPES.items():
            recipe = [{"pass": which, **arguments}]
            few, many = (_trained(folder, count, recipe, threads) for count in (FEW, FEW * TIMES))
            grown = [(one["most"] - one["before"]) / MIB for one in (few, many)]
            sizes = f"{grown[0]:.0f} | {grown[1]:.0f} | {grown[1] - grown[0]:.0f}"
            yield f"| `{which}` | {sizes} | {few['seconds']:.0f}, {many['seconds']:.0f} |"


def _write_inputs(mnist: Path, folder: Path) -> None:
    """The network and its data, both numbers of samples in folders of that name."""
    images, labels = read_digits(mnist)
    generator = np.random.default_rng(0)
    weights = {
        "stem": generator.normal(0, 0.05, (CHANNELS, 1, LARGER, LARGER)),
        "stem_bias": np.zeros(CHANNELS),
        "body": generator.normal(0, 0.1, (CHANNELS, CHANNELS, 3, 3)),
        "body_bias": np.zeros(CHANNELS),
        "head": generator.normal(0, 0.01, (CHANNELS * PLACES, CLASSES)),
        "head_bias": np.zeros(CLASSES),
    }
    constants = {name: weight.astype(np.float32) for name, weight in weights.items()}
    networks.save(networks.prepared(NETWORK, **constants), folder / MODEL)
    for count in (FEW, FEW * TIMES):
        rows = np.arange(count) % len(images)
        target = folder / str(count)
        write_arrays(target, {LABELS: labels[rows]})
        _write_enlarged(images, rows, target / "image.npy")
    write_arrays(folder / "calibration", {"image": _enlarged(images[:CALIBRATING])})


def _enlarged(images: np.ndarray) -> np.ndarray:
    return np.kron(images, np.ones((LARGER, LARGER), np.float32)).astype(np.float32)


def _write_enlarged(images: np.ndarray, rows: np.ndarray, path: Path) -> None:
    """One after another, as they would not all have room."""
    shape = (len(rows), 1, *(side * LARGER for side in images.shape[2:]))
    written = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for number, row in enumerate(rows):
        written[number] = _enlarged(images[row])
    written.flush()


def _trained(folder: Path, count: int, recipe: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """What `train` says of so many samples, in a process of its own."""
    task = {
        "model": str(folder / MODEL / "model.onnx"),
        "original": str(folder / MODEL / "model.onnx"),
        "calibration": str(folder / "calibration"),
        "training": str(folder / str(count)),
        "target": str(folder / "made.onnx"),
        "threads": threads,
    }
    found: dict[str, Any] = run_in_child("benchmarks.training_memory:train", {"task": task, "recipe": recipe}).value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.training_memory", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mnist", type=Path, required=True, help="the folder of MNIST's test set: two files, t10k-*")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    for line in measure(asked.mnist.resolve(), asked.threads):
        say(line)


if __name__ == "__main__":
    main()
