"""Data files beside a model that become another thing between the check and the use, as if a process raced with us."""

from pathlib import Path

from app.jobs.states import JobKind
from tests.worker.runner.hostile.archives import pack, plain
from tests.worker.runner.hostile.case import TAR
from tests.worker.runner.hostile.confined import CANARY, Outcome, Upload, inspect_all
from tests.worker.runner.hostile.models import external

DATA_BYTES = 1024
# What takes the place of the file; each leads to the canary's bytes if nothing stops it.
SWAPS = {
    "symbolic link": "os.symlink(canary, path)",
    "hard link": "os.link(canary, path)",
    "link to another folder": "os.symlink(os.path.dirname(canary), path)",
    "link through /proc": "os.symlink('/proc/1/root' + canary, path)",
    "renamed": "os.rename(canary, path)",
}
SWAP = """
import contextlib, os
from worker.engine.inspection import tensors
check, canary = tensors.check_tensors, {canary!r}

def check_and_swap(model, folder):
    check(model, folder)
    path = str(folder / "w.bin")
    os.unlink(path)
    with contextlib.suppress(OSError):
        {swap}

tensors.check_tensors = check_and_swap
"""


def inspect_swapped(name: str, folder: Path) -> Outcome:
    """What a runner makes of a model whose data are swapped so; its work folder is `folder`, a canary lies beside."""
    model = external("w.bin")().SerializeToString()
    content = pack(plain("model.onnx", model), plain("w.bin", bytes(DATA_BYTES)))
    upload = Upload(JobKind.INSPECT_MODEL, TAR, lambda path: path.write_bytes(content))
    source = SWAP.format(canary=str(folder.parent / CANARY), swap=SWAPS[name])
    (outcome,) = inspect_all([upload], folder, source)
    return outcome
