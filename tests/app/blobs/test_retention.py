"""What expires goes, bytes and all; what something still needs stays."""

import random
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, update

from app.access.service import ensure_workspace, set_limits
from app.access.tables import Action, AuditRow, WorkspaceRow
from app.artifacts.tables import ArtifactRow, PromotionRow
from app.blobs.retention import let_go_of_artifacts, let_go_of_datasets, let_go_of_models
from app.blobs.tables import BlobRow, storage_key
from app.config import RetentionSettings
from app.database import Database
from app.datasets.tables import DatasetRow
from app.jobs.states import JobState
from app.jobs.tables import JobDatasetRow, JobModelRow, JobRow
from app.models.tables import ModelRow
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import INSPECTION, add_artifact, add_job
from tests.app.jobs.test_reading_costs import statements
from tests.app.uploads import upload
from tests.worker.uploads import store_upload

Headers = dict[str, str]
TEN_DAYS = RetentionSettings(models_days=10, datasets_days=10, artifacts_days=10)
NOTHING = {"models": 0, "datasets": 0, "artifacts": 0}
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=11)
LATELY = NOW - timedelta(days=9)


def let_go(database: Database, defaults: RetentionSettings) -> dict[str, int]:
    """As one round of the collector does: how many of each went."""
    return {
        "models": let_go_of_models(database, defaults),
        "datasets": let_go_of_datasets(database, defaults),
        "artifacts": let_go_of_artifacts(database, defaults),
    }


def age(database: Database, row_id: UUID, moment: datetime = LONG_AGO) -> UUID:
    """As if it, and its bytes, had come then."""
    with database.session_scope() as session:
        for table in (ModelRow, DatasetRow):
            row = session.get(table, row_id)
            if row is not None:
                row.created_at = moment
                session.execute(update(BlobRow).where(BlobRow.id == row.blob_id).values(touched_at=moment))
    return row_id


@pytest.fixture
def old_model(database: Database, storage: Storage, tmp_path: Path) -> UUID:
    columns = {"status": "ready", "inspection": INSPECTION}
    return age(database, store_upload(database, storage, ModelRow, b"old model", tmp_path, **columns))


@pytest.fixture
def old_dataset(database: Database, storage: Storage, tmp_path: Path) -> UUID:
    return age(database, store_upload(database, storage, DatasetRow, b"old data", tmp_path, status="ready"))


def over(finished_at: datetime = LONG_AGO) -> dict[str, Any]:
    return {"state": JobState.SUCCEEDED, "finished_at": finished_at}


def stored(storage: Storage) -> set[str]:
    return {file.key for file in storage.list_sync("blobs")}


def test_by_default_everything_is_kept_and_nothing_looked_through(
    database: Database, old_model: UUID, old_dataset: UUID
) -> None:
    add_job(database, model_id=old_model, **over())
    with statements(database.engine) as asked:
        assert let_go(database, RetentionSettings()) == NOTHING
    tables = {table for statement, _ in asked for table in re.findall(r"(?:FROM|JOIN) (\w+)", statement)}
    assert tables == {"workspaces"}


def test_what_is_old_goes_with_its_bytes_and_the_log_says_so(
    database: Database, storage: Storage, old_model: UUID, old_dataset: UUID, tmp_path: Path
) -> None:
    young = store_upload(database, storage, ModelRow, b"young", tmp_path, status="ready")
    assert let_go(database, TEN_DAYS) == {"models": 1, "datasets": 1, "artifacts": 0}
    assert let_go(database, TEN_DAYS) == NOTHING
    assert collect_garbage(database, storage, 0) == 2
    with database.session_scope() as session:
        [(model_id, blob_id)] = session.execute(
            select(ModelRow.id, ModelRow.blob_id).where(ModelRow.deleted_at.is_(None))
        )
        assert model_id == young
        assert session.scalar(select(func.count()).where(ModelRow.inspection.is_not(None))) == 0
        assert stored(storage) == {storage_key(session.scalars(select(WorkspaceRow.id)).one(), blob_id)}
        told = session.execute(select(AuditRow.action, AuditRow.object_id, AuditRow.key_id, AuditRow.details)).all()
    assert {(action, object_id) for action, object_id, _, _ in told} == {
        (Action.MODEL_DELETED, old_model),
        (Action.DATASET_DELETED, old_dataset),
    }
    assert all((key_id, details) == (None, {"reason": "expired"}) for _, _, key_id, details in told)


@pytest.mark.parametrize(
    "columns",
    [{"state": "queued"}, {"state": "running", "lease_expires_at": NOW}, over(LATELY)],
    ids=["queued", "running", "over-lately"],
)
@pytest.mark.parametrize("role", ["its-model", "another-model", "dataset"])
def test_what_a_job_needs_or_needed_lately_stays(
    database: Database, old_model: UUID, old_dataset: UUID, columns: dict[str, Any], role: str
) -> None:
    used = old_dataset if role == "dataset" else old_model
    job_id = add_job(database, **columns, model_id=old_model if role == "its-model" else None)
    with database.session_scope() as session:
        if role == "another-model":
            session.add(JobModelRow(job_id=job_id, model_id=old_model))
        elif role == "dataset":
            session.add(JobDatasetRow(job_id=job_id, role="calibration", dataset_id=old_dataset))
    let_go(database, TEN_DAYS)
    with database.session_scope() as session:
        kept = {row.id for table in (ModelRow, DatasetRow) for row in session.scalars(select(table)) if row.blob_id}
    assert kept == {used}


def test_what_jobs_of_long_ago_used_goes(database: Database, old_model: UUID) -> None:
    add_job(database, model_id=old_model, **over())
    assert let_go(database, TEN_DAYS)["models"] == 1


def test_jobs_are_not_searched_anew_for_each_upload(database: Database, old_model: UUID, old_dataset: UUID) -> None:
    """A condition that Postgres cannot turn into a join is a subplan: models times jobs."""
    with statements(database.engine) as asked:
        let_go(database, TEN_DAYS)
    looking = [(statement, parameters) for statement, parameters in asked if "FOR UPDATE" in statement]
    assert len(looking) == 3
    for statement, parameters in looking:
        with database.engine.connect() as connection:
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
        assert "Join" in plan
        assert "SubPlan" not in plan


async def test_the_same_bytes_again_begin_their_days_anew(
    client: httpx.AsyncClient, writer: Headers, database: Database
) -> None:
    model = await upload(client, writer, content=b"again")
    with database.session_scope() as session:  # it was inspected long ago
        session.execute(update(JobRow).values(state="running", fence=1, lease_expires_at=NOW))
        session.execute(update(JobRow).values(**over(), lease_expires_at=None))
        session.execute(update(ModelRow).values(status="ready"))
    age(database, UUID(model["id"]))
    assert (await upload(client, writer, content=b"again"))["id"] == model["id"]
    assert let_go(database, TEN_DAYS) == NOTHING
    age(database, UUID(model["id"]))
    assert let_go(database, TEN_DAYS)["models"] == 1
    assert (await client.get(f"/v1/models/{model['id']}", headers=writer)).status_code == 404
    body = {"model_id": model["id"], "recipe": [{"pass": "optimize_graph"}]}
    assert (await client.post("/v1/jobs", json=body, headers=writer)).status_code == 404
    assert (await upload(client, writer, content=b"again"))["id"] != model["id"]


async def test_what_jobs_delivered_goes_with_them_and_what_was_promoted_stays(
    client: httpx.AsyncClient, reader: Headers, database: Database, workspace_id: UUID
) -> None:
    old, young = add_job(database, **over()), add_job(database, **over(LATELY))
    running = add_job(database, state="running", lease_expires_at=NOW)
    gone, promoted = add_artifact(database, workspace_id, old), add_artifact(database, workspace_id, old)
    kept = [add_artifact(database, workspace_id, job_id, created_at=LONG_AGO) for job_id in (young, running)]
    with database.session_scope() as session:
        session.add(PromotionRow(job_id=old, artifact_id=promoted))
    before = (await client.get(f"/v1/jobs/{old}", headers=reader)).headers["etag"]
    assert let_go(database, TEN_DAYS) == {"models": 0, "datasets": 0, "artifacts": 1}
    with database.session_scope() as session:
        assert set(session.scalars(select(ArtifactRow.id))) == {promoted, *kept}
    for address in (f"/v1/artifacts/{gone}", f"/v1/artifacts/{gone}/content"):
        answer = await client.get(address, headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    after = await client.get(f"/v1/jobs/{old}", headers=reader | {"If-None-Match": before})
    assert [item["id"] for item in after.json()["artifacts"]] == [str(promoted)]


def test_days_are_each_workspaces_own(database: Database, old_model: UUID, old_dataset: UUID) -> None:
    def keep(**days: int | None) -> dict[str, int]:
        with database.session_scope() as session:
            assert set_limits(session, "default", days, Action.RETENTION_CHANGED)
        return let_go(database, TEN_DAYS)

    assert keep(models_days=0, datasets_days=12) == NOTHING
    assert keep(models_days=12, datasets_days=10) == {"models": 0, "datasets": 1, "artifacts": 0}
    assert keep(models_days=None) == {"models": 1, "datasets": 0, "artifacts": 0}


def test_one_workspace_lets_go_and_another_keeps_everything(database: Database, workspace_id: UUID) -> None:
    with database.session_scope() as session:
        elsewhere = ensure_workspace(session, "elsewhere")
        assert set_limits(session, "elsewhere", {"artifacts_days": 10}, Action.RETENTION_CHANGED)
    kept, _ = (
        add_artifact(database, one, add_job(database, workspace_id=one, **over())) for one in (workspace_id, elsewhere)
    )
    assert let_go(database, RetentionSettings()) == NOTHING | {"artifacts": 1}
    with database.session_scope() as session:
        assert session.scalars(select(ArtifactRow.id)).all() == [kept]


def test_what_a_submission_is_about_to_use_is_left_alone(database: Database, old_model: UUID) -> None:
    """It holds the row from before it looks until the job is there."""
    with database.session_scope() as submitting:
        held = select(ModelRow.id).where(ModelRow.id == old_model).with_for_update(read=True, key_share=True)
        assert submitting.scalars(held).one() == old_model
        assert let_go(database, TEN_DAYS) == NOTHING
    assert let_go(database, TEN_DAYS)["models"] == 1


def test_several_at_once_let_go_of_each_thing_once(database: Database, storage: Storage, tmp_path: Path) -> None:
    for number in range(40):
        age(database, store_upload(database, storage, ModelRow, b"%d" % number, tmp_path, status="ready"))
    counts: list[int] = []
    start = threading.Barrier(3)

    def run() -> None:
        start.wait(10)
        counts.append(let_go(database, TEN_DAYS)["models"])

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(counts) == 40
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(AuditRow)) == 40


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 8))])
def test_in_any_order_of_events_no_row_loses_its_bytes_and_no_job_what_it_needs(
    database: Database, storage: Storage, workspace_id: UUID, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)  # noqa: S311 - replayed by its seed
    for step in range(60):
        live = sorted(live_uploads(database))
        event = draw.choice(["upload", "submit", "end", "age", "let_go", "collect"])
        if event == "upload":
            table = draw.choice([ModelRow, DatasetRow])
            store_upload(database, storage, table, b"%d" % step, tmp_path, status="ready")
        elif event == "submit" and live:
            submit(database, draw.choice(live))
        elif event == "end":
            end_one(database, storage, workspace_id, tmp_path, draw.choice([LONG_AGO, LATELY]))
        elif event == "age" and live:
            age(database, draw.choice(live))
        elif event == "let_go":
            let_go(database, TEN_DAYS)
        elif event == "collect":
            collect_garbage(database, storage, 0)
        check(database, storage)
    while end_one(database, storage, workspace_id, tmp_path, LATELY):
        check(database, storage)
    for upload_id in live_uploads(database):
        age(database, upload_id)
    # Of days so few everything is older, and nothing is needed any more.
    let_go(database, RetentionSettings(models_days=8, datasets_days=8, artifacts_days=8))
    collect_garbage(database, storage, 0)
    assert stored(storage) == set()
    with database.session_scope() as session:
        assert session.scalar(select(func.count()).select_from(BlobRow)) == 0


def live_uploads(database: Database) -> dict[UUID, UUID]:
    """Each with where its bytes lie."""
    with database.session_scope() as session:
        tables = (ModelRow, DatasetRow)
        rows = [row for table in tables for row in session.execute(select(table.id, table.blob_id)).all()]
        return {row.id: row.blob_id for row in rows if row.blob_id is not None}


def submit(database: Database, upload_id: UUID) -> None:
    """A job on it, which runs."""
    with database.session_scope() as session:
        is_model = session.get(ModelRow, upload_id) is not None
    job_id = add_job(database, state="running", lease_expires_at=NOW, model_id=upload_id if is_model else None)
    if not is_model:
        with database.session_scope() as session:
            session.add(JobDatasetRow(job_id=job_id, role="calibration", dataset_id=upload_id))


def end_one(database: Database, storage: Storage, workspace_id: UUID, folder: Path, moment: datetime) -> bool:
    """The oldest job that runs delivers a file and is over since then; False where none runs."""
    with database.session_scope() as session:
        job = session.scalars(
            select(JobRow).where(JobRow.state == "running").order_by(JobRow.id).limit(1)
        ).one_or_none()
        if job is None:
            return False
        job.state, job.lease_expires_at, job.finished_at = JobState.SUCCEEDED, None, moment
    artifact_id = add_artifact(database, workspace_id, job.id)
    with database.session_scope() as session:
        blob = session.get_one(BlobRow, session.get_one(ArtifactRow, artifact_id).blob_id)
        (folder / "delivered").write_bytes(b"abc")
        storage.store(folder / "delivered", blob.storage_key)
    return True


def check(database: Database, storage: Storage) -> None:
    live = live_uploads(database)
    with database.session_scope() as session:
        named = {*live.values(), *session.scalars(select(ArtifactRow.blob_id))}
        keys = {blob.storage_key for blob in session.scalars(select(BlobRow).where(BlobRow.id.in_(named)))}
        running = select(JobRow.id).where(JobRow.state == "running")
        needed = {
            *session.scalars(select(JobRow.model_id).where(JobRow.id.in_(running), JobRow.model_id.is_not(None))),
            *session.scalars(select(JobDatasetRow.dataset_id).where(JobDatasetRow.job_id.in_(running))),
        }
    assert len(keys) == len(named)
    assert keys <= stored(storage)
    assert needed <= set(live)
