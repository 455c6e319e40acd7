"""Who is there to work, how models are confined, and whether jobs get on."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.diagnosis.finding import Finding, ok, problem, warning
from app.errors import OUR_FAULTS
from app.health.confinement import open_layers, remedy
from app.health.service import NEEDED_QUEUES, live_processes
from app.health.tables import WorkerRow
from app.jobs.states import JobState
from app.jobs.tables import JobRow

# Housekeeping takes a lease back within a second or two of its end.
OVERDUE = timedelta(seconds=15)
LONG_WAIT = timedelta(minutes=10)
LATELY = timedelta(days=1)
START_WORKER = (
    "Start one: `lathe serve` has them, with compose the services `worker` and `worker-training`. One that ends at "
    "once says why in its log: LATHE_RUNNER_SANDBOX may demand what its host does not give."
)
FAULTS_SHOWN = 5


def workers(session: Session) -> list[Finding]:
    """Whether somebody takes from every queue, trains, and keeps house; what of the sandbox does not hold."""
    rows = session.scalars(live_processes()).all()
    taking = [row for row in rows if row.queues]
    found = [_housekeeping(len(rows) - len(taking))]
    found += [_queue(queue, sum(queue in row.queues for row in taking)) for queue in NEEDED_QUEUES]
    found.append(_training(sum(row.trains for row in taking)))
    return [*found, *(_confined(row) for row in taking), *_versions(taking)]


def _housekeeping(count: int) -> Finding:
    if count:
        return ok("housekeeping", "It keeps house.")
    remedy = (
        "Start it (`python -m worker.housekeeping`; with compose the service `housekeeping`): without it the jobs of "
        "dead workers are not taken back, and garbage is not collected."
    )
    return problem("housekeeping", "Nobody keeps house.", remedy)


def _queue(queue: str, count: int) -> Finding:
    if count:
        return ok(f"worker {queue}", f"{count} on the queue `{queue}`.")
    return problem(f"worker {queue}", f"Nobody takes jobs from the queue `{queue}`.", START_WORKER)


def _training(count: int) -> Finding:
    if count:
        return ok("training", f"{count} can train.")
    remedy = "Install the extra `training` where a worker runs, or start `worker-training`. Without it jobs that train "
    return warning("training", "No worker can train.", remedy + "are answered 409; all others run.")


def _confined(row: WorkerRow) -> Finding:
    missing = open_layers(row.confinement)
    if not missing:
        return ok("sandbox", f"{row.name}: every layer holds ({', '.join(sorted(row.confinement))}).")
    words = f"{row.name}: these layers do not hold against a model that tries to break out: {', '.join(missing)}."
    return warning("sandbox", words, remedy(missing))


def _versions(rows: Sequence[WorkerRow]) -> list[Finding]:
    """Libraries of which not all workers have the same version: a job's result would depend on who takes it."""
    seen: dict[str, set[Any]] = {}
    for row in rows:
        for library, version in row.versions.items():
            if version is not None:
                seen.setdefault(library, set()).add(str(version))
    unlike = sorted(f"{library} {', '.join(sorted(found))}" for library, found in seen.items() if len(found) > 1)
    if not unlike:
        return []
    return [warning("versions", f"Workers differ in {'; '.join(unlike)}.", "Install all with constraints.txt.")]


def jobs(session: Session) -> list[Finding]:
    """Jobs whose lease is over, that wait long, or failed by a fault that was not their users'."""
    return [_leases(session), _waiting(session), _failures(session)]


def _leases(session: Session) -> Finding:
    over = JobRow.lease_expires_at < func.now() - OVERDUE
    count = session.scalar(select(func.count()).where(JobRow.state == JobState.RUNNING, over)) or 0
    if not count:
        return ok("leases", "No running job is past its lease.")
    return problem("leases", f"{count} running jobs are past their lease.", "Housekeeping takes them back: start it.")


def _waiting(session: Session) -> Finding:
    age = func.now() - func.min(JobRow.due_at)
    oldest = session.execute(
        select(JobRow.queue, age.label("age"), func.count().label("jobs"))
        .where(JobRow.state == JobState.QUEUED)
        .group_by(JobRow.queue)
        .order_by(age.desc())
        .limit(1)
    ).first()
    if oldest is None or oldest.age < LONG_WAIT:
        return ok("queue", "No job waits long.")
    minutes = oldest.age.total_seconds() / 60
    words = f"{oldest.jobs} jobs wait on `{oldest.queue}`, the oldest for {minutes:.0f} minutes."
    remedy = "Start more workers; or no worker has as many threads as it asks for, or its workspace may run no more."
    return warning("queue", words, remedy)


def _failures(session: Session) -> Finding:
    failed = select(JobRow.error["code"].astext).where(
        JobRow.state == JobState.FAILED,
        JobRow.finished_at > func.now() - LATELY,
        JobRow.error["code"].astext.in_(OUR_FAULTS),
    )
    codes = Counter(session.scalars(failed))
    if not codes:
        return ok("failures", "No job failed by a fault of the service in the last day.")
    words = ", ".join(f"{count} x {code}" for code, count in codes.most_common(FAULTS_SHOWN))
    return warning("failures", f"In the last day jobs failed by our fault: {words}.", "The workers' logs say why.")
