"""How much memory there is for a runner: a limit above it never bites, and the kernel kills in its stead.

Linux kernel documentation, admin-guide/cgroup-v2.rst (`memory.max`, `memory.events`) and cgroup-v1/memory.rst
(`memory.limit_in_bytes`, `memory.oom_control`).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from worker import control_groups

# Of version 2 and of version 1; a group has the one or the other.
LIMIT_FILES = ("memory.max", "memory.limit_in_bytes")
EVENT_FILES = ("memory.events", "memory.oom_control")


def affordable_bytes(wanted: int, root: Path = Path("/")) -> int:
    """`wanted`, or what the machine has or the control group of this process allows, where that is less.

    `root` is the folder that holds `proc` and `sys`.
    """
    return min([wanted, physical_bytes(), *control_group_limits(root)])


def physical_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def out_of_memory_kills(root: Path = Path("/")) -> int:
    """How often the kernel ended a process for lack of memory: in the group of this one, or else on the machine."""
    groups = (kills_in(folder) for folder in control_groups.folders("memory", root))
    counted = next((kills for kills in groups if kills is not None), _kills_told_by(root / "proc/vmstat"))
    return counted or 0


def kills_in(group: Path) -> int | None:
    """How often the kernel ended a process of this control group for lack of memory; None where it does not count."""
    told = (_kills_told_by(group / name) for name in EVENT_FILES)
    return next((kills for kills in told if kills is not None), None)


def _kills_told_by(path: Path) -> int | None:
    lines = (line.partition(" ") for line in control_groups.read(path).splitlines())
    return next((int(count) for name, _, count in lines if name == "oom_kill"), None)


def control_group_limits(root: Path = Path("/")) -> Iterator[int]:
    """Every limit in bytes on the memory of this process: its group's, and those of the groups around it."""
    for folder in control_groups.folders("memory", root):
        for name in LIMIT_FILES:
            text = control_groups.read(folder / name)
            if text.isdecimal():  # not `max`
                yield int(text)
