"""How many threads a model may have: threads of ONNX Runtime spin, and more of them than cores starve each other."""

import os
from collections.abc import Iterator
from pathlib import Path

from app.config import Settings
from worker import control_groups


def threads_for_models(settings: Settings) -> int:
    """What a model gets that asks for no number, and the most that one may ask for."""
    return settings.runner.threads or core_count()


def core_count(root: Path = Path("/")) -> int:
    """Cores that this process may use: its affinity, or the whole cores of its control group's quota if fewer.

    `root` is the folder that holds `proc` and `sys`.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *(int(share) for share in quotas(root))]))


def quotas(root: Path = Path("/")) -> Iterator[float]:
    """Every bound on the processor time of this process, as a number of cores."""
    for folder in control_groups.folders("cpu", root):
        quota, _, period = control_groups.read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = (control_groups.read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # not `max`, not `-1`
            yield int(quota) / int(period)
