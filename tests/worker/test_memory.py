"""A runner is given no more memory than there is: beyond that the kernel would kill it, and an attempt be lost."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from worker.memory import affordable_bytes, control_group_limits, out_of_memory_kills, physical_bytes

MEBIBYTE = 1 << 20


@dataclass
class Group:
    """What `/proc/self/cgroup` says, the files below `/sys/fs/cgroup`, and the limits that follow."""

    id: str
    said: str
    files: dict[str, str] = field(default_factory=dict)
    limits: list[int] = field(default_factory=list)


GROUPS = [
    Group("v2", "0::/jobs/one\n", {"jobs/one/memory.max": "300\n"}, [300]),
    Group("v2-of-a-container", "0::/\n", {"memory.max": "300\n"}, [300]),
    Group("v2-without-a-limit", "0::/jobs\n", {"jobs/memory.max": "max\n"}),
    Group("v2-groups-around-it", "0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "200\n"}, [200]),
    Group("v1", "5:cpu:/\n4:memory:/jobs\n", {"memory/jobs/memory.limit_in_bytes": "300\n"}, [300]),
    Group("v1-beside-others", "4:cpu,memory:/\n0::/\n", {"memory/memory.limit_in_bytes": "300\n"}, [300]),
    Group("v1-by-the-path-of-the-host", "4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "300\n"}, [300]),
    Group("v1-of-something-else", "5:cpu:/jobs\n", {"memory/jobs/memory.limit_in_bytes": "300\n"}),
    Group("not-readable", "0::/jobs\n"),
    Group("not-a-number", "0::/jobs\n", {"jobs/memory.max": "\n"}),
]


def build(group: Group, root: Path) -> Path:
    files = {f"sys/fs/cgroup/{name}": content for name, content in group.files.items()}
    for name, content in (files | {"proc/self/cgroup": group.said}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.id)
def test_the_limits_of_a_control_group_are_found(group: Group, tmp_path: Path) -> None:
    assert list(control_group_limits(build(group, tmp_path))) == group.limits


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert list(control_group_limits(tmp_path)) == []


@pytest.mark.parametrize(
    ("wanted", "limit", "affordable"),
    [
        (256 * MEBIBYTE, "max", 256 * MEBIBYTE),
        (256 * MEBIBYTE, str(100 * MEBIBYTE), 100 * MEBIBYTE),
        (1 << 60, "max", physical_bytes()),
        (1 << 60, str(1 << 61), physical_bytes()),
    ],
    ids=["what-is-wanted", "what-the-group-allows", "what-there-is", "a-limit-beyond-what-there-is"],
)
def test_the_least_counts(wanted: int, limit: str, affordable: int, tmp_path: Path) -> None:
    root = build(Group("", "0::/\n", {"memory.max": limit}), tmp_path)
    assert affordable_bytes(wanted, root) == affordable


COUNTS = "oom 9\noom_kill 3\n"
VMSTAT = "nr_free_pages 1\noom_kill 8\n"
COUNTERS = [
    ("0::/jobs\n", {"sys/fs/cgroup/jobs/memory.events": COUNTS, "proc/vmstat": VMSTAT}, 3),
    ("4:memory:/jobs\n", {"sys/fs/cgroup/memory/jobs/memory.oom_control": COUNTS, "proc/vmstat": VMSTAT}, 3),
    ("0::/\n", {"proc/vmstat": VMSTAT}, 8),
    ("0::/\n", {}, 0),
]


@pytest.mark.parametrize(("said", "files", "kills"), COUNTERS, ids=["v2", "v1", "machine", "nobody-counts"])
def test_kills_are_counted_as_close_to_the_process_as_can_be(
    said: str, files: dict[str, str], kills: int, tmp_path: Path
) -> None:
    build(Group("", said), tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert out_of_memory_kills(tmp_path) == kills
