"""A model is given no more threads than there are cores: threads of ONNX Runtime that wait for one spin."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.config import Settings
from worker.cores import core_count, threads_for_models

HERE = len(os.sched_getaffinity(0))


@dataclass
class Group:
    """What `/proc/self/cgroup` says, the files below `/sys/fs/cgroup`, and the cores that follow."""

    id: str
    said: str
    files: dict[str, str] = field(default_factory=dict)
    cores: int = HERE


GROUPS = [
    Group("v2", "0::/jobs\n", {"jobs/cpu.max": "100000 100000\n"}, 1),
    Group("v2-less-than-a-core", "0::/jobs\n", {"jobs/cpu.max": "50000 100000\n"}, 1),
    Group("v2-without-a-limit", "0::/jobs\n", {"jobs/cpu.max": "max 100000\n"}),
    Group("v2-more-than-there-are", "0::/jobs\n", {"jobs/cpu.max": f"{HERE + 1}00000 100000\n"}),
    Group("v2-groups-around-it", "0::/a/b\n", {"a/cpu.max": "100000 100000\n"}, 1),
    Group("v1", "1:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "100000", "cpu/x/cpu.cfs_period_us": "100000"}, 1),
    Group("v1-without-a-limit", "1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
    Group("not-readable", "0::/jobs\n"),
    Group("not-a-number", "0::/jobs\n", {"jobs/cpu.max": "much\n"}),
]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.id)
def test_a_quota_below_the_machines_cores_counts(group: Group, tmp_path: Path) -> None:
    files = {f"sys/fs/cgroup/{name}": content for name, content in group.files.items()}
    for name, content in (files | {"proc/self/cgroup": group.said}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert core_count(tmp_path) == group.cores


@pytest.mark.parametrize(("setting", "threads"), [(0, core_count()), (3, 3)], ids=["every-core", "as-configured"])
def test_the_operator_may_set_the_number(settings: Settings, setting: int, threads: int) -> None:
    settings.runner.threads = setting
    assert threads_for_models(settings) == threads
