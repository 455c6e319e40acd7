"""The layers of the sandbox as operators are told of them: which are open, and what closes them."""

from collections.abc import Iterable, Mapping
from typing import Any

NAMESPACES = (
    "Run the worker where it may make namespaces: as root, or where unprivileged user namespaces are allowed; in a "
    "container with a seccomp profile that lets `unshare`, `clone` and `mount` through (docker-compose.yml says how)."
)
LANDLOCK = "Run it on Linux 5.13 or newer with `landlock` among its security modules (the kernel's parameter `lsm`)."
SYSTEM_CALLS = "Run it on x86-64 or 64-bit ARM, on a kernel with seccomp filters."
MEMORY_GROUP = (
    "Run the worker where it may make control groups: as a service of systemd with `Delegate=memory`, or in a "
    "container whose /sys/fs/cgroup is writable."
)
OTHERWISE = "See the worker's log, and whether a container or a security module forbids what the sandbox asks for."
REMEDIES = {
    "namespaces": NAMESPACES,
    "private_root": NAMESPACES,
    "signals": NAMESPACES,
    "landlock": LANDLOCK,
    "system_calls": SYSTEM_CALLS,
    "network": SYSTEM_CALLS,
    "filesystem": LANDLOCK,
    "secrets": LANDLOCK,
    "processes": NAMESPACES,
    "memory_group": MEMORY_GROUP,
}


def open_layers(held: Mapping[str, Any]) -> list[str]:
    """The layers that a real attempt to break out found open, by name."""
    return sorted(layer for layer, holds in held.items() if holds is not True)


def remedy(layers: Iterable[str]) -> str:
    """What closes these layers."""
    return " ".join(dict.fromkeys(REMEDIES.get(layer, OTHERWISE) for layer in layers))
