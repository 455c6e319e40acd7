"""Keeping libraries' temporary files in the scratch folder, and their chatter out of the runner's output."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet(scratch: Path) -> Iterator[None]:
    """ONNX Runtime's tools print, log and write into the shared temporary folder; here they do neither."""
    folder = scratch / "temporary"
    folder.mkdir(parents=True, exist_ok=True)
    previous_folder, previous_level = tempfile.tempdir, logging.root.manager.disable
    tempfile.tempdir = str(folder)
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        tempfile.tempdir = previous_folder
        logging.disable(previous_level)
