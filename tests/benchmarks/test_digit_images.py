"""Reading IDX files: a reader that is off by a byte or an axis trains nets that look merely bad."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.digit_images import BrokenIdx, read_digits, read_idx
from benchmarks.subjects import PLANS, Scale, Subject, write_digits


def write_idx(path: Path, array: np.ndarray, kind: int = 0x08) -> Path:
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))
    return path


@pytest.mark.parametrize("shape", [(5,), (3, 2, 4)], ids=["labels", "images"])
def test_an_idx_file_comes_back_as_it_was(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(read_idx(write_idx(tmp_path / "x.gz", array)), array)


def test_other_files_are_refused(tmp_path: Path) -> None:
    array = np.zeros((2, 3), np.uint8)
    with pytest.raises(BrokenIdx, match="unsigned bytes"):
        read_idx(write_idx(tmp_path / "floats.gz", array, kind=0x0D))
    cut = write_idx(tmp_path / "cut.gz", array)
    cut.write_bytes(gzip.compress(gzip.decompress(cut.read_bytes())[:-1]))
    with pytest.raises(BrokenIdx, match="5 elements, its header says 6"):
        read_idx(cut)
    header = tmp_path / "header.gz"
    header.write_bytes(gzip.compress(bytes([0, 0, 8, 3, 0, 0])))
    with pytest.raises(BrokenIdx, match="within its header"):
        read_idx(header)


def test_images_are_normalized_and_belong_to_their_labels(tmp_path: Path) -> None:
    pixels = np.stack([np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8)])
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels)
    labels = write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.array([7, 2], np.uint8))
    images, classes = read_digits(tmp_path)
    assert images.shape == (2, 1, 28, 28)
    # (0 - 0.1307) / 0.3081 and (1 - 0.1307) / 0.3081
    np.testing.assert_allclose(images[:, 0, 0, 0], [-0.42421, 2.82149], atol=1e-4)
    assert classes.tolist() == [7, 2]
    write_idx(labels, np.array([7], np.uint8))
    with pytest.raises(BrokenIdx, match="do not belong together"):
        read_digits(tmp_path)


def test_no_digit_calibrates_and_judges(tmp_path: Path) -> None:
    numbers = np.arange(10_000)
    pixels = np.zeros((10_000, 28, 28), np.uint8)
    pixels[:, 0, 0], pixels[:, 0, 1] = numbers // 256, numbers % 256
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", pixels)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", (numbers % 10).astype(np.uint8))
    plan = next(plan for plan in PLANS if plan.is_trained)
    subject = Subject(plan, tmp_path / "model.onnx", tmp_path)
    write_digits(subject, Scale(1, 1, 256, 2000), tmp_path)

    def numbers_of(folder: Path) -> list[int]:
        images = np.load(folder / "image.npy")
        bytes_ = np.rint((images[:, 0, 0, :2] * 0.3081 + 0.1307) * 255).astype(int)
        return [int(high) * 256 + int(low) for high, low in bytes_]

    calibration, held_out = numbers_of(subject.calibration), numbers_of(subject.held_out)
    assert len(set(calibration)) == 256
    assert max(calibration) < 8000
    assert held_out == list(range(8000, 10_000))
    assert np.load(subject.labels).tolist() == [number % 10 for number in held_out]
