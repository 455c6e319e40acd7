"""The best that a search has found so far: kept while the job runs, believed only as what it is, and never lost."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.artifacts.tables import ArtifactRow
from app.blobs.collection import PREFIX
from app.blobs.tables import BlobRow, storage_key
from app.config import Settings
from app.database import Database
from app.jobs import lease
from app.jobs.lease import Claim
from app.jobs.report import TrialReport
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobEventRow
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job
from worker.provisional import MAX_NOMINATIONS, Nominations
from worker.publishing import publish, store_outputs
from worker.runner.contract import BEST_FOLDER, Best, OutputFile, RunnerResult


def best(number: int, gain: float) -> Best:
    trial = TrialReport(
        name=f"candidate {number}", recipe=["quantize_static"], outcome="tried", explanation="", seconds=1
    )
    return Best(file=f"{number}.onnx", file_name=f"net-{number}.onnx", media_type="x", gain=gain, trial=trial)


@dataclass
class Search:
    """One attempt at a job that searches, from both sides."""

    database: Database
    storage: Storage
    claim: Claim
    folder: Path
    nominations: Nominations = field(init=False)

    def __post_init__(self) -> None:
        (self.folder / BEST_FOLDER).mkdir(parents=True)
        self.nominations = Nominations(self.database, self.storage, self.claim, self.folder)

    def left(self, number: int) -> Path:
        return self.folder / BEST_FOLDER / f"{number}.onnx"

    def nominate(self, number: int, gain: float, content: bytes | None = None) -> None:
        """As a runner does; waits until the file was taken and dealt with."""
        self.left(number).write_bytes(b"model %d" % number if content is None else content)
        self.nominations.offer(best(number, gain))
        self.settle()

    def settle(self) -> None:
        """Close, which waits for what is on its way, and go on."""
        self.nominations.close()
        self.nominations = Nominations(self.database, self.storage, self.claim, self.folder)

    def deliver(self, database: Database, content: bytes) -> None:
        """End the job with one model, as the supervisor does."""
        (self.folder / "outputs").mkdir()
        (self.folder / "outputs" / "final.onnx").write_bytes(content)
        output = OutputFile(path="outputs/final.onnx", kind="model", file_name="final.onnx", media_type="x")
        result = RunnerResult(outcome="succeeded", artifacts=[output])
        stored = store_outputs(self.storage, self.claim, result, self.folder)
        with database.session_scope() as session:
            assert publish(session, self.claim, result, stored, 1.0) is not None

    def artifacts(self) -> list[ArtifactRow]:
        with self.database.session_scope() as session:
            rows = session.scalars(select(ArtifactRow).where(ArtifactRow.job_id == self.claim.job_id))
            return list(rows)

    def content(self) -> bytes | None:
        """Of the one artifact, as storage has it: what its hash says, or the promise is broken."""
        rows = self.artifacts()
        if not rows:
            return None
        (row,) = rows
        target = self.folder / "fetched"
        self.storage.fetch(storage_key(row.workspace_id, row.blob_id), target)
        content = target.read_bytes()
        assert (hashlib.sha256(content).digest(), len(content)) == (row.sha256, row.size_bytes)
        return content

    def stored(self) -> int:
        return len(list(self.storage.list_sync(PREFIX)))


@pytest.fixture
def take_job(database: Database, storage: Storage, tmp_path: Path) -> Iterator[Callable[..., Search]]:
    """`take_job(job_id=None, **parts)`: claim it, or a new one, for an attempt that works with these parts."""
    searches: list[Search] = []

    def take(
        job_id: UUID | None = None,
        *,
        kind: JobKind = JobKind.OPTIMIZE,
        storage: Storage = storage,
        through: Database = database,
    ) -> Search:
        job_id = job_id or add_job(database, kind=kind)
        with database.session_scope() as session:
            claim = lease.claim(session, job_id, "test", 45.0)
        assert claim is not None
        searches.append(Search(through, storage, claim, tmp_path / f"home-{len(searches)}" / "run"))
        return searches[-1]

    yield take
    for search in searches:
        search.nominations.close()


@pytest.fixture
def search(take_job: Callable[..., Search]) -> Search:
    return take_job()


def test_a_better_one_takes_the_place_of_the_one_before(search: Search, database: Database, storage: Storage) -> None:
    search.nominate(0, gain=0.5)
    assert search.content() == b"model 0"
    search.nominate(1, gain=0.7)
    assert search.content() == b"model 1"
    (row,) = search.artifacts()
    assert row.trial is not None
    assert (row.file_name, row.kind, row.trial["name"]) == ("net-1.onnx", "model", "candidate 1")
    with database.session_scope() as session:
        events = session.scalars(select(JobEventRow.data).where(JobEventRow.type == "best").order_by(JobEventRow.id))
        assert [event["trial"]["name"] for event in events] == ["candidate 0", "candidate 1"]
    # The bytes of the one before are garbage, those of this one are not.
    assert collect_garbage(database, storage, grace_seconds=0) == 1
    assert search.content() == b"model 1"
    assert list((search.folder / BEST_FOLDER).iterdir()) == []


def test_a_later_attempt_replaces_it_only_by_a_better_one(
    search: Search, take_job: Callable[..., Search], database: Database
) -> None:
    search.nominate(0, gain=0.5)
    with database.session_scope() as session:
        assert lease.requeue(
            session, search.claim, wait_seconds=0, spend_attempt=True, reason="test", queue_ttl_seconds=0.0
        )
    again = take_job(search.claim.job_id)
    again.nominate(0, gain=0.4, content=b"a lesser one")
    assert (again.content(), again.stored()) == (b"model 0", 1)
    again.nominate(1, gain=0.6)
    assert again.content() == b"model 1"


@pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.FAILED])
def test_it_is_kept_where_the_job_ends_without_a_result(search: Search, database: Database, state: JobState) -> None:
    search.nominate(0, gain=0.5)
    with database.session_scope() as session:
        assert lease.finish(session, search.claim, state)
    assert search.content() == b"model 0"
    # The job is over: whoever offers more is too late.
    search.nominate(1, gain=0.9)
    assert (search.content(), search.stored()) == (b"model 0", 1)


def test_a_holder_whose_lease_was_lost_leaves_nothing(search: Search, database: Database) -> None:
    with database.session_scope() as session:
        assert lease.requeue(
            session, search.claim, wait_seconds=0, spend_attempt=True, reason="test", queue_ttl_seconds=0.0
        )
    search.nominate(0, gain=0.5)
    assert (search.artifacts(), search.stored()) == ([], 0)
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(BlobRow)) == 0


def test_the_same_bytes_are_stored_once(search: Search, take_job: Callable[..., Search]) -> None:
    search.nominate(0, gain=0.5, content=b"the same")
    other = take_job()
    other.nominate(0, gain=0.1, content=b"the same")
    assert other.content() == search.content() == b"the same"
    assert other.stored() == 1
    other.nominate(1, gain=0.2, content=b"the same")
    assert (other.content(), other.stored()) == (b"the same", 1)
    assert [row.file_name for row in other.artifacts()] == ["net-1.onnx"]


def test_bytes_that_storage_lost_are_stored_anew(
    search: Search, take_job: Callable[..., Search], storage: Storage
) -> None:
    search.nominate(0, gain=0.5, content=b"the same")
    (row,) = search.artifacts()
    storage.delete_sync(storage_key(row.workspace_id, row.blob_id))
    other = take_job()
    other.nominate(0, gain=0.1, content=b"the same")
    assert other.content() == search.content() == b"the same"


@pytest.mark.parametrize("content", [b"model 0", b"another"], ids=["the-same-bytes", "other-bytes"])
def test_what_the_job_delivers_takes_its_place(
    search: Search, database: Database, storage: Storage, content: bytes
) -> None:
    search.nominate(0, gain=0.5, content=b"model 0")
    search.deliver(database, content)
    assert [(row.file_name, row.trial) for row in search.artifacts()] == [("final.onnx", None)]
    collect_garbage(database, storage, grace_seconds=0)
    assert (search.content(), search.stored()) == (content, 1)
    # One that was still on its way is too late.
    search.nominate(1, gain=0.9)
    assert (search.content(), search.stored()) == (content, 1)


@pytest.mark.parametrize("kind", ["symbolic-link", "hard-link", "folder", "folder-elsewhere", "nothing"])
def test_what_is_no_file_of_the_runners_own_is_refused_and_the_next_one_taken(
    search: Search, tmp_path: Path, kind: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    left = search.folder / BEST_FOLDER
    if kind == "symbolic-link":
        search.left(0).symlink_to(secret)
    elif kind == "hard-link":
        os.link(secret, search.left(0))
    elif kind == "folder":
        search.left(0).mkdir()
    elif kind == "folder-elsewhere":
        left.rmdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "0.onnx").write_text("key")
        left.symlink_to(tmp_path / "elsewhere")
    search.nominations.offer(best(0, 0.5))
    search.settle()
    assert (search.artifacts(), search.stored()) == ([], 0)
    if kind == "folder-elsewhere":
        left.unlink()
        left.mkdir()
    search.nominate(1, gain=0.6)
    assert search.content() == b"model 1"


def test_a_file_that_is_still_open_in_the_runner_is_not_changed_behind_its_hash(
    take_job: Callable[..., Search], settings: Settings
) -> None:
    written: list[int] = []

    class Beaten(Storage):
        """Storage that a runner with an open descriptor is faster than."""

        def store(self, path: Path, key: str) -> None:
            written.append(os.pwrite(descriptor, b"another", 0))
            super().store(path, key)

    search = take_job(storage=Beaten(settings))
    search.left(0).write_bytes(b"a model")
    descriptor = os.open(search.left(0), os.O_RDWR)
    search.nominations.offer(best(0, 0.5))
    search.settle()
    os.close(descriptor)
    assert written == [len(b"another")]
    assert search.content() == b"a model"


def test_storage_that_is_away_costs_one_and_not_those_after_it(
    take_job: Callable[..., Search], settings: Settings
) -> None:
    failing = [OSError(28, "No space left on device")]

    class Full(Storage):
        """Storage that has no room once."""

        def ensure_room(self, size_bytes: int) -> None:
            if failing:
                raise failing.pop()
            super().ensure_room(size_bytes)

    search = take_job(storage=Full(settings))
    search.nominate(0, gain=0.5)
    assert search.artifacts() == []
    search.nominate(1, gain=0.6)
    assert search.content() == b"model 1"
    assert {path.name for path in search.folder.parent.iterdir()} == {"run"}


class Interrupted(Database):
    """A database that goes away once, before or behind its second commit: the first transaction only reads.

    `meanwhile` is done before anybody learns of it.
    """

    def __init__(self, settings: Settings, *, behind: bool, meanwhile: Callable[[], None] = lambda: None) -> None:
        super().__init__(settings)
        self._scopes, self._behind, self._meanwhile = 0, behind, meanwhile

    @contextmanager
    def session_scope(self) -> Iterator[Session]:
        self._scopes += 1
        gone = OperationalError("COMMIT", None, Exception("the connection is lost")) if self._scopes == 2 else None
        with super().session_scope() as session:
            yield session
            if gone is not None and not self._behind:
                raise gone
        if gone is not None:
            self._meanwhile()
            raise gone


@pytest.mark.parametrize("behind", [False, True], ids=["before-the-commit", "its-answer-was-lost"])
def test_a_database_that_is_away_for_a_moment_costs_nothing(
    take_job: Callable[..., Search], settings: Settings, storage: Storage, database: Database, behind: bool
) -> None:
    away = Interrupted(settings, behind=behind)
    search = take_job(through=away)
    search.nominate(0, gain=0.5)
    found = search.content(), search.stored()
    away.dispose()
    assert found == (b"model 0", 1)
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(JobEventRow).where(JobEventRow.type == "best")) == 1


def test_a_lost_answer_costs_the_delivered_model_nothing_where_it_is_the_same_bytes(
    take_job: Callable[..., Search], settings: Settings, database: Database
) -> None:
    away = Interrupted(settings, behind=True, meanwhile=lambda: search.deliver(database, b"model 0"))
    search = take_job(through=away)
    search.nominate(0, gain=0.5)
    found = [row.file_name for row in search.artifacts()], search.content()
    away.dispose()
    assert found == (["final.onnx"], b"model 0")


def test_an_inspection_has_no_best(take_job: Callable[..., Search]) -> None:
    search = take_job(kind=JobKind.INSPECT_MODEL)
    search.nominate(0, gain=0.5)
    assert (search.artifacts(), search.stored()) == ([], 0)


def test_a_runner_cannot_fill_the_disk_with_ever_better_ones(search: Search) -> None:
    for number in range(MAX_NOMINATIONS + 1):
        search.left(number).write_bytes(b"model %d" % number)
        search.nominations.offer(best(number, gain=number))
    search.nominations.close()
    assert search.content() == b"model %d" % (MAX_NOMINATIONS - 1)
