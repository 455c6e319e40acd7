"""Probes that start at once: forked from a process which has loaded their libraries and done nothing else.

Loading them takes as long as many a measurement. What a probe measures is its own all the same: when it is forked no
session, no thread and no data of a model has ever been in that process.
"""

import atexit
import gc
import importlib
import json
import os
import selectors
import struct
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn, cast

from app.processes import die_with_parent

# What they import, and what they do not share.
LOADED = tuple(f"worker.engine.evaluation.{name}" for name in ("comparison", "kernels", "latency"))
# As it passes through the pipe.
STATUS = struct.Struct("q")
# Of a probe whose nursery died: nobody knows how it ended.
UNKNOWN_STATUS = 1


class Nursery:
    """The parent's side. It starts one probe at a time, and dies with the thread that made it."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-P", "-m", "worker.engine.evaluation.nursery", str(os.getpid())]
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by an absolute interpreter
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment
        )
        self._orders = cast("IO[bytes]", self._process.stdin)
        self._statuses = cast("IO[bytes]", self._process.stdout)

    def start(self, module: str, arguments: list[str], folder: Path, output: Path) -> "ForkedProbe":
        """`main()` of a module, told `arguments` as a command would be, with all that it prints added to `output`.

        Raises:
            OSError: the nursery is dead.

        """
        asked = {"module": module, "arguments": arguments, "folder": str(folder), "output": str(output)}
        try:
            self._orders.write(json.dumps(asked).encode() + b"\n")
        except BaseException:
            self.close()  # one that was killed counts as alive until somebody has waited for it
            raise
        return ForkedProbe(self)

    def read(self, timeout: float | None) -> int:
        """The exit status of the probe that it started.

        Raises:
            OSError: the nursery is dead.
            subprocess.TimeoutExpired: nothing came.

        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._statuses, selectors.EVENT_READ)
            if not selector.select(timeout):
                raise subprocess.TimeoutExpired(self._process.args, timeout or 0.0)
        sent = self._statuses.read(STATUS.size)
        if not sent:
            raise BrokenPipeError("the process that starts probes ended")
        (status,) = STATUS.unpack(sent)
        return int(status)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        """End it, and the probe that it may have."""
        self._process.kill()
        with self._process:
            pass


class ForkedProbe:
    """One probe that runs, as `subprocess.Popen` would have it."""

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, negative where a signal ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.

        """
        if not self._nursery.alive():
            return UNKNOWN_STATUS
        try:
            return self._nursery.read(timeout)
        except OSError:
            self._nursery.close()
            return UNKNOWN_STATUS

    def kill(self) -> None:
        """End it, and its nursery: whoever was interrupted may have lost its status on the way."""
        self._nursery.close()


_NURSERIES: list[Nursery] = []


def the_nursery(environment: dict[str, str]) -> Nursery:
    """That of this process, one that lives; `environment` is for a new one."""
    if _NURSERIES and not _NURSERIES[-1].alive():
        close_nursery()
    if not _NURSERIES:
        _NURSERIES.append(Nursery(environment))
    return _NURSERIES[-1]


@atexit.register
def close_nursery() -> None:
    """End it, where there is one, with the probe that it may have.

    What its probes took is counted as that of this process's children from then on, not before.
    """
    while _NURSERIES:
        _NURSERIES.pop().close()


def main() -> None:
    """`worker.engine.evaluation.nursery PARENT`: fork a probe for each line read, until there are no more."""
    die_with_parent(int(sys.argv[1]))
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()  # pages that are not written to stay shared
    here = str(os.getpid())
    for line in sys.stdin.buffer:
        pid = os.fork()
        if not pid:
            _be_probe(parent=here, **json.loads(line))
        _, status = os.waitpid(pid, 0)
        os.write(sys.stdout.fileno(), STATUS.pack(os.waitstatus_to_exitcode(status)))


def _be_probe(parent: str, module: str, arguments: list[str], folder: str, output: str) -> NoReturn:
    status = 1
    try:
        os.chdir(folder)
        for path, flags, numbers in ((os.devnull, os.O_RDONLY, (0,)), (output, os.O_WRONLY | os.O_APPEND, (1, 2))):
            opened = os.open(path, flags, 0o600)
            for number in numbers:
                os.dup2(opened, number)
        sys.argv = [module, *arguments, parent]
        importlib.import_module(module).main()
        status = 0
    except BaseException:
        with suppress(OSError):  # the disk that the output is on may be full
            traceback.print_exc()
    finally:
        for printed in (sys.stdout, sys.stderr):
            with suppress(OSError):
                printed.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
