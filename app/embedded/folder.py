"""The data folder: everything an embedded service keeps, closed to everybody else (mode 0700)."""

import fcntl
import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from platformdirs import user_data_path

# unix(7) leaves 107 bytes for the path of a socket; the longest name that is put into the runtime folder.
LONGEST_SOCKET_PATH = 107
LONGEST_SOCKET_NAME = ".s.PGSQL.5432.lock"
URL_FILE = "url"


class EmbeddedError(RuntimeError):
    """The embedded service cannot start; says why, and what to do about it."""


class DataFolderInUse(EmbeddedError):
    """Another embedded service runs on the same data folder."""


def default_folder() -> Path:
    """`LATHE_DATA_FOLDER`; else /var/lib/lathe for root and the user's data folder for everybody else."""
    if given := os.environ.get("LATHE_DATA_FOLDER"):
        return Path(given).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/lathe")
    folder = user_data_path("lathe", appauthor=False)
    # An account without a home folder leaves `~` as it is.
    return folder if folder.is_absolute() else Path(tempfile.gettempdir(), f"lathe-{os.geteuid()}")


def holds_service(folder: Path) -> bool:
    """Whether an embedded service keeps its database there, running or not."""
    return (folder / "postgres" / "PG_VERSION").is_file()


def is_running(folder: Path) -> bool:
    """Whether an embedded service holds the folder now."""
    try:
        # Shared: two who ask at once do not take each other for a service.
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def running_url(folder: Path) -> str | None:
    """Where the embedded service answers that runs on the folder now; None where none does."""
    try:
        # Read first: where nothing runs there is no such file, and nobody who starts a service meets the lock held.
        url = (folder / URL_FILE).read_text(encoding="utf-8").strip()
    except OSError:  # none runs, or it is another user's
        return None
    return url if is_running(folder) else None


class DataFolder:
    """One data folder, held by one embedded service at a time.

    Raises DataFolderInUse, and EmbeddedError where the folder cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedError(
                f"the data folder {self.path} cannot be used: {error.strerror}; choose another with --data"
            ) from error
        self._take_lock()
        try:
            self._forget_url()  # that of a service which was killed
            self.logs = self.subfolder("logs")
            self.runtime = self._runtime_folder()
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "another process"
            os.close(self._lock)
            raise DataFolderInUse(
                f"the data folder {self.path} is in use by process {holder}; stop it, or choose another with --data"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def subfolder(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def secret_key(self) -> str:
        """The key that keys the hashes of API keys; made at the first start."""
        file = self.path / "secret_key"
        if not file.exists():
            self.write_secret("secret_key", secrets.token_hex(32))
        return file.read_text().strip()

    def record_url(self, url: str) -> None:
        """Where the service answers, until the folder is released, for the command line to find it."""
        self.write_secret(URL_FILE, url)

    def _forget_url(self) -> None:
        (self.path / URL_FILE).unlink(missing_ok=True)

    def write_secret(self, name: str, text: str) -> Path:
        """A file that its owner alone may read, whole or not at all."""
        draft = self.path / f"{name}.new"
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(f"{text}\n")
            out.flush()
            os.fsync(out.fileno())
        return draft.rename(self.path / name)

    def _runtime_folder(self) -> Path:
        """Where the sockets go: inside, unless the path would be too long for one."""
        inside = self.path / "run"
        if len(os.fsencode(inside / LONGEST_SOCKET_NAME)) > LONGEST_SOCKET_PATH:
            name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
            inside = Path("/tmp", f"lathe-{os.geteuid()}-{name}")  # noqa: S108 - short, and refused below if it is not ours
        inside.mkdir(mode=0o700, exist_ok=True)
        status = inside.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise EmbeddedError(f"{inside} belongs to somebody else or is open to others; remove it")
        return inside

    def release(self) -> None:
        self._forget_url()
        if not self.runtime.is_relative_to(self.path):
            for left in self.runtime.iterdir():
                left.unlink()
            self.runtime.rmdir()
        os.close(self._lock)
