"""Whose turn it is: workspaces take turns, priorities count within one, and no more of one run than may."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from app.access.service import ensure_workspace, set_limits
from app.database import Database
from app.jobs import lease, turns
from app.jobs.lease import Claim
from app.jobs.routing import TRAINING_QUEUES
from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow
from tests.app.jobs.factories import add_job, read_job


@pytest.fixture
def names(database: Database) -> dict[UUID, str]:
    """Three workspaces, by id."""
    with database.session_scope() as session:
        return {ensure_workspace(session, name): name for name in ("large", "small", "other")}


def add(database: Database, names: dict[UUID, str], name: str, **columns: object) -> UUID:
    workspace_id = next(workspace_id for workspace_id, known in names.items() if known == name)
    return add_job(database, workspace_id=workspace_id, **columns)


def take(
    database: Database, wake_up: UUID, *, threads: int | None = None, can_train: bool = True, most: int = 0
) -> Claim | None:
    """What a worker does on a wake-up."""
    with database.session_scope() as session:
        chosen = turns.next_in_queue(session, wake_up, threads=threads, can_train=can_train, default_running_jobs=most)
        return (
            None if chosen is None else lease.claim(session, chosen, "test", 45.0, threads=threads, can_train=can_train)
        )


def end(database: Database, claim: Claim) -> None:
    with database.session_scope() as session:
        assert lease.finish(session, claim, JobState.SUCCEEDED)


def order(database: Database, names: dict[UUID, str], wake_up: UUID, jobs: int) -> list[str]:
    """The workspaces that one worker serves, one job after the other, woken by always the same message."""
    served = []
    for _ in range(jobs):
        claim = take(database, wake_up)
        assert claim is not None
        served.append(names[claim.workspace_id])
        end(database, claim)
    return served


def test_a_workspace_with_a_thousand_jobs_gives_way_after_each(database: Database, names: dict[UUID, str]) -> None:
    first = add(database, names, "large")
    with database.session_scope() as session:
        row = {name: getattr(read_job(database, first), name) for name in ("workspace_id", "expires_at")}
        row |= {"kind": JobKind.OPTIMIZE, "queue": "cpu", "budget_seconds": 60.0, "max_attempts": 3}
        session.execute(insert(JobRow), [row | {"id": uuid7()} for _ in range(1000)])
    add(database, names, "small")
    assert order(database, names, first, 2) == ["large", "small"]
    for _ in range(2):
        add(database, names, "small")
        add(database, names, "other")
    assert order(database, names, first, 6) == ["other", "large", "small", "other", "large", "small"]
    assert order(database, names, first, 3) == ["large"] * 3


def test_several_workers_at_once_serve_workspaces_evenly(database: Database, names: dict[UUID, str]) -> None:
    jobs = [add(database, names, "large") for _ in range(50)] + [add(database, names, "small") for _ in range(6)]
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda job_id: take(database, job_id), jobs[:12]))
    assert len({claim.job_id for claim in claims if claim is not None}) == 12, "no wake-up is lost to a race"
    served = Counter(names[claim.workspace_id] for claim in claims if claim is not None)
    # Who asks while others do may find a job locked, and take one further down.
    assert served["small"] >= 4


def test_within_a_workspace_priority_comes_first_and_then_age(database: Database, names: dict[UUID, str]) -> None:
    jobs = [add(database, names, "large", priority=priority) for priority in (2, 1, 0, 1)]
    other = add(database, names, "small", priority=2)
    taken = []
    for _ in range(5):
        claim = take(database, jobs[0])
        assert claim is not None
        taken.append(claim.job_id)
        end(database, claim)
    assert taken == [jobs[2], other, jobs[1], jobs[3], jobs[0]], "a priority is worth nothing against other workspaces"


def test_queues_do_not_mix(database: Database, names: dict[UUID, str]) -> None:
    inspection = add(database, names, "large", queue="inspect", kind=JobKind.INSPECT_MODEL)
    job = add(database, names, "large")
    claim = take(database, job)
    assert claim is not None
    assert claim.job_id == job
    assert take(database, job) is None
    claim = take(database, inspection)
    assert claim is not None
    assert claim.job_id == inspection


@pytest.mark.parametrize(
    ("columns", "threads", "can_train"),
    [
        ({"request": {"target": {"threads": 3}}}, 2, True),
        ({"queue": "cpu-training"}, None, False),
        ({"due_at": datetime.now(UTC) + timedelta(hours=1)}, None, True),
        ({"expires_at": datetime.now(UTC)}, None, True),
    ],
    ids=["threads", "trains", "not-due", "expired"],
)
def test_what_a_worker_cannot_take_stands_in_nobodys_way(
    database: Database, names: dict[UUID, str], columns: dict[str, object], threads: int | None, can_train: bool
) -> None:
    no = add(database, names, "large", **columns)
    yes = add(database, names, "large")
    claim = take(database, yes, threads=threads, can_train=can_train)
    assert claim is not None
    assert claim.job_id == yes
    assert take(database, no, threads=threads, can_train=can_train) is None


def test_a_message_that_nobody_sent_takes_nothing(database: Database, names: dict[UUID, str]) -> None:
    add(database, names, "large")
    assert take(database, uuid7()) is None


def test_no_more_of_a_workspace_run_than_may(database: Database, names: dict[UUID, str]) -> None:
    jobs = [add(database, names, "large") for _ in range(10)]
    with ThreadPoolExecutor(8) as threads:
        claims = [claim for claim in threads.map(lambda job_id: take(database, job_id, most=3), jobs) if claim]
    assert len(claims) == 3
    assert take(database, jobs[0], most=3) is None
    other = add(database, names, "small")
    claim = take(database, jobs[0], most=3)
    assert claim is not None
    assert claim.job_id == other, "a wake-up that one workspace may not use serves another"
    inspection = add(database, names, "large", queue="inspect", kind=JobKind.INSPECT_MODEL)
    assert take(database, inspection, most=3) is not None, "uploads are looked at all the same"
    end(database, claims[0])
    assert take(database, jobs[0], most=3) is not None
    with database.session_scope() as session:
        assert set_limits(session, "large", {"running_jobs": 4})
    assert take(database, jobs[0], most=3) is not None
    assert take(database, jobs[0], most=3) is None


def test_claims_from_all_queues_at_once_keep_the_limit(database: Database, names: dict[UUID, str]) -> None:
    queues = ("cpu", "gpu", *TRAINING_QUEUES)
    for most in (1, 2, 3):
        jobs = [add(database, names, "large", queue=queue) for queue in queues for _ in range(2)]
        with ThreadPoolExecutor(8) as threads:
            claims = [claim for claim in threads.map(partial(take, database, most=most), jobs) if claim]
        assert len(claims) == most
        for claim in claims:
            end(database, claim)


def test_who_finds_a_workspace_full_meanwhile_serves_another(database: Database, names: dict[UUID, str]) -> None:
    """A claim that is not committed yet counts in other queues as well: they wait for it, and then choose again."""
    first, second = add(database, names, "large", queue="cpu"), add(database, names, "large", queue="gpu")
    other = add(database, names, "small", queue="gpu")
    with ThreadPoolExecutor(1) as threads:
        with database.session_scope() as session:
            chosen = turns.next_in_queue(session, first, threads=None, can_train=True, default_running_jobs=1)
            assert chosen == first
            assert lease.claim(session, first, "test", 45.0)
            meanwhile = threads.submit(take, database, second, most=1)
            wait_for(lambda: somebody_waits(database))
        claim = meanwhile.result()
    assert claim is not None
    assert claim.job_id == other
    assert take(database, second, most=1) is None


def somebody_waits(database: Database) -> bool:
    """For an advisory lock, in this database."""
    own = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with database.session_scope() as session:
        waiting = text(f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {own}")  # noqa: S608 - ours
        return session.execute(waiting).first() is not None


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def call_again(session: Session, wake_up: UUID, *, threads: int = 2, most: int = 0) -> None:
    turns.call_again(session, wake_up, threads=threads, republish_seconds=30.0, default_running_jobs=most)


def test_a_job_that_was_held_back_is_called_again_as_soon_as_it_may_run(
    database: Database, names: dict[UUID, str]
) -> None:
    first, second = add(database, names, "large"), add(database, names, "large")
    with database.session_scope() as session:
        assert len(lease.take_unpublished(session, 3600.0, 1)) == 2
    claim = take(database, first, most=1)
    assert claim is not None
    with database.session_scope() as session:
        assert turns.next_in_queue(session, second, threads=None, can_train=True, default_running_jobs=1) is None
        call_again(session, second, most=1)
        assert lease.take_unpublished(session, 3600.0, 1) == []
    end(database, claim)
    with database.session_scope() as session:
        assert [job_id for job_id, _, _ in lease.take_unpublished(session, 3600.0, 1)] == [second]


def test_a_wake_up_that_a_smaller_worker_took_is_sent_again(database: Database, names: dict[UUID, str]) -> None:
    small, other = add(database, names, "large"), add(database, names, "small", queue="gpu")
    large = [add(database, names, "large", request={"target": {"threads": 8}}) for _ in range(10)]
    with database.session_scope() as session:
        assert len(lease.take_unpublished(session, 30.0)) == 12

    def woken(later_seconds: float) -> list[UUID]:
        with database.session_scope() as session:
            earlier = text("UPDATE jobs SET published_at = published_at - make_interval(secs => :seconds)")
            session.execute(earlier, {"seconds": later_seconds})
            return [job_id for job_id, _, _ in lease.take_unpublished(session, 30.0)]

    # It takes what it can, on the wake-up for another; the one that it left is then of no use to it.
    claim = take(database, large[0], threads=2)
    assert claim is not None
    assert claim.job_id == small
    assert take(database, small, threads=2) is None
    for _ in range(2):  # who comes second puts nothing off
        with database.session_scope() as session:
            call_again(session, small)
    assert woken(0) == [], "at once it would go round and round among small workers"
    assert woken(turns.CALLED_AGAIN_SECONDS) == large[: turns.CALLED_AGAIN_JOBS]
    with database.session_scope() as session:
        call_again(session, other)
        call_again(session, small, threads=8)
    assert woken(turns.CALLED_AGAIN_SECONDS) == [], "another queue's, or for who could take them"


def test_no_large_job_waits_for_those_of_a_workspace_that_may_run_no_more(
    database: Database, names: dict[UUID, str]
) -> None:
    threads = {"target": {"threads": 8}}
    running, small = add(database, names, "large"), add(database, names, "small")
    for _ in range(turns.CALLED_AGAIN_JOBS):
        add(database, names, "large", request=threads)
    large = add(database, names, "other", request=threads)
    assert take(database, running, most=1) is not None
    with database.session_scope() as session:
        lease.take_unpublished(session, 30.0)
        call_again(session, small, most=1)
    with database.session_scope() as session:
        earlier = text("UPDATE jobs SET published_at = published_at - make_interval(secs => :seconds)")
        session.execute(earlier, {"seconds": turns.CALLED_AGAIN_SECONDS})
        assert [job_id for job_id, _, _ in lease.take_unpublished(session, 30.0)] == [large]
