"""A supervisor, and what it is given to do."""

import io
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog

from app.config import Settings
from app.database import Database
from app.logs import configure_logs
from app.models.tables import ModelRow
from app.storage import Storage
from tests.worker import networks
from tests.worker.uploads import store_upload
from worker import supervisor as supervising
from worker.engine import profiling, turns
from worker.stop import Stop
from worker.supervisor import Supervisor


@pytest.fixture(autouse=True)
def _brief_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rounds as ever, each a fifth as long, and profiles of a tenth of the calls: medians of hundreds of calls
    of networks as small as these tell as much.
    """
    monkeypatch.setattr(turns, "ROUND_SECONDS", 0.05)
    monkeypatch.setattr(profiling, "MOST_CALLS", 20)


@pytest.fixture
def supervisor(settings: Settings, database: Database, tmp_path: Path) -> Supervisor:
    quick = settings.model_copy(
        update={
            "work_folder": tmp_path / "work",
            "jobs": settings.jobs.model_copy(
                update={"heartbeat_seconds": 0.2, "lease_seconds": 10.0, "backoff_seconds": 0.0, "max_attempts": 2}
            ),
        }
    )
    return Supervisor(quick, database, Storage(quick), Stop())


@pytest.fixture
def model(supervisor: Supervisor, database: Database, tmp_path: Path) -> UUID:
    content = networks.convnet().SerializeToString()
    return store_upload(database, supervisor.storage, ModelRow, content, tmp_path, name="convnet")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the worker's log gets, as it would be written."""
    written = io.StringIO()
    configure_logs(as_json=True)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written))
    yield written
    structlog.reset_defaults()


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts a program of the test's in the runner's place, as a hostile model might."""

    def replace(program: str) -> None:
        script = "import os, sys, time, json, pathlib\nfolder = pathlib.Path(sys.argv[1])\n" + textwrap.dedent(program)
        monkeypatch.setattr(supervising, "RUNNER", (sys.executable, "-P", "-c", script))

    return replace


@pytest.fixture
def inner(settings: Settings) -> Settings:
    """Settings under which this machine may be a receiver."""
    own = {"allow_private": True, "allow_http": True, "backoff_seconds": 0.0, "timeout_seconds": 5.0}
    return settings.model_copy(update={"webhooks": settings.webhooks.model_copy(update=own)})
