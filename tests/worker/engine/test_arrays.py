"""Datasets are mapped, not loaded: what was saved comes back bit for bit, read-only, in native byte order."""

import io
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from worker.engine.arrays import NPZ, SAFETENSORS, open_arrays, samples_not_finite, sniff
from worker.engine.dataset_faults import NotADataset, SizeMismatch

GENERATOR = np.random.default_rng(0)
ARRAYS: dict[str, np.ndarray] = {
    "float32": GENERATOR.standard_normal((5, 3, 4)).astype(np.float32),
    "float16": GENERATOR.standard_normal((5, 2)).astype(np.float16),
    "float64": GENERATOR.standard_normal(5),
    "int64": np.arange(5) - 2,
    "uint8": np.arange(5, dtype=np.uint8),
    "bool": np.array([True, False, True, True, False]),
    "no elements": np.zeros((5, 0), np.float32),
    "not finite": np.array([np.nan, np.inf, -np.inf, 0, -0.0], np.float32),
    "../up and/away": np.ones(5, np.int32),
}
FORTRAN = np.asfortranarray(ARRAYS["float32"])
BIG_ENDIAN = ARRAYS["float32"].astype(">f4")


def save_npz(path: Path, arrays: dict[str, Any], compressed: bool = False) -> Path:
    with path.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return path


def save_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    save_file(arrays, path)
    return path


@pytest.mark.parametrize("layout", ["npz", "npz-compressed", "safetensors"])
def test_every_array_comes_back_exactly(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    if layout == "safetensors":
        save_safetensors(path, ARRAYS)
    else:
        save_npz(path, ARRAYS, compressed=layout == "npz-compressed")
    found = open_arrays(path, sniff(path), tmp_path / "scratch")
    assert set(found) == set(ARRAYS)
    for name, expected in ARRAYS.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)
        with pytest.raises(ValueError, match="read-only"):
            found[name][...] = 0


@pytest.mark.parametrize(
    "array",
    [pytest.param(FORTRAN, id="fortran-order"), pytest.param(BIG_ENDIAN, id="big-endian")],
)
def test_foreign_layouts_hold_the_same_values_in_native_byte_order(array: np.ndarray, tmp_path: Path) -> None:
    found = open_arrays(save_npz(tmp_path / "data", {"x": array}), NPZ, tmp_path)["x"]
    assert found.dtype == np.float32
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, ARRAYS["float32"])


def test_bfloat16_of_safetensors_is_read(tmp_path: Path) -> None:
    array = ARRAYS["float32"].astype(ml_dtypes.bfloat16)
    found = open_arrays(save_safetensors(tmp_path / "data", {"x": array}), SAFETENSORS, tmp_path)["x"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found.view(np.uint16), array.view(np.uint16))


def test_scratch_holds_files_under_names_of_our_own(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    open_arrays(save_npz(tmp_path / "data", {"../../evil": np.ones(3, np.float32)}), NPZ, scratch)
    written = [path.relative_to(scratch) for path in scratch.rglob("*.npy")]
    assert [path.name for path in written] == ["0.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "scratch"]


def test_two_datasets_may_share_a_scratch_folder(tmp_path: Path) -> None:
    first = open_arrays(save_npz(tmp_path / "a", {"x": np.zeros(3)}), NPZ, tmp_path)
    second = open_arrays(save_npz(tmp_path / "b", {"x": np.ones(3)}), NPZ, tmp_path)
    assert (first["x"].sum(), second["x"].sum()) == (0, 3)


@pytest.mark.parametrize("declared", [NPZ, SAFETENSORS, "application/octet-stream"])
def test_content_decides_over_the_declared_type(declared: str, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "data", {"x": ARRAYS["float32"]})
    assert sniff(path) == NPZ
    np.testing.assert_array_equal(open_arrays(path, declared, tmp_path)["x"], ARRAYS["float32"])


def test_a_lie_about_sizes_is_found_before_anything_is_written(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "data", "w") as archive:
        archive.writestr("x.npy", stream.getvalue() + bytes(16))
    with pytest.raises(SizeMismatch, match=r"4,398,046,511,104 bytes; the archive holds 16"):
        open_arrays(tmp_path / "data", NPZ, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a,b\n1,2\n3,4\n")
    with pytest.raises(NotADataset, match="begins with b'a,b"):
        sniff(tmp_path / "data")


@pytest.mark.parametrize(
    ("array", "count"),
    [
        (ARRAYS["float32"], 0),
        (np.array([[1, np.nan], [np.inf, np.nan], [1, 2], [1, -np.inf]], np.float16), 3),
        (np.array([1, np.nan], ml_dtypes.bfloat16), 1),
        (ARRAYS["not finite"], 3),
        (ARRAYS["no elements"], 0),
        (ARRAYS["int64"], 0),
    ],
    ids=["all-finite", "matrix", "bfloat16", "vector", "no-elements", "integers"],
)
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20], ids=["row-by-row", "at-once"])
def test_samples_that_are_not_finite_are_counted(
    array: np.ndarray, count: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.arrays.CHUNK_BYTES", chunk_bytes)
    assert samples_not_finite(array) == count
