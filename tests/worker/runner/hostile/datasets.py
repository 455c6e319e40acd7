"""Datasets that must be refused."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tests.worker.runner.hostile.case import NPZ, SAFETENSORS, Hostile

FLOATS = np.arange(12, dtype=np.float32).reshape(4, 3)


def npz(**arrays: Any) -> Callable[[Path], object]:
    """What numpy itself would write."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return write


def member(array: np.ndarray, **header: object) -> bytes:
    """One .npy, its header changed."""
    stream = io.BytesIO()
    truth = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
    npy.write_array_header_1_0(stream, truth | header)
    return stream.getvalue() + array.tobytes()


def raw_header(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """One .npy with this text as its header."""
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header))
    return b"\x93NUMPY" + version + size + header.encode() + data


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> Callable[[Path], object]:
    """A zip of these members."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, content in members:
                file.writestr(zipfile.ZipInfo(name), content, compression)

    return write


def patched(find: bytes, replace: bytes, *members: tuple[str, bytes]) -> Callable[[Path], object]:
    """The same, with bytes replaced wherever they occur."""

    def write(path: Path) -> None:
        archive(*members)(path)
        path.write_bytes(path.read_bytes().replace(find, replace))

    return write


def _encrypted(path: Path) -> None:
    archive(("x.npy", member(FLOATS)))(path)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # flag bits of the local header, then of the central directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)


def _declared_sizes(size: int) -> Callable[[Path], object]:
    """An archive whose directory declares `size` bytes for a member of 176."""

    def write(path: Path) -> None:
        content = member(FLOATS)
        archive(("x.npy", content))(path)
        true, false = struct.pack("<I", len(content)), struct.pack("<I", size)
        data = bytearray(path.read_bytes())
        central = data.index(b"PK\x01\x02")
        assert data[central + 24 : central + 28] == true
        data[central + 24 : central + 28] = false
        path.write_bytes(data)

    return write


def _truncated_npz(path: Path) -> None:
    npz(x=FLOATS)(path)
    path.write_bytes(path.read_bytes()[:-40])


def _bomb(path: Path) -> None:
    """A small archive that declares two gigabytes of zeros, twice what the tests' runner may unpack."""
    shape = (1 << 29,)
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("x.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header.getvalue())
        stream.write(bytes(1 << 20))
    # Only the directory needs to say so: what is refused is never unpacked.
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    size = len(header.getvalue()) + 4 * shape[0]
    data[central + 24 : central + 28] = struct.pack("<I", size)
    path.write_bytes(data)


def safetensors(header: dict[str, Any] | str, data: bytes = b"") -> Callable[[Path], object]:
    """A file with this header, honest about its length."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def _large_header(path: Path) -> None:
    """As long as it claims, and nothing but holes."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 100 << 20) + b"{")
        file.truncate(8 + (100 << 20))


def _many_arrays(path: Path) -> None:
    """More of a header than is read, honest in all that it says."""
    count, name = 9_000, "x" * 1_000
    entries = {f"{name}{one}": tensor("F32", [1], 4 * one, 4 * one + 4) for one in range(count)}
    safetensors(entries, bytes(4 * count))(path)


def _said_at_length(path: Path) -> None:
    """Names that each may be, and that together say more than an inspection may: 4,000 of 400 characters."""
    entries = {f"{one:0400}": tensor("F32", [1], 4 * one, 4 * one + 4) for one in range(4_000)}
    safetensors(entries, bytes(4 * 4_000))(path)


def _case(name: str, code: str, write: Callable[[Path], object], names: str = "") -> Hostile:
    return Hostile(f"npz-{name}", code, write, NPZ, names)


def _safetensors(name: str, code: str, write: Callable[[Path], object], names: str = "") -> Hostile:
    return Hostile(f"safetensors-{name}", code, write, SAFETENSORS, names)


X = ("x.npy", member(FLOATS))


def _duplicate(path: Path) -> None:
    archive(X, ("y.npy", X[1]))(path)
    path.write_bytes(path.read_bytes().replace(b"y.npy", b"x.npy"))


OBJECTS = np.array([{"a": 1}, [2]], dtype=object)
NPZ_FILES = [
    _case("empty", "not_a_dataset", lambda path: path.write_bytes(b"")),
    _case("text", "not_a_dataset", lambda path: path.write_bytes(b"1,2,3\n4,5,6\n")),
    _case("npy", "not_a_dataset", lambda path: path.write_bytes(member(FLOATS))),
    _case("truncated", "dataset_corrupt", _truncated_npz),
    _case("checksum", "dataset_corrupt", patched(FLOATS.tobytes()[-8:], b"\0" * 8, X), names="x.npy"),
    _case("header-of-garbage", "dataset_corrupt", archive(("x.npy", raw_header("{'descr': __import__('os')}")))),
    _case("header-of-brackets", "dataset_corrupt", archive(("x.npy", raw_header("(" * 9_000)))),
    _case("header-of-4-gib", "dataset_corrupt", archive(("x.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"))),
    _case("header-overlong", "dataset_corrupt", archive(("x.npy", raw_header(" " * 60_000)))),
    _case("negative-shape", "dataset_corrupt", archive(("x.npy", member(FLOATS, shape=(-4, 3)))), names="-4"),
    _case(
        "shape-too-large", "dataset_size_mismatch", archive(("x.npy", member(FLOATS, shape=(1 << 40, 3)))), names="x"
    ),
    _case("shape-overflowing", "dataset_size_mismatch", archive(("x.npy", member(FLOATS, shape=(1 << 62, 1 << 62))))),
    _case("shape-too-small", "dataset_size_mismatch", archive(("x.npy", member(FLOATS, shape=(1, 3))))),
    _case("declared-too-large", "dataset_size_mismatch", _declared_sizes(1 << 20)),
    _case("declared-too-small", "dataset_corrupt", _declared_sizes(140)),
    _case("bomb", "dataset_too_large", _bomb, names="1,073,741,824"),
    _case("object-dtype", "dataset_object_dtype", npz(x=OBJECTS), names="'x'"),
    _case("object-in-structure", "dataset_object_dtype", npz(x=np.zeros(4, [("a", "O"), ("b", "f4")]))),
    _case("structured", "dataset_unsupported_dtype", npz(x=np.zeros(4, [("a", "f4"), ("b", "i4")]))),
    _case("text-array", "dataset_unsupported_dtype", npz(label=np.array(["cat", "dog"])), names="label"),
    _case("bytes-array", "dataset_unsupported_dtype", npz(x=np.array([b"cat", b"dog"]))),
    _case("complex", "dataset_unsupported_dtype", npz(x=np.zeros(4, np.complex64)), names="complex64"),
    _case("dates", "dataset_unsupported_dtype", npz(x=np.zeros(4, "datetime64[s]"))),
    _case("format-3", "dataset_unsupported_dtype", archive(("x.npy", raw_header("{}", version=b"\x03\x00")))),
    _case("duplicate", "dataset_duplicate_array", _duplicate, names="x.npy"),
    _case("overlong-name", "dataset_name_too_long", npz(**{"n" * 513: FLOATS}), names="513"),
    _case("twenty-thousand-members", "dataset_too_large", archive(*[(f"{one}.npy", X[1]) for one in range(20_000)])),
    _case("foreign-member", "dataset_not_array", archive(X, ("README.txt", b"hello")), names="README.txt"),
    _case("member-of-text", "dataset_not_array", archive(("x.npy", b"hello"))),
    _case("encrypted", "dataset_compression", _encrypted, names="encrypted"),
    _case("bzip2", "dataset_compression", archive(X, compression=zipfile.ZIP_BZIP2)),
    _case("lzma", "dataset_compression", archive(X, compression=zipfile.ZIP_LZMA)),
    _case("no-arrays", "dataset_empty", archive()),
    _case("no-axes", "dataset_scalar_array", npz(x=FLOATS, temperature=np.float32(4)), names="temperature"),
    _case("no-samples", "dataset_no_samples", npz(x=FLOATS[:0])),
    _case("unequal-lengths", "dataset_unequal_lengths", npz(x=FLOATS, label=np.arange(3)), names="'label' has 3"),
]


SAFETENSORS_FILES = [
    _safetensors("truncated", "dataset_corrupt", safetensors({"x": tensor("F32", [4], 0, 16)}, bytes(8))),
    _safetensors("trailing-bytes", "dataset_corrupt", safetensors({"x": tensor("F32", [4], 0, 16)}, bytes(24))),
    _safetensors(
        "overlap",
        "dataset_corrupt",
        safetensors({"x": tensor("F32", [4], 0, 16), "y": tensor("F32", [4], 8, 24)}, bytes(24)),
    ),
    _safetensors(
        "hole",
        "dataset_corrupt",
        safetensors({"x": tensor("F32", [4], 0, 16), "y": tensor("F32", [4], 32, 48)}, bytes(48)),
    ),
    _safetensors("size-lies", "dataset_corrupt", safetensors({"x": tensor("F32", [1 << 40], 0, 16)}, bytes(16))),
    _safetensors(
        "size-overflows", "dataset_corrupt", safetensors({"x": tensor("F32", [1 << 62, 1 << 62], 0, 16)}, bytes(16))
    ),
    _safetensors("offsets-swapped", "dataset_corrupt", safetensors({"x": tensor("F32", [4], 16, 0)}, bytes(16))),
    _safetensors("negative-shape", "dataset_corrupt", safetensors({"x": tensor("F32", [-4], 0, 16)}, bytes(16))),
    _safetensors("not-json", "dataset_corrupt", safetensors("{not json at all}")),
    _safetensors("deep-json", "dataset_corrupt", safetensors('{"a":' * 100_000)),
    _safetensors(
        "header-too-large", "dataset_corrupt", lambda path: path.write_bytes(struct.pack("<Q", 1 << 39) + b"{}")
    ),
    _safetensors(
        "header-past-the-end", "dataset_corrupt", lambda path: path.write_bytes(struct.pack("<Q", 99) + b"{}")
    ),
    _safetensors("header-of-100-mib", "dataset_corrupt", _large_header, names="104,857,600"),
    _safetensors("said-at-length", "dataset_too_many_arrays", _said_at_length, names="4,000 arrays"),
    _safetensors("many-arrays", "dataset_corrupt", _many_arrays),
    _safetensors(
        "size-overflowing", "dataset_corrupt", safetensors({"x": tensor("F32", [1 << 62, 4], 0, 16)}, bytes(16))
    ),
    _safetensors(
        "offset-overflowing", "dataset_corrupt", safetensors({"x": tensor("F32", [4], (1 << 64) - 1, 15)}, bytes(16))
    ),
    _safetensors("unknown-dtype", "dataset_corrupt", safetensors({"x": tensor("Q17", [4], 0, 16)}, bytes(16))),
    _safetensors(
        "float8",
        "dataset_unsupported_dtype",
        safetensors({"x": tensor("F8_E4M3", [4], 0, 4)}, bytes(4)),
        names="F8_E4M3",
    ),
    _safetensors(
        "duplicate",
        "dataset_duplicate_array",
        safetensors(
            '{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
            bytes(16),
        ),
    ),
    _safetensors("no-arrays", "dataset_empty", safetensors({"__metadata__": {"by": "test"}})),
    _safetensors("no-axes", "dataset_scalar_array", safetensors({"x": tensor("F32", [], 0, 4)}, bytes(4))),
    _safetensors("no-samples", "dataset_no_samples", safetensors({"x": tensor("F32", [0, 3], 0, 0)})),
    _safetensors(
        "unequal-lengths",
        "dataset_unequal_lengths",
        safetensors({"x": tensor("F32", [4], 0, 16), "y": tensor("U8", [3], 16, 19)}, bytes(19)),
    ),
]

DATASETS = [*NPZ_FILES, *SAFETENSORS_FILES]
