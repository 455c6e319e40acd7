"""Plain files in a tar: what a runner leaves for its supervisor to take, and finds again in a later run."""

import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path


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
    """Into `folder`, made anew. Raises tarfile.TarError and OSError, and leaves no folder then."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with tarfile.open(path, "r:") as archive:
            # Plain files only, none outside the folder: PEP 706.
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        raise
