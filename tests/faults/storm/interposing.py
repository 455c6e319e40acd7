"""Clock and fsync of one process, through a small library that every program of the service is started with.

It is compiled at the start (`interposer.c`), where there is a compiler.
"""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("interposer.c")
LAYOUT = struct.Struct("iiiii")


class Interposer:
    """The library, and the switches by which it is told whom to strike."""

    def __init__(self, folder: Path) -> None:
        self.missing = ""
        """Why there is none; empty where there is one."""
        self._library = folder / "interposer.so"
        self._switches = folder / "switches"
        compiler = shutil.which("cc")
        if compiler is None:
            self.missing = "there is no C compiler to make the library of"
            return
        self._switches.write_bytes(bytes(mmap.PAGESIZE))
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.missing = f"the library cannot be compiled: {done.stderr[-200:]}"

    @property
    def environment(self) -> dict[str, str]:
        """What loads it."""
        if self.missing:
            return {}
        return {"LD_PRELOAD": str(self._library), "LATHE_STORM_SWITCHES": str(self._switches)}

    def step_clock(self, pid: int, seconds: int) -> None:
        self._write(clock_pid=pid, clock_seconds=seconds)

    def fail_syncs(self, pid: int, other_pid: int = 0) -> None:
        self._write(sync_pids=(pid, other_pid))

    @property
    def failed(self) -> int:
        """How many syncs have failed since it was told to have them fail."""
        return int(LAYOUT.unpack(self._switches.read_bytes()[: LAYOUT.size])[-1])

    def relent(self) -> int:
        """All is as it was; how many syncs have failed."""
        failed = self.failed
        self._write()
        return failed

    def _write(self, clock_pid: int = 0, clock_seconds: int = 0, sync_pids: tuple[int, int] = (0, 0)) -> None:
        with self._switches.open("r+b") as file:
            file.write(LAYOUT.pack(clock_pid, clock_seconds, *sync_pids, 0))
