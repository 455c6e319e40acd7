"""A cancel that races the end of an attempt, in any order of their statements: both transactions are real."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import Database
from app.jobs import lease
from app.jobs.lease import Claim
from app.jobs.reaping import WORKER_LOST
from app.jobs.states import JobState
from app.jobs.tables import JobEventRow, JobRow
from tests.app.jobs.factories import add_job

LONGEST_PAUSE_SECONDS = 0.002
ENDINGS: dict[str, Callable[[Session, Claim], bool]] = {
    "succeeds": lambda session, claim: lease.finish(session, claim, JobState.SUCCEEDED),
    "fails": lambda session, claim: lease.finish(session, claim, JobState.FAILED, error=WORKER_LOST),
    "is handed back": lambda session, claim: lease.requeue(
        session, claim, wait_seconds=0, spend_attempt=False, reason="worker_stopped", queue_ttl_seconds=0.0
    ),
}


@dataclass
class Races:
    """How they went, and what must not have been."""

    outcomes: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)


def race(database: Database, workspace_id: UUID, rounds: int, seed: int) -> Races:
    """So many jobs, each cancelled while its attempt ends."""
    races, drawn = Races(), random.Random(seed)  # noqa: S311 - it need not be secret
    for _ in range(rounds):
        job_id = add_job(database, workspace_id=workspace_id)
        with database.session_scope() as session:
            claim = lease.claim(session, job_id, "race", 60.0)
        if claim is None:
            races.complaints.append(f"job {job_id} could not be claimed")
            continue
        ending = drawn.choice(list(ENDINGS))
        ended, answer = _race_once(database, claim, ENDINGS[ending], drawn)
        state, ends, asked = _read(database, job_id)
        races.outcomes[f"{ending}; the cancel is told {answer or 'that it is over'}; {state}"] += 1
        races.complaints += _complaints(ending, ended, answer, state, ends, asked)
    return races


def _race_once(
    database: Database, claim: Claim, end: Callable[[Session, Claim], bool], drawn: random.Random
) -> tuple[bool, JobState | None]:
    ended: list[bool] = []
    answers: list[JobState | None] = []
    pauses = [drawn.uniform(0, LONGEST_PAUSE_SECONDS) * drawn.randrange(2) for _ in range(4)]

    def finish() -> None:
        with database.session_scope() as session:
            time.sleep(pauses[0])
            ended.append(end(session, claim))
            time.sleep(pauses[1])

    def cancel() -> None:
        with database.session_scope() as session:
            time.sleep(pauses[2])
            answers.append(lease.cancel(session, claim.job_id, claim.workspace_id))
            time.sleep(pauses[3])

    both = [threading.Thread(target=finish), threading.Thread(target=cancel)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    return ended[0], answers[0]


def _read(database: Database, job_id: UUID) -> tuple[JobState, int, bool]:
    """Its state, how many events tell of an end, and whether its cancel is asked for."""
    over = ("succeeded", "failed", "cancelled")
    events = select(func.count()).where(JobEventRow.job_id == job_id, JobEventRow.data["state"].astext.in_(over))
    with database.session_scope() as session:
        job = session.get_one(JobRow, job_id)
        return JobState(job.state), session.execute(events).scalar_one(), job.cancel_requested_at is not None


def _complaints(
    ending: str, ended: bool, answer: JobState | None, state: JobState, ends: int, asked: bool
) -> list[str]:
    came_to = {"succeeds": JobState.SUCCEEDED, "fails": JobState.FAILED, "is handed back": JobState.CANCELLED}[ending]
    found = []
    if not ended:
        found.append(f"an attempt that {ending} was told that it has lost its lease")
    if state is not came_to:
        found.append(f"a job that {ending} while it is cancelled is {state}; the cancel was told {answer}")
    if ends != (state not in {JobState.QUEUED, JobState.RUNNING}):
        found.append(f"{ends} events tell of the end of a job that is {state}")
    if answer is not None and not asked:
        found.append("a cancel was accepted and forgotten")
    if (answer is None) and came_to is JobState.CANCELLED:
        found.append("a cancel was refused of a job that was not over")
    return found
