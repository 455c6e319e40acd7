"""Plain files in a tar: what a runner leaves for its supervisor to take, and finds again in a later run."""

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path


class Unreadable(Exception):
    """No tar of plain files, or not a whole one; the message names the kind of error."""


def pack_files(path: Path, files: Mapping[str, Path]) -> None:
    """Write the tar `path` at once, these files under their names. Raises OSError, and leaves nothing then."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with tarfile.open(partial, "w:") as archive:
            for name, file in files.items():
                archive.add(file, name, recursive=False)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def unpack_files(path: Path, folder: Path) -> None:
    """Into `folder`, made anew. Raises Unreadable, and leaves no folder then.

    `pack_files` writes no links, and no holes that stand for gigabytes: those are refused.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with tarfile.open(path, "r:") as archive:
            strange = next((one for one in archive if not one.isreg() or one.issparse()), None)
            if strange is not None:
                raise tarfile.TarError(f"{strange.name} is no plain file")
            # None outside the folder: PEP 706.
            archive.extractall(folder, filter="data")
    except Exception as error:  # a header that was made up makes tarfile raise what it does not tell of
        shutil.rmtree(folder, ignore_errors=True)
        raise Unreadable(type(error).__name__) from error
