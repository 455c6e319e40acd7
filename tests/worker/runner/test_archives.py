"""Plain files packed and unpacked: what comes back was in the hands of a runner, and may be anything."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.runner.archives import Unreadable, pack_files, unpack_files


def packed(path: Path) -> None:
    content = path.with_name("content")
    content.write_text("weights")
    pack_files(path, {"model/a.onnx": content, "facts.json": content})


def member(content: bytes = b"x", **fields: object) -> Callable[[Path], None]:
    """A tar of one member, whose header says this."""

    def write(path: Path) -> None:
        header = tarfile.TarInfo("a.onnx")
        for name, value in fields.items():
            setattr(header, name, value)
        header.size = len(content)
        with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(header, io.BytesIO(content))

    return write


def cut_off(path: Path) -> None:
    packed(path)
    path.write_bytes(path.read_bytes()[:700])


# Eight gigabytes of nothing, in one block (GNU tar, sparse format 1.0).
HOLE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "a.onnx",
    "GNU.sparse.realsize": "8589934592",
}
MADE_UP = [
    pytest.param(lambda path: path.write_bytes(b"no tar"), id="no-tar"),
    pytest.param(lambda path: path.write_bytes(b""), id="empty"),
    pytest.param(cut_off, id="cut-off"),
    pytest.param(member(name="../a.onnx"), id="outside"),
    pytest.param(member(b"", type=tarfile.SYMTYPE, linkname="elsewhere"), id="link"),
    pytest.param(member(b"", type=tarfile.FIFOTYPE), id="pipe"),
    pytest.param(member(b"0\n".ljust(512, b"\0"), pax_headers=HOLE), id="hole"),
    pytest.param(member(pax_headers={"mtime": "1e30"}), id="a-time-beyond-clocks"),
]


def test_files_come_back_under_their_names(tmp_path: Path) -> None:
    packed(tmp_path / "piece.tar")
    unpack_files(tmp_path / "piece.tar", tmp_path / "out")
    assert (tmp_path / "out" / "model" / "a.onnx").read_text() == "weights"
    assert (tmp_path / "out" / "facts.json").read_text() == "weights"


@pytest.mark.parametrize("make", MADE_UP)
def test_what_is_no_tar_of_plain_files_leaves_nothing(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "piece.tar")
    with pytest.raises(Unreadable):
        unpack_files(tmp_path / "piece.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()
