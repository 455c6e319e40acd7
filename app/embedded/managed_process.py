"""One long-running child process: its command, its log, how it is stopped."""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from app.processes import tied_command

LOG_TAIL_BYTES = 2000
POLL_SECONDS = 0.02


@dataclass(eq=False)
class ManagedProcess:
    """A child in a session of its own, that the kernel ends when the thread that started it ends."""

    name: str
    command: list[str]
    log: Path
    environment: dict[str, str]
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    """What it gets from the kernel when its supervisor is gone."""
    stop_seconds: float = 45.0
    """A worker first takes in what is on its way, for half a minute at most, and hands its job back."""
    user_id: int | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def prepare(self) -> None:
        """What has to be put right before each start."""

    def start(self) -> None:
        self.kill()
        self.prepare()
        command = tied_command(self.command, signal_number=self.death_signal, user_id=self.user_id)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env=self.environment,
                # Ctrl-C in a terminal goes to the supervisor alone, which then stops the others in order.
                start_new_session=True,
                umask=0o077,
            )

    @property
    def pid(self) -> int | None:
        process = self.process
        return None if process is None else process.pid

    def running(self) -> bool:
        return self.process is not None and not self._ended()

    def _ended(self) -> bool:
        """Whether it has ended; it is left unreaped, so that its number still names its group."""
        process = self.process
        if process is None or process.returncode is not None:
            return True
        try:
            return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True  # another thread, which starts it again, has reaped it meanwhile

    def stop(self) -> None:
        """Ask it to stop, wait, and kill what is left of its group."""
        if self.process is not None and not self._ended():
            self.process.send_signal(self.stop_signal)
            deadline = time.monotonic() + self.stop_seconds
            while not self._ended() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        if self.process is None:
            return
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def rotate_log(self) -> None:
        """Keep the log of the run before as `<name>.log.1`, and begin a new one."""
        if self.log.exists():
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))

    def last_words(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
