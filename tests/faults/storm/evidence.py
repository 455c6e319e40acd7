"""What is there once the storm is over: rows, files, processes, and what the clients remember."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from sqlalchemy import text

from app.blobs.mark import KEY as MARK_KEY
from app.database import Database
from tests.faults.storm.crossing import Tie, ties
from tests.faults.storm.installation import Installation
from tests.faults.storm.journal import Told
from tests.faults.storm.watching import Watch, frozen_rows

JOBS = text(
    "SELECT j.id, w.name AS workspace, j.kind, j.state, (j.request->>'seed')::bigint AS number, j.model_id, j.attempt,"
    " j.max_attempts, j.fence, j.error->>'code' AS code, j.cancel_requested_at"
    " FROM jobs j JOIN workspaces w ON w.id = j.workspace_id"
)
MODELS = text(
    "SELECT m.id, w.name AS workspace, encode(m.sha256, 'hex') AS sha256"
    " FROM models m JOIN workspaces w ON w.id = m.workspace_id"
)
EVENTS = text(
    "SELECT job_id, created_at, data->>'state' AS state, data->>'reason' AS reason, (data->>'attempt')::int AS attempt"
    " FROM job_events WHERE type = 'state' ORDER BY id"
)
SIGNS = text(
    "SELECT job_id, created_at FROM job_events WHERE type <> 'state' OR data->>'state' <> 'queued' ORDER BY id"
)
ARTIFACTS = text(
    "SELECT a.job_id, w.name AS workspace, a.kind, encode(a.sha256, 'hex') AS sha256,"
    " a.trial IS NOT NULL AS provisional, 'blobs/' || b.workspace_id || '/' || b.id AS key"
    " FROM artifacts a JOIN blobs b ON b.id = a.blob_id"
    " JOIN workspaces w ON w.id = a.workspace_id"
)
BLOBS = text(
    "SELECT 'blobs/' || b.workspace_id || '/' || b.id AS key, encode(b.sha256, 'hex') AS sha256, w.name AS workspace"
    " FROM blobs b JOIN workspaces w ON w.id = b.workspace_id"
)


@dataclass(frozen=True)
class JobFact:
    """A row of `jobs`."""

    id: UUID
    workspace: str
    kind: str
    state: str
    number: int | None
    """By which the load knows it; None of an inspection."""
    model_id: UUID | None
    attempt: int
    max_attempts: int
    fence: int
    code: str | None
    cancel_requested_at: datetime | None


@dataclass(frozen=True)
class ModelFact:
    """A row of `models`."""

    id: UUID
    workspace: str
    sha256: str


@dataclass(frozen=True)
class StateEvent:
    """A job came into a state."""

    created_at: datetime
    state: str
    reason: str | None = None
    attempt: int | None = None


@dataclass(frozen=True)
class ArtifactFact:
    """A row of `artifacts`, with the key of its bytes."""

    job_id: UUID
    workspace: str
    kind: str
    sha256: str
    provisional: bool
    key: str


@dataclass(frozen=True)
class BlobFact:
    """A row of `blobs`."""

    key: str
    sha256: str
    workspace: str


@dataclass(frozen=True)
class FileFact:
    """A file in storage; `marks` are the workspaces whose mark is in it."""

    sha256: str
    marks: frozenset[str]


@dataclass(frozen=True)
class Struck:
    """A fault as it happened; `skipped` where it did not, for there was nothing to strike or the machine is such."""

    number: int
    fault: str
    after_jobs: int
    at: datetime
    seconds: float
    """How long the fault itself lasted."""
    what: str
    skipped: bool = False
    impossible: bool = False
    """Whether it was the machine that did not allow it."""
    spends: bool = False
    """Whether it may cost the attempts that run while it lasts."""


@dataclass
class Evidence:
    """Everything that the checker judges by."""

    told: Told
    workspaces: tuple[str, ...]
    jobs: dict[UUID, JobFact] = field(default_factory=dict)
    events: dict[UUID, list[StateEvent]] = field(default_factory=lambda: defaultdict(list))
    signs: dict[UUID, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    """When each job gave a sign of life: events of any type, but for those that put it back into the queue."""
    models: dict[UUID, ModelFact] = field(default_factory=dict)
    ties: list[Tie] = field(default_factory=list)
    """Of the rows of every table, with the workspaces that they have to do with."""
    strikes: Sequence[Struck] = ()
    artifacts: list[ArtifactFact] = field(default_factory=list)
    blobs: list[BlobFact] = field(default_factory=list)
    files: dict[str, FileFact] = field(default_factory=dict)
    first_digests: dict[UUID, str] = field(default_factory=dict)
    """Of each row when it was first seen to be over."""
    last_digests: dict[UUID, str] = field(default_factory=dict)
    processes: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    """Files and folders in the work folder, and in the one for temporary files."""


def gather(
    installation: Installation, watch: Watch, told: Told, marks: dict[str, str], strikes: Sequence[Struck]
) -> Evidence:
    """`marks` are the words that only one workspace's files hold, by workspace."""
    found = Evidence(told, tuple(marks), strikes=strikes)
    _read_rows(installation.database, found)
    with installation.database.session_scope() as session:
        found.ties = ties(session, marks)
    found.first_digests = {job_id: one.digest for job_id, one in watch.frozen.items()}
    found.last_digests = {job_id: one.digest for job_id, one in frozen_rows(installation.database).items()}
    found.files = files_in(installation.storage_folder, marks)
    found.processes = [" ".join(process.cmdline())[-200:] for process in installation.runners()]
    found.left_over = [str(path) for path in installation.left_over()]
    return found


def files_in(folder: Path, marks: dict[str, str]) -> dict[str, FileFact]:
    """Every file below `folder` but the one that marks it, by its path."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path.name != MARK_KEY:
            content = path.read_bytes()
            inside = frozenset(workspace for workspace, mark in marks.items() if mark.encode() in content)
            found[path.relative_to(folder).as_posix()] = FileFact(hashlib.sha256(content).hexdigest(), inside)
    return found


def _read_rows(database: Database, found: Evidence) -> None:
    with database.session_scope() as session:
        found.jobs = {row.id: JobFact(**row._asdict()) for row in session.execute(JOBS)}
        found.models = {row.id: ModelFact(**row._asdict()) for row in session.execute(MODELS)}
        for job_id, *event in session.execute(EVENTS):
            found.events[job_id].append(StateEvent(*event))
        for job_id, at in session.execute(SIGNS):
            found.signs[job_id].append(at)
        found.artifacts = [ArtifactFact(**row._asdict()) for row in session.execute(ARTIFACTS)]
        found.blobs = [BlobFact(**row._asdict()) for row in session.execute(BLOBS)]
