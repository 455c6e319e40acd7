"""scikit-learn's handwritten digits (1,797 real images of 8 x 8), cut into three parts that share no sample.

    python -m examples.digits.data FOLDER

writes `calibration.npz` and `evaluation.npz`. The training part is used by `examples.digits.train` alone.
Each part holds `image`, (N, 1, 8, 8) float32 in 0..1, and `label`, (N,) int64 in 0..9.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

SEED = 2026
TRAINING_COUNT = 1000
CALIBRATION_COUNT = 197
GREY_LEVELS = 16


@dataclass(frozen=True)
class Part:
    """Some of the samples."""

    image: npt.NDArray[np.float32]
    label: npt.NDArray[np.int64]

    def save(self, path: Path) -> Path:
        """Write it as an `.npz`, one array per name, without pickle."""
        np.savez(path, allow_pickle=False, image=self.image, label=self.label)
        return path


@dataclass(frozen=True)
class Digits:
    """The three parts: 1,000 samples to train on, 197 to calibrate on, 600 to judge by."""

    training: Part
    calibration: Part
    evaluation: Part


def load() -> Digits:
    """The same parts at every call: the order is drawn once, with a fixed seed."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    image = (pixels[order].reshape(-1, 1, 8, 8) / GREY_LEVELS).astype(np.float32)
    label = labels[order].astype(np.int64)
    first, second = TRAINING_COUNT, TRAINING_COUNT + CALIBRATION_COUNT
    return Digits(
        training=Part(image[:first], label[:first]),
        calibration=Part(image[first:second], label[first:second]),
        evaluation=Part(image[second:], label[second:]),
    )


def write(folder: Path) -> tuple[Path, Path]:
    """Write the calibration and the evaluation part into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = load()
    return digits.calibration.save(folder / "calibration.npz"), digits.evaluation.save(folder / "evaluation.npz")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.digits.data FOLDER")
    for written in write(Path(sys.argv[1])):
        print(written)
