"""Tars of a model and its data that must be refused."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.worker import networks
from tests.worker.runner.hostile.case import TAR, Hostile
from tests.worker.runner.hostile.models import external

Mode = Literal["w", "w:gz"]
MODEL = networks.perceptron().SerializeToString()


def plain(name: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    return member, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member, b""


def pack(*members: tuple[tarfile.TarInfo, bytes], mode: Mode = "w") -> bytes:
    """The bytes of a tar with these members, in this order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def _archive(*members: tuple[tarfile.TarInfo, bytes], mode: Mode = "w") -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pack(*members, mode=mode))


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _claiming(size: int, compress: bool) -> bytes:
    """A tar whose first member says that it has `size` bytes, with none behind."""
    member = tarfile.TarInfo("model.onnx")
    member.size = size
    header = member.tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(header) if compress else header


def _renamed(name: str) -> Callable[[Path], object]:
    """A model whose name in the header is plain, and another one in the extended header before it (PAX)."""

    def write(path: Path) -> None:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            member, content = plain("a.onnx", MODEL)
            member.pax_headers = {"path": name}
            archive.addfile(member, io.BytesIO(content))

    return write


def _case(name: str, code: str, write: Callable[[Path], object], names: str = "") -> Hostile:
    return Hostile(f"tar-{name}", code, write, TAR, names)


def _external(location: str, *members: tuple[tarfile.TarInfo, bytes]) -> Callable[[Path], object]:
    return _archive(plain("model.onnx", external(location)().SerializeToString()), *members)


ARCHIVES = [
    _case("that-is-onnx", "archive_not_tar", _bytes(MODEL), names="single .onnx"),
    _case("that-is-zip", "archive_not_tar", _bytes(b"PK\x03\x04" + bytes(100)), names="zip"),
    _case("that-is-text", "archive_not_tar", _bytes(b"not an archive" * 100)),
    _case("empty", "archive_not_tar", _bytes(b"")),
    _case("without-members", "archive_without_model", _archive()),
    _case("without-model", "archive_without_model", _archive(plain("weights.bin", b"1234"))),
    _case(
        "with-two-models",
        "archive_with_several_models",
        _archive(plain("a.onnx", MODEL), plain("b.onnx", MODEL)),
        "a.onnx",
    ),
    _case("duplicate", "archive_duplicate_member", _archive(plain("a.onnx", MODEL), plain("./a.onnx", MODEL))),
    _case("parent", "archive_unsafe_member", _archive(plain("../a.onnx", MODEL)), names="../a.onnx"),
    _case("absolute", "archive_unsafe_member", _archive(plain("/tmp/a.onnx", MODEL)), names="/tmp/a.onnx"),  # noqa: S108 - never written
    _case("hidden-parent", "archive_unsafe_member", _archive(plain("x/../../a.onnx", MODEL))),
    _case("subfolder", "archive_unsafe_member", _archive(plain("a.onnx", MODEL), plain("data/w.bin", b"1"))),
    _case("two-folders-deep", "archive_unsafe_member", _archive(plain("a/b/m.onnx", MODEL))),
    _case(
        "symbolic-link",
        "archive_unsafe_member",
        _external("w.bin", special("w.bin", tarfile.SYMTYPE, "/etc/passwd")),
        names="/etc/passwd",
    ),
    _case("hard-link", "archive_unsafe_member", _archive(special("a.onnx", tarfile.LNKTYPE, "/etc/passwd"))),
    _case("pipe", "archive_unsafe_member", _archive(special("a.onnx", tarfile.FIFOTYPE))),
    _case("device", "archive_unsafe_member", _archive(special("a.onnx", tarfile.CHRTYPE))),
    _case("block-device", "archive_unsafe_member", _archive(special("a.onnx", tarfile.BLKTYPE))),
    _case("parent-by-extended-header", "archive_unsafe_member", _renamed("../a.onnx"), names="../a.onnx"),
    _case(
        "data-then-link",
        "archive_unsafe_member",
        _external("w.bin", plain("w.bin", bytes(1024)), special("w.bin", tarfile.SYMTYPE, "/etc/passwd")),
    ),
    _case(
        "data-twice",
        "archive_duplicate_member",
        _external("w.bin", plain("w.bin", bytes(1024)), plain("w.bin", bytes(1024))),
    ),
    _case("data-is-memory-address", "external_data_elsewhere", _external("*/_ORT_MEM_ADDR_/*")),
    _case("overlong-name", "archive_unsafe_member", _archive(plain("m" * 300 + ".onnx", MODEL))),
    _case("truncated", "archive_corrupt", _bytes(pack(plain("model.onnx", MODEL))[:900])),
    _case("truncated-gzip", "archive_corrupt", _bytes(pack(plain("model.onnx", MODEL), mode="w:gz")[:-600])),
    _case("gzip-of-text", "archive_corrupt", _bytes(gzip.compress(b"not an archive" * 100))),
    _case("claiming-a-petabyte", "archive_too_large", _bytes(_claiming(1 << 50, compress=False))),
    _case("claiming-a-petabyte-in-gzip", "archive_too_large", _bytes(_claiming(1 << 50, compress=True))),
    _case("data-missing", "external_data_missing", _external("w.bin", plain("v.bin", bytes(1024))), names="w.bin"),
    _case("data-short", "external_data_too_short", _external("w.bin", plain("w.bin", bytes(1000))), names="1,000"),
    _case("data-is-folder", "external_data_missing", _external("w.bin", special("w.bin", tarfile.DIRTYPE))),
    _case("model-of-text", "model_not_onnx", _archive(plain("model.onnx", b"hello, is this a model?"))),
]
