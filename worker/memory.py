"""How much memory there is for a runner: a limit above it never bites, and the kernel kills in its stead.

Control groups: Linux kernel documentation, admin-guide/cgroup-v2.rst (`memory.max`) and cgroup-v1/memory.rst
(`memory.limit_in_bytes`).
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def affordable_bytes(wanted: int, root: Path = Path("/")) -> int:
    """`wanted`, or what the machine has or the control group of this process allows, where that is less.

    `root` is the folder that holds `proc` and `sys`.
    """
    return min([wanted, physical_bytes(), *control_group_limits(root)])


def physical_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def control_group_limits(root: Path = Path("/")) -> Iterator[int]:
    """Every limit in bytes on the memory of this process: its group's, and those of the groups around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _limits(mount, group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits(mount / "memory", group, "memory.limit_in_bytes")


def _limits(mount: Path, group: str, name: str) -> Iterator[int]:
    # In a container the path may be the host's, and not be there: then the mount itself is the container's group.
    path = PurePosixPath(group.lstrip("/"))
    for folder in (path, *path.parents):
        try:
            text = (mount / folder / name).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # not `max`
            yield int(text)
