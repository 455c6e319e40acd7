"""Checkpoints on their way out of a runner's folder and back: believed only where they are what they were."""

import os
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import text

from app.database import Database
from app.jobs import lease
from app.jobs.checkpoints import PREFIX, checkpoints_of
from app.jobs.lease import Claim
from app.jobs.states import JobState
from app.recipes.catalogue import CATALOGUE, MOST_STEPS
from app.storage import Storage
from tests.app.garbage import collect_garbage
from tests.app.jobs.factories import add_job
from worker.checkpoints import Keeper, bring_checkpoints
from worker.runner.checkpoints import StepCheckpoints, chosen_before
from worker.runner.contract import CHECKPOINT_FOLDER, Event
from worker.runner.events import Events


@dataclass
class Attempt:
    """One attempt at a job, from both sides."""

    database: Database
    storage: Storage
    claim: Claim
    folder: Path
    keeper: Keeper

    def leave(self, name: str, content: str = "weights") -> None:
        """As a runner does."""
        source = self.folder / "source"
        source.mkdir()
        (source / "state.json").write_text(content)
        path = self.folder / CHECKPOINT_FOLDER / name
        with tarfile.open(path, "w:") as archive:
            archive.add(source / "state.json", "state.json")
        (source / "state.json").unlink()
        source.rmdir()

    def known(self) -> list[int]:
        with self.database.session_scope() as session:
            return [one.step for one in checkpoints_of(session, self.claim.job_id)]

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def stored(self) -> int:
        return len(list(self.storage.list_sync(PREFIX)))

    def brought(self, into: Path, going_on: Callable[[], None] = lambda: None) -> dict[int, str]:
        (into / "inputs").mkdir(parents=True)
        return bring_checkpoints(self.database, self.storage, self.claim, into, going_on)


@pytest.fixture
def attempt(database: Database, storage: Storage, tmp_path: Path) -> Iterator[Attempt]:
    job_id: UUID = add_job(database)
    with database.session_scope() as session:
        claim = lease.claim(session, job_id, "test", 45.0)
    assert claim is not None
    folder = tmp_path / "home" / "run"
    (folder / CHECKPOINT_FOLDER).mkdir(parents=True)
    keeper = Keeper(database, storage, claim, folder)
    yield Attempt(database, storage, claim, folder, keeper)
    keeper.close()


def test_what_a_runner_saved_comes_back_to_the_next(attempt: Attempt, tmp_path: Path) -> None:
    attempt.leave("1-0.tar", "first")
    attempt.keeper.offer(1, "1-0.tar")
    attempt.wait(lambda: attempt.known() == [1])
    attempt.leave("1-1.tar", "second")
    attempt.keeper.offer(1, "1-1.tar")
    attempt.wait(lambda: not list((attempt.folder / CHECKPOINT_FOLDER).iterdir()) and attempt.stored() == 1)
    attempt.keeper.close()
    brought = attempt.brought(tmp_path / "next")
    assert brought == {1: "inputs/checkpoint-1.tar"}
    checkpoints = StepCheckpoints(attempt.folder, 1, tmp_path / "next" / brought[1], tmp_path / "scratch", Events())
    last = checkpoints.last()
    assert last is not None
    assert (last / "state.json").read_text() == "second"


def test_no_runner_has_more_of_them_than_a_recipe_has_steps() -> None:
    """Each that is named is kept, in storage, until the job is over."""
    last = Event(type="checkpoint", step=MOST_STEPS - 1, file="0-0.tar")
    with pytest.raises(ValidationError):
        Event.model_validate(last.model_dump() | {"step": MOST_STEPS})


@pytest.mark.parametrize("kind", ["symbolic-link", "hard-link", "folder-elsewhere", "nothing"])
def test_a_file_that_is_none_is_refused_and_the_keeper_goes_on(attempt: Attempt, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    left = attempt.folder / CHECKPOINT_FOLDER
    if kind == "symbolic-link":
        (left / "0-0.tar").symlink_to(secret)
    elif kind == "hard-link":
        os.link(secret, left / "0-0.tar")
    elif kind == "folder-elsewhere":
        left.rmdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "0-0.tar").write_text("key")
        left.symlink_to(tmp_path / "elsewhere")
    attempt.keeper.offer(0, "0-0.tar")
    if kind == "folder-elsewhere":
        attempt.keeper.close()
        assert attempt.known() == []
        return
    attempt.leave("2-0.tar")
    attempt.keeper.offer(2, "2-0.tar")
    attempt.wait(lambda: attempt.known() == [2])
    attempt.wait(lambda: attempt.stored() == 1)


def test_a_damaged_checkpoint_is_none(attempt: Attempt, storage: Storage, tmp_path: Path) -> None:
    attempt.leave("0-0.tar")
    attempt.keeper.offer(0, "0-0.tar")
    attempt.wait(lambda: attempt.known() == [0])
    (file,) = storage.list_sync(PREFIX)
    (tmp_path / "other").write_text("something else")
    storage.store(tmp_path / "other", file.key)
    assert attempt.brought(tmp_path / "next") == {}


def test_bringing_them_hears_that_the_attempt_is_to_end(attempt: Attempt, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    attempt.leave("0-0.tar")
    attempt.keeper.offer(0, "0-0.tar")
    attempt.wait(lambda: attempt.known() == [0])
    with pytest.raises(Stopped):
        attempt.brought(tmp_path / "next", stop)


def test_one_that_the_disk_has_no_spare_room_for_is_not_brought(
    attempt: Attempt, database: Database, tmp_path: Path
) -> None:
    attempt.leave("0-0.tar")
    attempt.keeper.offer(0, "0-0.tar")
    attempt.wait(lambda: attempt.known() == [0])
    with database.session_scope() as session:
        session.execute(text("UPDATE job_checkpoints SET size_bytes = :size"), {"size": 1 << 60})
    assert attempt.brought(tmp_path / "next") == {}


def test_a_holder_whose_lease_was_lost_leaves_nothing(attempt: Attempt, database: Database) -> None:
    with database.session_scope() as session:
        assert lease.requeue(
            session, attempt.claim, wait_seconds=0, spend_attempt=True, reason="test", queue_ttl_seconds=0.0
        )
    attempt.leave("0-0.tar")
    attempt.keeper.offer(0, "0-0.tar")
    attempt.keeper.close()
    assert attempt.known() == []
    assert attempt.stored() == 0


def test_they_end_with_the_job_and_the_collector_takes_the_files(
    attempt: Attempt, database: Database, storage: Storage
) -> None:
    attempt.leave("0-0.tar")
    attempt.keeper.offer(0, "0-0.tar")
    attempt.wait(lambda: attempt.known() == [0])
    assert collect_garbage(database, storage, grace_seconds=0) == 0
    with database.session_scope() as session:
        assert lease.finish(session, attempt.claim, JobState.CANCELLED)
    assert attempt.known() == []
    assert collect_garbage(database, storage, grace_seconds=0) == 1
    assert attempt.stored() == 0


def test_a_full_disk_loses_a_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    # No folder to write into: as any other error of the file system.
    checkpoints = StepCheckpoints(tmp_path / "gone", 0, None, tmp_path / "scratch", Events())
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.json").write_text("weights")
    checkpoints.save(tmp_path / "state")
    assert not (tmp_path / "state").exists()


RECIPE = [
    CATALOGUE["prune_structured"].config.model_validate({"pass": "prune_structured", "target": {"latency_ratio": 0.5}}),
    CATALOGUE["distill"].config.model_validate({"pass": "distill"}),
]
CHOSEN = {"pass": "prune_structured", "given": [{"group": "a", "units": [1, 2]}]}


def _packed(choices: list[dict[str, Any] | None], folder: Path, own: dict[str, Any] | None = None) -> Path:
    """The tar of a checkpoint of the step behind these."""
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "state.json").write_text("weights")
    (folder / CHECKPOINT_FOLDER).mkdir()
    checkpoints = StepCheckpoints(folder, len(choices), None, folder, Events(), choices)
    if own is not None:
        checkpoints.settle(own)
    checkpoints.save(folder / "state")
    return folder / CHECKPOINT_FOLDER / f"{len(choices)}-0.tar"


def test_an_attempt_that_goes_on_makes_the_choices_of_the_one_before(tmp_path: Path) -> None:
    """What a pass had measured, another attempt could measure otherwise, and train another model."""
    settled = chosen_before(_packed([CHOSEN], tmp_path), RECIPE, tmp_path)
    assert {number: one.model_dump(by_alias=True)["given"] for number, one in settled.items()} == {0: CHOSEN["given"]}


def test_a_pass_that_trains_itself_is_given_its_own_choice(tmp_path: Path) -> None:
    settled = chosen_before(_packed([], tmp_path, own=CHOSEN), RECIPE, tmp_path)
    assert settled[0].model_dump(by_alias=True)["given"] == CHOSEN["given"]


@pytest.mark.parametrize("choices", [[None], [{"pass": "prune_structured", "ratio": 7}], [["ratio"]]], ids=str)
def test_a_choice_that_is_no_recipe_is_made_anew(tmp_path: Path, choices: list[Any]) -> None:
    assert chosen_before(_packed(choices, tmp_path), RECIPE, tmp_path) == {}


def test_a_checkpoint_that_cannot_be_read_settles_nothing(tmp_path: Path) -> None:
    (tmp_path / "0-0.tar").write_text("nothing")
    assert chosen_before(tmp_path / "0-0.tar", RECIPE, tmp_path) == {}
