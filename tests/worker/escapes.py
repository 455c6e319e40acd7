"""Ways out of the sandbox, each tried for real by a process within, and what became of it.

A way is Python source that raises where it is barred and ends where it leads out. In it `call(number, ...)` is a system
call, x86-64's, that raises what the kernel answers.
"""

import errno
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.processes import PROJECT_FOLDER
from worker.sandbox import Limits, landlock, system_calls

LIMITS = Limits(memory_bytes=1 << 30, file_bytes=1 << 20, processes=32, cpu_seconds=60)
SECRET = "hunter2"
PATIENCE_SECONDS = 60

FILES = {
    "read": "open(outside + '/secret').read()",
    "read-shadow": "open('/etc/shadow').read()",
    "read-users": "open('/etc/passwd').read()",
    "list": "os.listdir(outside)",
    "list-root": "os.listdir('/')",
    "make": "open(outside + '/made', 'w')",
    "append": "open(outside + '/secret', 'a').write('x')",
    "truncate": "os.truncate(outside + '/secret', 0)",
    "remove": "os.unlink(outside + '/secret')",
    "rename-out": "open('mine', 'w').close(); os.rename('mine', outside + '/made')",
    "rename-in": "os.rename(outside + '/secret', 'taken')",
    "hard-link-in": "os.link(outside + '/secret', 'linked'); open('linked').read()",
    "hard-link-out": "open('mine2', 'w').close(); os.link('mine2', outside + '/made')",
    "symbolic-link-read": "os.symlink(outside + '/secret', 'link'); open('link').read()",
    "symbolic-link-write": "os.symlink(outside + '/made', 'link2'); open('link2', 'w')",
    "symbolic-link-out": "os.symlink('/etc', outside + '/made')",
    "folder": "os.mkdir(outside + '/made')",
    "pipe": "os.mkfifo(outside + '/made')",
    "device": "os.mknod('device', stat.S_IFCHR | 0o600, os.makedev(1, 1))",
    "through-the-working-folder": "open('../outside/secret').read()",
    "through-process-1": "open('/proc/1/root' + outside + '/secret').read()",
    "through-the-supervisor": "open(f'/proc/{supervisor}/root' + outside + '/secret').read()",
    "mode": "os.chmod(outside + '/secret', 0o777)",
    "mode-of-a-library": "os.chmod(os.__file__, 0o777)",
    "mode-of-what-is-open": "os.fchmod(os.open(os.__file__, os.O_RDONLY), 0o777)",
    "owner": "os.chown(outside + '/secret', 12345, 12345)",
    "times": "os.utime(outside + '/secret', (1, 1))",
    "times-of-a-library": "os.utime(os.__file__, (1, 1))",
    "attributes": "os.setxattr(outside + '/secret', 'user.x', b'1')",
    "write-library": "open(os.__file__, 'ab')",
    "write-own-code": "open(project + '/worker/made.py', 'w')",
    "core-pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/true')",
    "kernel-trigger": "open('/proc/sysrq-trigger', 'w').write('h')",
    "control-group": "open(glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True)[0], 'w').write('0')",
    "kernel-memory": "open('/dev/mem', 'rb').read(1)",
    "kernel-log": "open('/dev/kmsg').read(1)",
    "change-root": "os.chroot('/')",
    "handle": "call(304, -100, 0, 0)",
}
NETWORK = {
    "tcp": "socket.create_connection(('127.0.0.1', port), 2)",
    "tcp-6": "socket.create_connection(('::1', port), 2)",
    "tcp-listen": "socket.create_server(('127.0.0.1', 0))",
    "udp": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "unix": "socket.socket(socket.AF_UNIX).connect(outside + '/socket')",
    "unix-abstract": "socket.socket(socket.AF_UNIX).connect(abstract)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "host": "socket.socket(socket.AF_VSOCK).connect((2, 1))",
    "names": "socket.getaddrinfo('localhost', port)",
}
PROCESSES = {
    "kill": "os.kill(victim, signal.SIGKILL)",
    "kill-supervisor": "os.kill(supervisor, 0)",
    "kill-group": "os.killpg(victim, signal.SIGKILL)",
    "trace": "call(101, 16, victim, 0, 0)",
    "read-memory": "call(310, victim, 0, 0, 0, 0, 0)",
    "write-memory": "call(311, victim, 0, 0, 0, 0, 0)",
    "memory-file": "open(f'/proc/{victim}/mem', 'rb').read(1)",
    "maps": "open(f'/proc/{victim}/maps').read()",
    "environment-of-supervisor": "open(f'/proc/{supervisor}/environ').read()",
    "environment-of-process-1": "assert secret in open('/proc/1/environ').read()",
    "environment-of-its-own": "assert secret in open('/proc/self/environ').read()",
    "command-lines": "assert any(str(p) == str(victim) for p in os.listdir('/proc')) and os.kill(victim, 0) is None",
    "descriptors-of-supervisor": "os.readlink(f'/proc/{supervisor}/fd/0')",
    "descriptors-taken": "call(438, call(434, victim, 0), 1, 0)",
    "descriptors-inherited": "assert [fd for fd in range(3, 4096) if os.path.exists(f'/proc/self/fd/{fd}')]",
    "limits": "resource.prlimit(victim, resource.RLIMIT_NOFILE, (5, 5))",
    "priority": "os.setpriority(os.PRIO_PROCESS, victim, 19)",
    "scheduling": "os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))",
    "spared-by-the-kernel": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
}
KERNEL = {
    "mount": "call(165, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "unmount": "call(166, b'/proc', 2)",
    "mount-new": "call(430, b'tmpfs', 0)",
    "mount-tree": "call(428, -100, b'/', 1)",
    "mount-attributes": "call(442, -100, b'/', 0, 0, 0)",
    "pivot": "call(155, b'.', b'.')",
    "users": "call(272, 0x10000000)",
    "users-by-clone": "call(56, 0x10000000 | 17, 0, 0, 0, 0) or os._exit(0)",
    "users-by-clone3": "call(435, 0, 0)",
    "namespaces": "call(272, 0x40000000)",
    "enter-namespace": "call(308, os.open('/proc/1/ns/net', os.O_RDONLY), 0)",
    "keys": "call(250, 0, -3, 1)",
    "keys-added": "call(248, b'user', b'x', b'y', 1, -3)",
    "bpf": "call(321, 0, 0, 0)",
    "io-uring": "call(425, 1, ctypes.create_string_buffer(120))",
    "performance": "call(298, ctypes.create_string_buffer(120), 0, -1, -1, 0)",
    "page-faults": "call(323, 1)",
    "module": "call(175, 0, 0, b'')",
    "kernel": "call(246, 0, 0, 0, 0)",
    "log": "call(103, 3, ctypes.create_string_buffer(64), 64)",
    "restart": "call(169, 0xfee1dead, 672274793, 0, 0)",
    "swap": "call(167, b'large', 0)",
    "host-name": "socket.sethostname('x')",
    "clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "ports": "call(172, 3)",
    "another-user": "os.setresuid(12345, 12345, 12345)",
    "groups": "os.setgroups([])",
    "capabilities": "call(126, struct.pack('=Ii', 0x20080522, 0), struct.pack('=6I', *[0xffffffff] * 6))",
    "shared-memory": "call(29, 4711, 4096, 0o1600)",
    "messages": "call(68, 4711, 0o1600)",
    "second-numbering": "call(0x40000000 | 41, 1, 1, 0)",
    # mov eax, 359 (socket of 32 bits); mov ebx, 1; mov ecx, 1; xor edx, edx; int 0x80; ret
    "another-architecture": """
code = bytes.fromhex('b867010000bb01000000b90100000031d2cd80c3')
page = mmap.mmap(-1, 4096, prot=7)
page.write(code)
run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
if run() < 0: raise OSError
""",
}
BOUNDS = {
    "memory": "bytearray(2 << 30)",
    "file": "os.truncate(os.open('large', os.O_CREAT | os.O_RDWR), 2 << 20)",
    "forks": "[os.fork() or signal.pause() for _ in range(400)]",
    "threads": "[threading.Thread(target=time.sleep, args=(5,), daemon=True).start() for _ in range(400)]",
    "descriptors": "[os.dup(1) for _ in range(5000)]",
    "more-memory": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "more-processes": "resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1))",
    "larger-files": "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))",
    "cores": "resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))",
    "more-time": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
}
WAYS = {
    f"{group}: {name}": source
    for group, ways in {
        "files": FILES,
        "network": NETWORK,
        "processes": PROCESSES,
        "kernel": KERNEL,
        "bounds": BOUNDS,
    }.items()
    for name, source in ways.items()
}
OF_X86 = {name for name, source in WAYS.items() if "call(" in source}

TRY_ALL = """
import ctypes, glob, json, mmap, os, resource, signal, socket, stat, struct, sys, threading, time
names = json.load(open("names.json"))
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    given = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer = libc.syscall(ctypes.c_long(number), *given)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer

def fork():
    # What the attempt before had started takes a moment to go, and counts until then.
    while True:
        try:
            return os.fork()
        except BlockingIOError:
            time.sleep(0.01)

names["call"] = call
names |= {module: sys.modules[module] for module in sys.modules}
outcomes = {}
said = mmap.mmap(-1, 4096)  # shared with children, and no descriptor
for name, source in json.load(open("ways.json")).items():
    said[:] = bytes(4096)
    child = fork()
    if child == 0:
        os.setpgid(0, 0)
        outcome = "led out"
        try:
            exec(source, dict(names))
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        said.write(outcome.encode()[:4096])
        os.killpg(0, 9)  # what it started goes with it
    os.waitpid(child, 0)
    outcomes[name] = said[:].rstrip(bytes(1)).decode() or "killed"
json.dump(outcomes, open("outcomes.json", "w"))
"""

# Started where it may make namespaces or where it may not.
SPAWN = """
import json, sys
from pathlib import Path
from worker.sandbox import Limits, kill_group, spawn
workdir, log = Path(sys.argv[1]), open(sys.argv[2], "wb")
limits = Limits(**json.loads(sys.argv[3]))
process = spawn([sys.executable, "-c", sys.argv[4]], workdir=workdir, limits=limits, event_fd=None, env={}, stderr=log)
try:
    process.wait(60)
finally:
    kill_group(process)
sys.exit(process.returncode != 0)
"""
# namespaces(7): how many there may be is bound for each user namespace on its own, and zero can be written within one.
REFUSE_NAMESPACES = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$0" "$@"'
WITHOUT_NAMESPACES = ("unshare", "--user", "--map-root-user", "sh", "-c", REFUSE_NAMESPACES)
# An answer in the kernel's place to one call with one first argument: as of a kernel that lacks a layer (an error), or
# of one that claims to have put it on (0). The rest of the command is started behind it.
ANSWER = """
import ctypes, os, struct, sys
from app.processes import prctl
from worker.sandbox.system_calls import *
number, first, answer = map(int, sys.argv[1:4])
steps = [(LOAD, 0, 0, NUMBER_OFFSET), (EQUAL, 0, 3, number), (LOAD, 0, 0, FIRST_ARGUMENT_OFFSET), (EQUAL, 0, 1, first),
         (RETURN, 0, 0, REFUSE | answer), (RETURN, 0, 0, ALLOW)]
program = Program(len(steps), b"".join(struct.pack("=HBBI", *step) for step in steps))
prctl(38, 1)  # no new privileges
prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))
os.execvp(sys.argv[4], sys.argv[4:])
"""
PRCTL = {"x86_64": 157, "aarch64": 167}


def _answering(number: int, first: int, answer: int) -> tuple[str, ...]:
    return (sys.executable, "-c", ANSWER, str(number), str(first), str(answer))


WITHOUT_LANDLOCK = _answering(landlock.CREATE_RULESET, 0, errno.ENOSYS)
WITHOUT_SYSTEM_CALLS = _answering(PRCTL.get(platform.machine(), 0), system_calls.PR_SET_SECCOMP, 0)

# What nothing else bars. Bounds on what root holds are set by namespaces alone.
ONLY_BY_NAMESPACES = frozenset({"bounds: forks", "bounds: threads"})
# The root that is listed is the sandbox's own.
ONLY_BY_LANDLOCK = frozenset({"files: list-root"})
# These reach the sandbox's own namespaces, or what the kernel gives to everybody; and no byte of another's memory,
# which it grants before it looks whose.
ONLY_BY_SYSTEM_CALLS = frozenset(
    {"network: netlink", "processes: read-memory", "processes: write-memory"}
    | {f"kernel: {name}" for name in ("users", "users-by-clone", "keys", "keys-added", "io-uring", "performance")}
    | {f"kernel: {name}" for name in ("page-faults", "log", "shared-memory", "messages", "another-architecture")}
)


def namespaces_can_be_refused() -> bool:
    """Whether a command can be run here so that it gets no namespaces."""
    return subprocess.run([*WITHOUT_NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True)
class Attempted:
    """What became of each way, by name, and what was found changed outside."""

    outcomes: dict[str, str]
    damage: list[str]


def attempt(folder: Path, prefix: tuple[str, ...] = ()) -> Attempted:
    """Try every way from within a sandbox, started by `prefix` (`WITHOUT_...`); `folder` is empty."""
    workdir, outside = folder / "work", folder / "outside"
    workdir.mkdir()
    outside.mkdir()
    secret = outside / "secret"
    secret.write_text(SECRET)
    library = Path(os.__file__)
    before, kept = [_facts(path) for path in (secret, library)], library.stat()
    with _surroundings(outside) as names:
        (workdir / "names.json").write_text(json.dumps(names))
        ways = {name: way for name, way in WAYS.items() if platform.machine() == "x86_64" or name not in OF_X86}
        (workdir / "ways.json").write_text(json.dumps(ways))
        limits = json.dumps(vars(LIMITS))
        command = [*prefix, sys.executable, "-c", SPAWN, str(workdir), str(folder / "log"), limits, TRY_ALL]
        environment = {**os.environ, "LATHE_TEST_SECRET": SECRET, "PYTHONPATH": str(PROJECT_FOLDER)}
        done = subprocess.run(command, env=environment, check=False, timeout=PATIENCE_SECONDS)
        printed = (folder / "log").read_text()
        if done.returncode != 0:
            raise RuntimeError(f"the ways could not be tried: {printed}")
        damage = [] if _lives(int(str(names["victim"]))) else ["the victim was killed"]
    if secret.read_text() != SECRET or [_facts(path) for path in (secret, library)] != before:
        damage.append("a file outside was changed")
    if _facts(library) != before[1]:  # whoever tests this goes on with it
        library.chmod(kept.st_mode)
        os.utime(library, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    if sorted(path.name for path in outside.iterdir()) != ["secret", "socket"]:
        damage.append("a file outside was made or removed")
    return Attempted(json.loads((workdir / "outcomes.json").read_text()), damage)


@contextmanager
def _surroundings(outside: Path) -> Iterator[dict[str, object]]:
    """What there is to reach outside: sockets of each kind, and a process that nobody would miss."""
    abstract = f"\0lathe-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as nameless,
        subprocess.Popen(["sleep", "600"]) as victim,
    ):
        unix.bind(str(outside / "socket"))
        nameless.bind(abstract)
        unix.listen()
        nameless.listen()
        try:
            yield {
                "outside": str(outside),
                "port": tcp.getsockname()[1],
                "abstract": abstract,
                "victim": victim.pid,
                "supervisor": os.getpid(),
                "secret": SECRET,
                "project": str(PROJECT_FOLDER),
            }
        finally:
            victim.kill()


def _facts(path: Path) -> tuple[float, ...]:
    found = path.stat()
    return found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_size, found.st_mtime


def _lives(process: int) -> bool:
    return " Z " not in Path(f"/proc/{process}/stat").read_text()
