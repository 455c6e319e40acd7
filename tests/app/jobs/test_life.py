"""A job's life, whatever happens in whatever order: a rule machine over the SQL of claims and ends.

Beside the database stands the simplest model of it: of each job its state, and the fence of who holds it. What a
statement answers must be what the model says, and what holds of every job must hold after every step.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.access.service import ensure_workspace
from app.database import Database
from app.jobs import lease, reaping, turns
from app.jobs.lease import Claim, Progress
from app.jobs.reaping import WORKER_LOST
from app.jobs.states import EDGES, TERMINAL, JobState
from app.jobs.tables import JobEventRow, JobRow
from tests.app.jobs.factories import add_job

ENDINGS = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass
class Known:
    """What is known of a job without the database."""

    workspace_id: UUID
    attempts_left: int
    state: JobState = JobState.QUEUED
    fence: int = 0
    cancel_asked: bool = False
    lease_over: bool = False
    successes: int = 0


class Life(RuleBasedStateMachine):
    """Any number of users, workers and housekeepers, one statement after another."""

    database: Database
    jobs = Bundle("jobs")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[UUID, Known] = {}
        self.rows: dict[UUID, dict[str, Any]] = {}

    def do(self, statement: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.database.session_scope() as session:
            return statement(session, *arguments, **named)

    def holds(self, claim: Claim) -> bool:
        job = self.known[claim.job_id]
        return job.state is JobState.RUNNING and job.fence == claim.fence

    # Few jobs, so that much happens to each.
    @precondition(lambda self: len(self.known) < 2)
    @rule(target=jobs, workspace=st.sampled_from(["one", "other"]), attempts=st.integers(1, 3))
    def submit(self, workspace: str, attempts: int) -> UUID:
        workspace_id = self.do(ensure_workspace, workspace)
        job_id = add_job(self.database, workspace_id=workspace_id, max_attempts=attempts)
        self.known[job_id] = Known(workspace_id, attempts)
        return job_id

    @rule(target=claims, job_id=jobs)
    def claim(self, job_id: UUID) -> Any:
        claim = self.do(lease.claim, job_id, "test", 60.0)
        assert (claim is not None) == (self.known[job_id].state is JobState.QUEUED)
        return self.taken(claim)

    @rule(target=claims, job_id=jobs)
    def claim_in_turn(self, job_id: UUID) -> Any:
        def take(session: Session) -> Claim | None:
            chosen = turns.next_in_queue(session, job_id, threads=None, can_train=True, default_running_jobs=0)
            return None if chosen is None else lease.claim(session, chosen, "test", 60.0)

        claim = self.do(take)
        assert (claim is not None) == any(job.state is JobState.QUEUED for job in self.known.values())
        return self.taken(claim)

    def taken(self, claim: Claim | None) -> Any:
        if claim is None:
            return multiple()
        job = self.known[claim.job_id]
        assert claim.fence > job.fence, "the fence rises with every claim"
        job.state, job.fence, job.lease_over = JobState.RUNNING, claim.fence, False
        job.attempts_left -= 1
        return claim

    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        job, held = self.known[claim.job_id], self.holds(claim)
        assert self.do(lease.heartbeat, claim, 60.0) == (job.cancel_asked if held else None)
        job.lease_over &= not held

    @rule(claim=claims, progress=st.floats(0, 1))
    def record(self, claim: Claim, progress: float) -> None:
        answer = self.do(lease.record, claim, Progress(phase="x", progress=progress), [{"type": "log"}])
        assert answer == (self.known[claim.job_id].cancel_asked if self.holds(claim) else None)

    @rule(claim=claims, state=st.sampled_from(ENDINGS))
    def finish(self, claim: Claim, state: JobState) -> None:
        job, held = self.known[claim.job_id], self.holds(claim)
        error = WORKER_LOST if state is JobState.FAILED else None
        assert self.do(lease.finish, claim, state, error=error) is held
        if held:
            job.state = state
            job.successes += state is JobState.SUCCEEDED

    @rule(claim=claims, spend=st.booleans())
    def hand_back(self, claim: Claim, spend: bool) -> None:
        job, held = self.known[claim.job_id], self.holds(claim)
        spend &= job.attempts_left > 0  # as supervisors do: a job without a further attempt fails
        back = {"wait_seconds": 0, "spend_attempt": spend, "reason": "test", "queue_ttl_seconds": 0.0}
        assert self.do(lease.requeue, claim, **back) is held
        if held:
            job.state = JobState.CANCELLED if job.cancel_asked else JobState.QUEUED
            job.attempts_left += not spend and not job.cancel_asked

    @rule(job_id=jobs, noticed=st.booleans())
    def lose_the_worker(self, job_id: UUID, noticed: bool) -> None:
        over = text("UPDATE jobs SET lease_expires_at = now() - interval '1 s' WHERE id = :id AND state = 'running'")
        self.do(lambda session: session.execute(over, {"id": job_id}))
        job = self.known[job_id]
        job.lease_over = job.state is JobState.RUNNING
        if noticed:
            self.reap()

    @rule()
    def reap(self) -> None:
        expected = {}
        for job_id, job in self.known.items():
            if job.state is JobState.RUNNING and job.lease_over:
                again = JobState.QUEUED if job.attempts_left > 0 else JobState.FAILED
                job.state = expected[job_id] = JobState.CANCELLED if job.cancel_asked else again
        assert {lost.job_id: lost.state for lost in self.do(reaping.reap, 0.0, queue_ttl_seconds=0.0)} == expected

    @rule(job_id=jobs)
    def cancel(self, job_id: UUID) -> None:
        job = self.known[job_id]
        assert self.do(lease.cancel, job_id, UUID(int=0)) is None, "another workspace's"
        answer = self.do(lease.cancel, job_id, job.workspace_id)
        if job.state is JobState.QUEUED:
            job.state = JobState.CANCELLED
            assert answer is JobState.CANCELLED
        elif job.state is JobState.RUNNING:
            job.cancel_asked = True
            assert answer is JobState.RUNNING
        else:
            assert answer is None

    @rule(job_id=jobs)
    def wait_too_long(self, job_id: UUID) -> None:
        job = self.known[job_id]
        if job.state is JobState.QUEUED:
            past = text("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = :id")
            self.do(lambda session: session.execute(past, {"id": job_id}))
            assert self.do(lease.claim, job_id, "test", 60.0) is None
            job.state = JobState.EXPIRED
            assert self.do(lease.expire) == [job_id]

    @invariant()
    def every_job_is_as_it_must_be(self) -> None:
        rows, ends = self.do(read, list(self.known))
        for job_id, row in rows.items():
            job, before = self.known[job_id], self.rows.get(job_id, row)
            state, was = JobState(row["state"]), JobState(before["state"])
            assert (state, row["fence"]) == (job.state, job.fence)
            assert state is was or (was, state) in EDGES
            assert row["fence"] >= before["fence"]
            assert was not in TERMINAL or row == before, "a terminal row never changes"
            assert (row["lease_expires_at"] is None) == (state is not JobState.RUNNING)
            assert ends.get(job_id, 0) == (state in TERMINAL), "one event tells of its end"
            assert job.successes <= 1
            assert row["attempt"] <= row["max_attempts"]
        self.rows = rows

    def teardown(self) -> None:
        over = text("UPDATE jobs SET state = 'cancelled', lease_expires_at = NULL WHERE state IN ('queued', 'running')")
        self.do(lambda session: session.execute(over))


def read(session: Session, job_ids: list[UUID]) -> tuple[dict[UUID, dict[str, Any]], dict[UUID, int]]:
    """Every column of every job, and how many events tell of each one's end."""
    rows = session.execute(select(*JobRow.__table__.columns).where(JobRow.id.in_(job_ids)))
    told = (
        select(JobEventRow.job_id, func.count())
        .where(
            JobEventRow.job_id.in_(job_ids), JobEventRow.data["state"].astext.in_([state.value for state in TERMINAL])
        )
        .group_by(JobEventRow.job_id)
    )
    return {row.id: row._asdict() for row in rows}, dict(session.execute(told).all())


def test_whatever_happens_a_job_ends_once_and_nobody_without_the_lease_changes_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Life, "database", database, raising=False)
    bounded = settings(
        max_examples=int(os.environ.get("LATHE_TEST_LIVES", "12")),
        stateful_step_count=30,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Life, settings=bounded)
