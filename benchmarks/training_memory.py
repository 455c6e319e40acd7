"""How much memory training takes with N samples and with twenty times as many: it should be the same.

    python -m benchmarks.training_memory --mnist FOLDER      MNIST's test set, IDX

Samples are digits, repeated; a small residual network is trained on them for an epoch, by its labels and by what it
answers itself. Counted is what belongs to the process alone: pages of the samples' file, which is mapped, are the
system's to take back. Prints a markdown table.
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

NETWORK = "digits-student-residual"
FEW, TIMES = 400, 20
CALIBRATING = 64
RECIPES: dict[str, dict[str, Any]] = {
    "fine_tune": {"epochs": 1},
    "distill": {"epochs": 1},
    "quantize_aware_training": {"epochs": 1},
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
    yield f"| pass | own MiB, {FEW} samples | {FEW * TIMES} samples | ratio | s |"
    yield "| --- | --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as name:
        folder = Path(name)
        _write_inputs(mnist, folder)
        for which, arguments in RECIPES.items():
            recipe = [{"pass": which, **arguments}]
            few, many = (_trained(folder, count, recipe, threads) for count in (FEW, FEW * TIMES))
            sizes = f"{few['most'] / MIB:.0f} | {many['most'] / MIB:.0f} | {many['most'] / few['most']:.2f}"
            yield f"| `{which}` | {sizes} | {few['seconds']:.0f}, {many['seconds']:.0f} |"


def _write_inputs(mnist: Path, folder: Path) -> None:
    """The network and its data, both numbers of samples in folders of that name."""
    images, labels = read_digits(mnist)
    named = {"name": NETWORK, "digits": str(mnist), "target": str(folder / "model.onnx"), "seed": 0}
    run_in_child("benchmarks.digit_training:write_untrained", named)
    for count in (FEW, FEW * TIMES):
        rows = np.arange(count) % len(images)
        write_arrays(folder / str(count), {"image": images[rows], LABELS: labels[rows]})
    write_arrays(folder / "calibration", {"image": images[:CALIBRATING]})


def _trained(folder: Path, count: int, recipe: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """What `train` says of so many samples, in a process of its own."""
    task = {
        "model": str(folder / "model.onnx"),
        "original": str(folder / "model.onnx"),
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
