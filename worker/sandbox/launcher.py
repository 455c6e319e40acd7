"""What `spawn` starts: three processes in a row, the last of which becomes the confined command.

    launcher   dies with the supervisor's thread; leaves the namespaces; waits, and ends as the command ended
    first      process 1 of the new process namespace: the kernel ends all others in it with this one.
               Without such a namespace it adopts orphans and ends them itself, outside the group that
               `kill_group` kills: the launcher's end is its sign
    command    gives up privileges, takes limits, Landlock and seccomp upon itself, and executes `argv`

The layers, outermost first: a control group's memory, namespaces (network, IPC, processes, mounts), a root folder of
its own, resource limits, no new privileges and no capabilities, Landlock, seccomp. Where the kernel or a container
refuses one, the others still hold, and `confinement` finds out what that leaves. PR_SET_DUMPABLE is left alone: an exec
sets it anew.

All of it runs on the standard library alone, in processes of one thread.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from app.processes import die_with_parent, prctl, set_capabilities
from worker.sandbox import landlock, namespaces, system_calls

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
COULD_NOT_CONFINE = 126
OPEN_FILES = 4096

SYSTEM_LIBRARIES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime",
                    "/etc/alternatives")  # fmt: skip
SYSTEM_FACTS = ("/proc", "/sys/devices/system", "/sys/fs/cgroup")
PLAIN_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
GPU_FACTS = ("/sys/bus/pci", "/sys/devices", "/sys/module", "/etc/OpenCL", "/etc/vulkan", "/opt/nvidia")


def main() -> None:
    """`worker.sandbox.launcher SPECIFICATION`, as `spawn` writes it."""
    specification = json.loads(sys.argv[3])
    die_with_parent(specification["supervisor"])
    if specification["group"] is not None:
        Path(specification["group"], "cgroup.procs").write_text(str(os.getpid()))
    # A request to stop goes to the whole group; these two wait until the command has answered it.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    isolated, own_users = namespaces.enter()
    report, status = os.pipe()
    first = os.fork()
    if first == 0:
        os.close(report)
        _supervise_inside(specification, status, isolated, own_users)
    os.close(status)
    _close(specification["event_fd"])
    answer = os.read(report, 16)
    os.waitpid(first, 0)
    _end_like(int(answer) if answer else signal.SIGKILL)


def _supervise_inside(specification: dict[str, Any], status: int, isolated: bool, own_users: bool) -> NoReturn:
    """Process 1: start the command, reap everything, report how the command ended, take the rest along."""
    code = COULD_NOT_CONFINE
    try:
        if isolated:
            die_with_parent(None)
        else:
            _adopt_orphans()
        _end_if_nobody_listens(status)
        _go_first()
        private_memory = isolated and _settle(specification)
        me, group = os.getpid(), os.getppid()
        command = os.fork()
        if command == 0:
            if not isolated:
                os.setpgid(0, group)
            _become(specification, me, own_users, private_memory)
        _close(specification["event_fd"])
        ended, wait_status = os.wait()
        while ended != command:
            ended, wait_status = os.wait()
        if not isolated:
            _end_adopted()
        os.write(status, str(wait_status).encode())
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _settle(specification: dict[str, Any]) -> bool:
    workdir = Path(specification["workdir"])
    rights = _reachable_files(specification, workdir, private_memory=False)
    readable = [path for path, allowed in rights.items() if allowed & landlock.READ_FILE and path != workdir]
    return namespaces.settle(specification["limits"]["processes"], readable, workdir)


def _become(specification: dict[str, Any], first: int, own_users: bool, private_memory: bool) -> NoReturn:
    try:
        workdir = Path(specification["workdir"])
        os.chdir(workdir)
        os.umask(0o077)
        _limit(specification["limits"], own_users)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        set_capabilities(0)
        die_with_parent(first)
        landlock.restrict(_reachable_files(specification, workdir, private_memory))
        system_calls.restrict()
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        os.execvp(specification["argv"][0], specification["argv"])  # noqa: S606 - our own command, and no shell is wanted
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(COULD_NOT_CONFINE)


def _limit(limits: dict[str, Any], own_users: bool) -> None:
    memory = resource.RLIMIT_AS if limits["address_space"] else resource.RLIMIT_DATA
    # Users are counted for each user namespace; outside one, everything else of this user's is counted as well.
    others = 0 if own_users else _tasks_of(os.getuid())
    wanted = {
        memory: limits["memory_bytes"],
        resource.RLIMIT_FSIZE: limits["file_bytes"],
        resource.RLIMIT_NPROC: others + limits["processes"],
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if limits["cpu_seconds"] is not None:
        wanted[resource.RLIMIT_CPU] = limits["cpu_seconds"]
    for kind, value in wanted.items():
        ceiling = resource.getrlimit(kind)[1]
        bound = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        # SIGXCPU at the bound lets the command say why; SIGKILL a second later is for one that will not.
        last = bound + 1 if kind == resource.RLIMIT_CPU and bound != ceiling else bound
        resource.setrlimit(kind, (bound, last))


def _go_first() -> None:
    """Where memory is short, of the machine or of a group, the kernel ends this one rather than what it works for."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _tasks_of(user: int) -> int:
    count = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == user:
                count += sum(1 for _ in Path(entry.path, "task").iterdir())
    return count


def _reachable_files(specification: dict[str, Any], workdir: Path, private_memory: bool) -> dict[Path, int]:
    allowed = {Path(path): landlock.READ for path in (*SYSTEM_LIBRARIES, *specification["libraries"])}
    allowed |= {Path(path): landlock.READ_FILE | landlock.READ_DIR for path in SYSTEM_FACTS}
    allowed |= {Path(path): landlock.DEVICE for path in PLAIN_DEVICES}
    # Python lists a folder before it imports a package from it.
    allowed.setdefault(Path(specification["project"]), landlock.READ_DIR)
    if not specification["limits"]["address_space"]:
        allowed |= {Path(path): landlock.READ_FILE | landlock.READ_DIR for path in GPU_FACTS}
        allowed |= dict.fromkeys(Path("/dev").glob("nvidia*"), landlock.DEVICE | landlock.READ_DIR)
    if private_memory:
        allowed[namespaces.SHARED_MEMORY] = landlock.WORK
    allowed[workdir] = landlock.WORK
    return allowed


def _end_if_nobody_listens(status: int) -> None:
    """End if the launcher died before this process tied itself to it: then the pipe has no reader."""
    poller = select.poll()
    poller.register(status, 0)
    if any(event & select.POLLERR for _, event in poller.poll(0)):
        os._exit(0)


def _adopt_orphans() -> None:
    def end_everything(number: int, frame: object) -> None:
        del number, frame
        _end_adopted()
        os._exit(0)

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, end_everything)
    die_with_parent(None, signal.SIGTERM)


def _end_adopted() -> None:
    """Kill every child and whatever they leave behind, until nothing is left."""
    while True:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _close(descriptor: int | None) -> None:
    """The reader of the events sees their end when the command has closed them, and nobody else holds them."""
    if descriptor is not None:
        os.close(descriptor)


def _end_like(wait_status: int) -> NoReturn:
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(wait_status))
