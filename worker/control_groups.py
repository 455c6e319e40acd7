"""The control groups of this process, which bound what a machine's own numbers promise.

Linux kernel documentation, admin-guide/cgroup-v2.rst and cgroup-v1.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Where limits of `controller` may be read: the folder of this process's group, and of the groups around it.

    `root` is the folder that holds `proc` and `sys`.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, controllers, group = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _around(mount, group)
        elif controller in controllers.split(","):
            yield from _around(mount / controller, group)


def _around(mount: Path, group: str) -> Iterator[Path]:
    # In a container the path may be the host's, and not be there: then the mount itself is the container's group.
    path = PurePosixPath(group.lstrip("/"))
    for folder in (path, *path.parents):
        yield mount / folder


def read(path: Path) -> str:
    """What a file says; nothing where it is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
