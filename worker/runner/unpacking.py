"""From an uploaded model to an `.onnx` file in a folder of its own, external data beside it."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from worker.engine.inspection import formats
from worker.engine.model_faults import (
    CorruptArchive,
    DuplicateMember,
    NoModelInArchive,
    NotATar,
    OversizedArchive,
    SeveralModelsInArchive,
    UnsafeMember,
)
from worker.engine.upload_bounds import MAX_UNPACKED_BYTES
from worker.runner.contract import InputFile

TAR = "application/x-tar"
MODEL_FOLDER = "model"
MODEL_SUFFIX = ".onnx"
MAX_MEMBERS = 10_000
MAX_NAME_BYTES = 255
CHUNK_BYTES = 1 << 20
SIDE_BY_SIDE = "Pack the .onnx file and its data files side by side: tar cf model.tar model.onnx model.onnx.data"


def unpack_model(file: InputFile, workdir: Path, folder_name: str = MODEL_FOLDER) -> Path:
    """Path of the one `.onnx` file, in a new folder below `workdir`, external data beside it.

    A plain `.onnx` is linked there, not copied; whether it is one is for inspection to say.

    Raises:
        UserFault: the archive is no tar, damaged, or holds anything but one model and its data, side by side.

    """
    source = workdir / file.path
    folder = workdir / folder_name
    folder.mkdir(mode=0o700)
    if file.media_type != TAR:
        target = folder / f"model{MODEL_SUFFIX}"
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without links, or a file of another user
            source.rename(target)
        return target
    _unpack(source, folder, max(MAX_UNPACKED_BYTES, source.stat().st_size))
    models = sorted(path for path in folder.iterdir() if path.suffix.lower() == MODEL_SUFFIX)
    if not models:
        raise NoModelInArchive("No file of the archive is named *.onnx.", SIDE_BY_SIDE)
    if len(models) > 1:
        names = ", ".join(repr(path.name) for path in models[:10])
        raise SeveralModelsInArchive(f"The archive holds {len(models)} models: {names}.", "Upload each on its own.")
    return models[0]


def _unpack(source: Path, folder: Path, max_bytes: int) -> None:
    """Write every file of the archive into `folder`, at most `max_bytes` in all."""
    parents: set[str] = set()
    left = max_bytes
    with _tar(source) as archive:
        for number, member in enumerate(archive):
            if number >= MAX_MEMBERS:
                raise OversizedArchive(f"The archive holds more than {MAX_MEMBERS:,} entries.", SIDE_BY_SIDE)
            parts = _checked_parts(member)
            if member.isdir() or parts[-1].startswith("._"):  # `._x`: what macOS puts beside x
                continue
            parents.add("/".join(parts[:-1]))
            if len(parts) > 2 or len(parents) > 1:
                raise UnsafeMember(f"{member.name!r} lies in another folder than the rest.", SIDE_BY_SIDE)
            left -= member.size
            if left < 0:
                raise OversizedArchive(
                    f"The archive unpacks to more than {max_bytes:,} bytes.", "Upload a smaller model."
                )
            _write(archive, member, folder / parts[-1])


@contextmanager
def _tar(source: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream, plain or gzip; what the libraries raise on broken ones, as faults."""
    head = formats.read_head(source)
    compressed = head.startswith(b"\x1f\x8b")
    recognized = formats.recognize(head)
    if not compressed and head[257:262] != b"ustar" and (recognized or formats.may_be_onnx(head)):
        name = recognized[0] if recognized else "a single .onnx file"
        raise NotATar(f"The file looks like {name}.", "Send one .onnx file as Content-Type: application/octet-stream.")
    try:
        with tarfile.open(source, "r|gz" if compressed else "r|") as archive:
            yield archive
    except tarfile.ReadError as error:
        if "unexpected end of data" in str(error) or compressed:
            raise CorruptArchive(f"The archive is damaged or cut short: {error}.", "Upload it again.") from error
        raise NotATar(f"The file cannot be read as a tar: {error}.", SIDE_BY_SIDE) from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise CorruptArchive(f"The archive is damaged or cut short: {error}.", "Upload it again.") from error


def _checked_parts(member: tarfile.TarInfo) -> list[str]:
    """The parts of a safe name. Raises UnsafeMember for what is no plain file or folder, or leaves the archive."""
    if member.issym() or member.islnk():
        raise UnsafeMember(f"{member.name!r} is a link to {member.linkname!r}.", "Pack the files themselves: tar -h")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UnsafeMember(f"{member.name!r} is no plain file.", SIDE_BY_SIDE)
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        raise UnsafeMember(f"{member.name!r} leads out of the archive.", SIDE_BY_SIDE)
    if member.isreg() and (not path.parts or len(path.name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES):
        raise UnsafeMember(f"{member.name[:300]!r} is no name for a file.", SIDE_BY_SIDE)
    return list(path.parts) or ["."]


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    stream = archive.extractfile(member)
    if stream is None:
        raise UnsafeMember(f"{member.name!r} is no plain file.", SIDE_BY_SIDE)
    try:
        file = target.open("xb")
    except FileExistsError as error:
        raise DuplicateMember(f"The archive holds {member.name!r} twice.", SIDE_BY_SIDE) from error
    written = 0
    with file, stream:
        while chunk := stream.read(CHUNK_BYTES):
            written += file.write(chunk)
    if written != member.size:
        raise CorruptArchive(f"{member.name!r} is {member.size - written:,} bytes short.", "Upload it again.")
