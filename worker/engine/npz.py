"""`.npz` read as the untrusted zip archive it is: nothing is unpickled, nothing allocated on the word of a header.

Formats: APPNOTE.TXT 6.3 (zip) and NEP 1 (npy).
"""

import errno
import io
import math
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from worker.engine.dataset_faults import (
    CorruptDataset,
    DuplicateArray,
    ExoticArchive,
    ForeignMember,
    ObjectArray,
    OversizedDataset,
    SizeMismatch,
    UnsupportedDtype,
)
from worker.engine.upload_bounds import MAX_UNPACKED_BYTES

MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
SUFFIX = ".npy"
MAX_MEMBERS = 10_000
# A header of a plain numeric array is 128 bytes; ten kilobytes is NumPy's own bound.
MAX_HEADER_BYTES = 10_000
CHUNK_BYTES = 1 << 20
READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
RESAVE = "Save it again with numpy.savez or numpy.savez_compressed."


@dataclass(frozen=True)
class Member:
    """One array of an archive, known from its header alone."""

    name: str
    info: zipfile.ZipInfo
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    header_bytes: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_members(path: Path, max_bytes: int = MAX_UNPACKED_BYTES) -> list[Member]:
    """The arrays in the order of the archive, each with a declared size that its header agrees with.

    Raises:
        UserFault: the archive or a header breaks its format, or it declares more than `max_bytes` (or its own size,
            where that is larger) in all.

    """
    with _archive(path) as archive:
        infos = archive.infolist()
        _check_archive(infos, max(max_bytes, path.stat().st_size))
        return [_read_member(archive, info) for info in infos]


def verify(path: Path, members: list[Member], report: Callable[[int], None]) -> None:
    """Read every member to its end and check its checksum; `report` is told the bytes of each chunk.

    Raises:
        CorruptDataset: the data is not what the archive says.

    """
    with _archive(path) as archive:
        for member in members:
            for chunk in _data(archive, member):
                report(len(chunk))


def open_arrays(path: Path, scratch: Path) -> dict[str, np.ndarray]:
    """Stream every member into an `.npy` file in a new folder of `scratch` and map it read-only, by name.

    Raises:
        UserFault: as `read_members` and `verify`.

    """
    members = read_members(path)
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="arrays-", dir=scratch))
    with _archive(path) as archive:
        # Numbers, not names: a name may be anything, `../x` included.
        return {
            member.name: _extract(archive, member, folder / f"{number}{SUFFIX}")
            for number, member in enumerate(members)
        }


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """What zipfile and zlib raise on broken files, as one fault."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except NotImplementedError as error:
        raise ExoticArchive(f"The .npz cannot be read: {error}.", RESAVE) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, UnicodeDecodeError) as error:
        raise CorruptDataset(f"The .npz is damaged or cut short: {error or type(error).__name__}.", RESAVE) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the directory points before the file's beginning
            raise
        raise CorruptDataset("The directory of the .npz points outside of it.", RESAVE) from error


def _check_archive(infos: list[zipfile.ZipInfo], max_bytes: int) -> None:
    if len(infos) > MAX_MEMBERS:
        raise OversizedDataset(
            f"The .npz holds {len(infos):,} members; {MAX_MEMBERS:,} is the most that is read.",
            "Give one array per model input or label, its first axis counting samples.",
        )
    seen: set[str] = set()
    for info in infos:
        if info.flag_bits & 0x1:
            raise ExoticArchive(f"Member {info.filename!r} is encrypted.", RESAVE)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ExoticArchive(f"Member {info.filename!r} uses zip compression {info.compress_type}.", RESAVE)
        if info.filename in seen:
            raise DuplicateArray(f"The .npz holds {info.filename!r} twice.", "Give every array a name of its own.")
        seen.add(info.filename)
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise OversizedDataset(
            f"The arrays unpack to {total:,} bytes; {max_bytes:,} is the most that is accepted.",
            "Upload fewer samples; a few thousand are enough to calibrate and to evaluate.",
        )


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = info.filename.removesuffix(SUFFIX)
    with archive.open(info) as stream:
        head = io.BytesIO(stream.read(MAX_HEADER_BYTES + 16))
    if name == info.filename or not head.getvalue().startswith(npy.MAGIC_PREFIX):
        raise ForeignMember(
            f"Member {info.filename!r} is no .npy array.", "An .npz holds arrays only; remove it from the archive."
        )
    version = npy.read_magic(head)
    if version not in READERS:
        raise UnsupportedDtype(
            f"Array {name!r} is in .npy format {version[0]}.{version[1]}, which only structured arrays need.",
            "Save each field as an array of its own.",
        )
    shape, fortran_order, dtype = _read_header(name, head, version)
    check_dtype(name, dtype)
    if min(shape, default=0) < 0:
        raise CorruptDataset(f"Array {name!r} declares the shape {shape}.", RESAVE)
    member = Member(name, info, dtype, shape, fortran_order, head.tell())
    if member.header_bytes + member.data_bytes != info.file_size:
        raise SizeMismatch(
            f"Array {name!r} declares {dtype} {list(shape)}, {member.data_bytes:,} bytes; the archive holds "
            f"{info.file_size - member.header_bytes:,}.",
            RESAVE,
        )
    return member


def _read_header(name: str, head: io.BytesIO, version: tuple[int, int]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype. `head` is bounded, so a header that claims gigabytes ends in an end-of-file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of headers that Python 2 wrote, and reads them
            shape, fortran_order, dtype = READERS[version](head, max_header_size=MAX_HEADER_BYTES)
    except Exception as error:  # Python's own tokenizer and parser run over the text, and end in many ways
        raise CorruptDataset(f"Array {name!r} has an unreadable .npy header: {str(error)[:200]}", RESAVE) from error
    return tuple(int(size) for size in shape), fortran_order, dtype


def check_dtype(name: str, dtype: np.dtype) -> None:
    """Raises ObjectArray or UnsupportedDtype unless the elements are bool, integers or floats of at most 8 bytes."""
    if dtype.hasobject:
        raise ObjectArray(
            f"Array {name!r} holds Python objects, which are never unpickled here.",
            "Give it a numeric dtype before saving: numpy.asarray(x, dtype=numpy.float32). Rows of unequal length "
            "need padding.",
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnsupportedDtype(
            f"Array {name!r} has dtype {dtype}.",
            "Use bool, an integer or a float dtype of at most 64 bits; encode text and categories as integers.",
        )


def _data(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    """The bytes behind the header; zipfile checks size and checksum as the end is reached."""
    with archive.open(member.info) as stream:
        stream.read(member.header_bytes)
        left = member.data_bytes
        while chunk := stream.read(CHUNK_BYTES):
            left -= len(chunk)
            yield chunk
    if left:
        raise CorruptDataset(f"Array {member.name!r} is {left:,} bytes short.", RESAVE)


def _extract(archive: zipfile.ZipFile, member: Member, target: Path) -> np.ndarray:
    native = member.dtype.newbyteorder("=")
    header = {"descr": npy.dtype_to_descr(native), "fortran_order": member.fortran_order, "shape": member.shape}
    with target.open("xb") as file:
        npy.write_array_header_1_0(file, header)
        for chunk in _data(archive, member):
            file.write(chunk)
    if member.data_bytes == 0:  # an empty file cannot be mapped
        target.unlink()
        array = np.zeros(member.shape, native)
        array.setflags(write=False)
        return array
    if native != member.dtype:
        # ONNX Runtime takes a foreign byte order for its own; swapped in place, page by page.
        swapped = npy.open_memmap(target, mode="r+")
        swapped.byteswap(inplace=True)
        swapped.flush()
    return np.asarray(npy.open_memmap(target, mode="r"))
