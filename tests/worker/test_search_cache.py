"""Pieces of searches on their way out of a runner's folder and back: to the same workspace, model and data alone."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text, update

from app.access.service import ensure_workspace
from app.blobs.mark import mark
from app.config import Settings
from app.database import Database
from app.datasets.tables import DatasetRow
from app.errors import StorageFull
from app.jobs import lease
from app.jobs.lease import Claim
from app.jobs.search_cache import PREFIX, forget_old, pieces_of, scope_of
from app.jobs.tables import JobDatasetRow, JobModelRow
from app.models.tables import ModelRow
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job
from tests.worker.uploads import store_upload
from worker import search_cache
from worker.collector import Collector
from worker.runner.contract import PIECE_FOLDER, Piece
from worker.search_cache import Pieces, bring_pieces

REQUEST = {"recipe": "auto"}
KEYS = [f"{number:064x}" for number in range(4)]
NEVER = 1e9


@dataclass
class Search:
    """One attempt at a search, from both sides."""

    settings: Settings
    database: Database
    storage: Storage
    claim: Claim
    folder: Path
    pieces: Pieces

    def finish(self, number: int, content: str = "a candidate") -> None:
        """As a runner does."""
        (self.folder / PIECE_FOLDER / f"{number}.tar").write_text(content)
        self.pieces.offer(Piece(file=f"{number}.tar", key=KEYS[number]))

    def stored(self) -> int:
        return len(list(self.storage.list_sync(PREFIX)))

    def brought(
        self,
        claim: Claim | None = None,
        storage: Storage | None = None,
        going_on: Callable[[], None] = lambda: None,
    ) -> dict[str, str]:
        """What the next search is given, by key."""
        into = self.folder.parent / f"next-{time.monotonic_ns()}"
        (into / "inputs").mkdir(parents=True)
        found = bring_pieces(self.database, storage or self.storage, claim or self.claim, into, going_on)
        return {key: (into / path).read_text() for key, path in found.items()}


Start = Callable[..., Search]


@pytest.fixture
def model(database: Database, storage: Storage, tmp_path: Path) -> UUID:
    return store_upload(database, storage, ModelRow, b"model", tmp_path)


@pytest.fixture
def start(settings: Settings, database: Database, storage: Storage, tmp_path: Path, model: UUID) -> Iterator[Start]:
    """`start(datasets={role: id}, others=[id], **columns)`: a search of that job, running."""
    running: list[Search] = []

    def begin(*, datasets: dict[str, UUID] | None = None, others: tuple[UUID, ...] = (), **columns: Any) -> Search:
        job_id = add_job(database, **({"model_id": model, "request": REQUEST} | columns))
        with database.session_scope() as session:
            given = (datasets or {}).items()
            session.add_all(JobDatasetRow(job_id=job_id, role=role, dataset_id=one) for role, one in given)
            session.add_all(JobModelRow(job_id=job_id, model_id=one) for one in others)
        with database.session_scope() as session:
            claim = lease.claim(session, job_id, "test", 45.0)
        assert claim is not None
        folder = tmp_path / str(job_id) / "run"
        (folder / PIECE_FOLDER).mkdir(parents=True)
        running.append(
            Search(settings, database, storage, claim, folder, Pieces(settings, database, storage, claim, folder))
        )
        return running[-1]

    yield begin
    for one in running:
        one.pieces.close()


@pytest.fixture
def finished(start: Start) -> Search:
    """A search that left two pieces."""
    search = start()
    search.finish(0, "first")
    search.finish(1, "second")
    search.pieces.close()
    return search


def test_a_search_that_asks_for_everything_anew_is_given_nothing(finished: Search, start: Start) -> None:
    fresh = start(request=REQUEST | {"search": {"reuse": False}})
    assert fresh.brought() == {}
    fresh.finish(0, "anew")
    fresh.pieces.close()
    assert start().brought() == {KEYS[0]: "anew", KEYS[1]: "second"}


def test_what_one_search_finished_the_next_is_given(finished: Search, start: Start) -> None:
    assert start().brought() == {KEYS[0]: "first", KEYS[1]: "second"}
    assert list((finished.folder / PIECE_FOLDER).iterdir()) == []


@dataclass
class Other:
    id: str
    columns: Callable[[Database, Callable[[type, bytes], UUID]], dict[str, Any]]


OTHERS = [
    Other("model", lambda _, add: {"model_id": add(ModelRow, b"another model")}),
    Other("dataset", lambda _, add: {"datasets": {"evaluation": add(DatasetRow, b"data")}}),
    Other("other-model", lambda _, add: {"others": (add(ModelRow, b"a teacher"),)}),
]


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.id)
def test_a_search_of_something_else_is_given_nothing(
    case: Other, finished: Search, start: Start, tmp_path: Path
) -> None:
    def add(table: Any, content: bytes) -> UUID:
        return store_upload(finished.database, finished.storage, table, content, tmp_path)

    assert start(**case.columns(finished.database, add)).brought() == {}


def test_the_same_data_in_another_role_is_something_else(start: Start, database: Database, tmp_path: Path) -> None:
    search = start()
    data = store_upload(database, search.storage, DatasetRow, b"data", tmp_path)
    one = start(datasets={"evaluation": data})
    one.finish(0)
    one.pieces.close()
    assert list(start(datasets={"evaluation": data}).brought()) == [KEYS[0]]
    assert start(datasets={"calibration": data}).brought() == {}


def test_another_workspace_sees_nothing(finished: Search, database: Database) -> None:
    with database.session_scope() as session:
        other = ensure_workspace(session, "other")
    assert finished.brought(replace(finished.claim, workspace_id=other)) == {}


def test_a_recipe_that_is_given_leaves_nothing(start: Start) -> None:
    search = start(request={"recipe": [{"pass": "optimize_graph"}]})
    search.finish(0)
    search.pieces.close()
    assert search.stored() == 0


def test_a_holder_whose_lease_was_lost_leaves_nothing(start: Start, database: Database) -> None:
    search = start()
    with database.session_scope() as session:
        assert lease.requeue(
            session, search.claim, wait_seconds=0, spend_attempt=True, reason="test", queue_ttl_seconds=0.0
        )
    search.finish(0)
    search.pieces.close()
    assert search.stored() == 0
    assert search.brought() == {}


def test_the_last_of_two_that_finish_the_same_is_kept(finished: Search, start: Start) -> None:
    again = start()
    again.finish(0, "once more")
    again.pieces.close()
    assert again.brought()[KEYS[0]] == "once more"
    assert collect_garbage(again.database, again.storage, grace_seconds=0) == 1


@pytest.mark.parametrize("kind", ["damaged", "lost"])
def test_one_that_storage_does_not_give_back_is_made_anew(
    finished: Search, start: Start, storage: Storage, tmp_path: Path, kind: str
) -> None:
    for file in storage.list_sync(PREFIX):
        (tmp_path / "damaged").write_text("something else")
        storage.delete_sync(file.key) if kind == "lost" else storage.store(tmp_path / "damaged", file.key)
    assert finished.brought() == {}
    again = start()
    again.finish(0, "anew")
    again.pieces.close()
    assert again.brought() == {KEYS[0]: "anew"}


def test_a_link_is_refused_and_the_rest_is_kept(start: Start, tmp_path: Path) -> None:
    search = start()
    (tmp_path / "secret").write_text("key")
    (search.folder / PIECE_FOLDER / "0.tar").symlink_to(tmp_path / "secret")
    search.pieces.offer(Piece(file="0.tar", key=KEYS[0]))
    search.finish(1, "fine")
    search.pieces.close()
    assert search.brought() == {KEYS[1]: "fine"}


def test_no_attempt_keeps_more_than_a_workspace_may(start: Start) -> None:
    search = start()
    search.settings.jobs.search_cache_bytes = 10
    search.pieces = Pieces(search.settings, search.database, search.storage, search.claim, search.folder)
    for number in range(3):
        search.finish(number, "7 bytes")
    search.pieces.close()
    assert search.stored() == 1


def test_one_too_large_to_be_brought_keeps_no_other_back(start: Start, database: Database) -> None:
    search = start()
    search.finish(0)
    search.finish(1, "much " * 1000)
    search.pieces.close()
    with database.session_scope() as session:
        chosen = pieces_of(session, scope_of(session, search.claim), most=10, most_bytes=100)
    assert [one.key.hex() for one in chosen] == [KEYS[0]]


class Stopped(Exception):
    """Whoever runs the attempt does not go on."""


def test_bringing_them_hears_that_the_attempt_is_to_end(finished: Search) -> None:
    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        finished.brought(going_on=stop)


def test_no_more_is_brought_than_leaves_half_of_the_free_disk(
    finished: Search, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_cache, "BROUGHT_BYTES", 1 << 61)
    with database.session_scope() as session:
        grown = text("UPDATE search_cache SET size_bytes = :size WHERE key = :key")
        session.execute(grown, {"size": 1 << 60, "key": bytes.fromhex(KEYS[0])})
    assert finished.brought() == {KEYS[1]: "second"}


class StorageBesideAFullDisk(Storage):
    """What it copies finds no room after the first file."""

    asked = 0

    def fetch(self, key: str, path: Path, going_on: Callable[[], None] = lambda: None) -> None:
        self.asked += 1
        super().fetch(key, path, going_on)
        if self.asked > 1:
            raise StorageFull("There is no room left in storage.")


def test_where_the_disk_is_full_smaller_ones_are_not_tried(start: Start) -> None:
    search = start()
    for number in range(4):
        search.finish(number)
    search.pieces.close()
    storage = StorageBesideAFullDisk(search.settings)
    assert len(search.brought(storage=storage)) == 1
    assert storage.asked == 2
    assert search.stored() == 4
    assert len(search.brought()) == 4


def test_the_collector_leaves_what_is_kept_and_takes_the_rest(finished: Search, database: Database) -> None:
    assert collect_garbage(database, finished.storage, grace_seconds=0) == 0
    with database.session_scope() as session:
        assert forget_old(session, unused_seconds=0, most_bytes=1 << 30) == 2
    assert collect_garbage(database, finished.storage, grace_seconds=0) == 2
    assert finished.stored() == 0


def test_beyond_its_size_a_workspace_lets_go_of_what_was_used_longest_ago(finished: Search, database: Database) -> None:
    with database.session_scope() as session:
        session.execute(
            text("UPDATE search_cache SET used_at = now() - interval '1 day' WHERE key = :key"),
            {"key": bytes.fromhex(KEYS[1])},
        )
        assert forget_old(session, NEVER, most_bytes=len("first")) == 1
    assert finished.brought() == {KEYS[0]: "first"}


def test_what_is_asked_for_stays(finished: Search, database: Database) -> None:
    with database.session_scope() as session:
        session.execute(text("UPDATE search_cache SET used_at = now() - interval '1 day'"))
    assert len(finished.brought()) == 2
    with database.session_scope() as session:
        assert forget_old(session, unused_seconds=3600, most_bytes=1 << 30) == 0


@pytest.mark.parametrize("table", [ModelRow, DatasetRow])
def test_it_goes_with_the_model_or_the_data(
    table: type[ModelRow] | type[DatasetRow], start: Start, database: Database, settings: Settings, tmp_path: Path
) -> None:
    storage = Storage(settings)
    mark(database, storage)
    data = store_upload(database, storage, DatasetRow, b"data", tmp_path)
    search = start(datasets={"evaluation": data})
    search.finish(0)
    search.pieces.close()
    settings.jobs.garbage_grace_seconds = 0
    collector = Collector(settings, database, storage)
    collector.collect()
    assert search.stored() == 1
    deleted = search.claim.model_id if table is ModelRow else data
    with database.session_scope() as session:
        session.execute(update(table).where(table.id == deleted).values(blob_id=None, deleted_at=text("now()")))
    collector.collect()
    assert search.stored() == 0
