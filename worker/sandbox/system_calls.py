"""A seccomp filter (seccomp(2)): the system calls that nothing which reads a model has a use for.

No socket can be opened, of any family: this is what keeps a child from the network where a container forbids it a
network namespace of its own, and from Unix sockets, which no namespace cuts off. No file's mode, owner, times or
attributes can be changed: Landlock leaves that to whoever owns it, of files that were only to be read as well. Nothing
can be left behind in the kernel (System V objects, message queues, keys), and no other process be given limits or a
priority.
"""

import ctypes
import errno
import platform
import struct

from app.processes import prctl

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_OFFSET, ARCHITECTURE_OFFSET, FIRST_ARGUMENT_OFFSET = 0, 4, 16

# The upper half of x86-64's numbers is a second way (x32) to every call.
SECOND_NUMBERING = 0x40000000
CLONE_NEW_ANYTHING = 0x7E020000
CLONE3 = 435

# Numbers that the architectures share.
COMMON = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
          "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_getfd": 438, "mount_setattr": 442,
          "fchmodat2": 452, "setxattrat": 463, "removexattrat": 466, "open_tree_attr": 467,
          "file_setattr": 469}  # fmt: skip
# audit architecture, clone(2), prlimit64(2), refused calls
ARCHITECTURES: dict[str, tuple[int, int, int, dict[str, int]]] = {
    "x86_64": (0xC000003E, 56, 302, {
        "socket": 41, "ptrace": 101, "pivot_root": 155, "mount": 165, "umount2": 166, "init_module": 175,
        "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298,
        "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "finit_module": 313, "bpf": 321, "userfaultfd": 323,
        "chmod": 90, "fchmod": 91, "fchmodat": 268, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
        "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280, "setxattr": 188, "lsetxattr": 189,
        "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
        "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "syslog": 103,
        "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setattr": 314, "ioprio_set": 251,
    }),
    "aarch64": (0xC00000B7, 220, 261, {
        "socket": 198, "ptrace": 117, "pivot_root": 41, "mount": 40, "umount2": 39, "init_module": 105,
        "kexec_load": 104, "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97, "perf_event_open": 241,
        "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270, "process_vm_writev": 271,
        "finit_module": 273, "bpf": 280, "userfaultfd": 282,
        "fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54, "utimensat": 88, "setxattr": 5, "lsetxattr": 6,
        "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15, "fremovexattr": 16,
        "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "syslog": 116,
        "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setattr": 274, "ioprio_set": 30,
    }),
}  # fmt: skip


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict() -> bool:
    """Refuse those calls to this thread for good, with EPERM. Needs PR_SET_NO_NEW_PRIVS.

    Returns whether this machine's architecture is known here. Raises OSError where the kernel has no seccomp.
    """
    if platform.machine() not in ARCHITECTURES:
        return False
    instructions = _program(*ARCHITECTURES[platform.machine()])
    program = Program(len(instructions) // 8, instructions)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))
    return True


def number_of(name: str) -> int | None:
    """The number of a call that is refused; None where this machine's architecture is not known here."""
    if platform.machine() not in ARCHITECTURES:
        return None
    return (COMMON | ARCHITECTURES[platform.machine()][-1])[name]


def _program(architecture: int, clone: int, prlimit: int, refused: dict[str, int]) -> bytes:
    """The filter in the kernel's classic BPF: jumps count instructions to skip, when true and when false."""
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    steps = [
        (LOAD, 0, 0, ARCHITECTURE_OFFSET),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_OFFSET),
        (AT_LEAST, 0, 1, SECOND_NUMBERING),
        refuse,
    ]
    for number in (*COMMON.values(), *refused.values()):
        steps += [(EQUAL, 0, 1, number), refuse]
    steps += [
        # Its flags lie in memory, out of a filter's sight; the C library falls back to clone.
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
        # Limits of its own it may lower.
        (EQUAL, 0, 4, prlimit),
        (LOAD, 0, 0, FIRST_ARGUMENT_OFFSET),
        (EQUAL, 1, 0, 0),
        refuse,
        (RETURN, 0, 0, ALLOW),
        (EQUAL, 0, 3, clone),
        (LOAD, 0, 0, FIRST_ARGUMENT_OFFSET),
        (ANY_BIT, 0, 1, CLONE_NEW_ANYTHING),
        refuse,
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
