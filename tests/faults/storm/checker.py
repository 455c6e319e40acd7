"""What must hold once a storm is over, whatever struck: each function names what does not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from uuid import UUID

from app.errors import OUR_FAULTS, OurFault
from app.jobs.states import EDGES, TERMINAL, JobKind
from tests.faults.storm.evidence import Evidence, JobFact, StateEvent
from tests.faults.storm.installation import WORKERS
from tests.faults.storm.journal import ACCEPTED, CancelAnswer
from tests.faults.storm.plan import Fate

# How a job may end that nothing is wrong with: the service lost its worker on every attempt, or the time that the user
# gave went by while its processes stood still.
LOST = frozenset({"worker_lost", "runner_crashed"})
OUT_OF_TIME = frozenset({"measurement_failed", "time_limit", "budget_exhausted"})
GIVEN_UP = LOST | OUT_OF_TIME
AWAY = frozenset({429, 503})
ANSWERS = AWAY | {ACCEPTED}
OVER = 409
# What a strike held up is let go at its end, and may still harm an attempt that begins by then.
AFTERMATH = timedelta(seconds=5)
Complaints = Iterator[str]


def check(found: Evidence) -> list[str]:
    """Every invariant that is broken, in words."""
    return [f"{invariant.__name__}: {complaint}" for invariant in INVARIANTS for complaint in invariant(found)]


def what_was_accepted_ended_once(found: Evidence) -> Complaints:
    """Every 202 stands for a job that is over, and of whose one end one event tells."""
    of_number = _of_number(found)
    for sent in found.told.jobs.values():
        if len(sent.job_ids) > 1:
            yield f"request {sent.number} was answered with {len(sent.job_ids)} jobs"
        for job_id in sent.job_ids:
            if job_id not in {str(known) for known in of_number.get(sent.number, [])}:
                yield f"job {job_id} was accepted and is not there"
    for job in found.jobs.values():
        ends = [event.state for event in found.events.get(job.id, []) if event.state in TERMINAL]
        if job.state not in TERMINAL or ends != [job.state]:
            yield f"job {job.id} is {job.state}, and its events tell of these ends: {ends}"


def no_sound_request_was_refused(found: Evidence) -> Complaints:
    """All of them are sound: whoever cannot take one says that it is to come again."""
    for sent in found.told.jobs.values():
        for status in set(sent.answers) - ANSWERS:
            yield f"request {sent.number} was answered {status}"


def nothing_was_made_that_nobody_sent(found: Evidence) -> Complaints:
    """Every job is one that a client sent, and none was made twice of one request."""
    for number, jobs in _of_number(found).items():
        sent = found.told.jobs.get(number)
        if sent is None:
            yield f"nobody sent request {number} of job {jobs[0]}"
        elif len(jobs) > 1:
            yield f"of request {number} {len(jobs)} jobs were made"
        elif found.jobs[jobs[0]].workspace != found.workspaces[sent.workspace]:
            yield f"job {jobs[0]} is in another workspace than its request"


def every_claim_raised_the_fence(found: Evidence) -> Complaints:
    """A fence counts the claims of its job, and the attempts that were spent stay within their limit."""
    for job in found.jobs.values():
        claims = sum(event.state == "running" for event in found.events.get(job.id, []))
        if claims != job.fence:
            yield f"job {job.id} was claimed {claims} times, and its fence is {job.fence}"
        if job.attempt > job.max_attempts:
            yield f"job {job.id} spent {job.attempt} of {job.max_attempts} attempts"


def states_followed_each_other(found: Evidence) -> Complaints:
    """Claimed, then handed back or over: nobody ended or gave back what somebody else held."""
    for job in found.jobs.values():
        state = "queued"
        for event in found.events.get(job.id, []):
            if (state, event.state) not in EDGES:
                yield f"job {job.id} went from {state} to {event.state}"
            state = event.state


def a_worker_that_was_asked_to_stop_spent_no_attempt(found: Evidence) -> Complaints:
    for job in found.jobs.values():
        before: StateEvent | None = None
        stopped = False
        for event in found.events.get(job.id, []):
            if event.state == "running":
                if stopped and before is not None and event.attempt != before.attempt:
                    yield f"job {job.id} went from attempt {before.attempt} to {event.attempt} by a graceful stop"
                before, stopped = event, False
            elif event.reason == "worker_stopped":
                stopped = True


def jobs_ended_as_they_had_to(found: Evidence) -> Complaints:
    """No good model is called bad, no bad one is optimized, and nothing waits until it is too late."""
    for job in found.jobs.values():
        fate = _fate(found, job)
        own = job.code if job.state == "failed" and job.code not in GIVEN_UP else None
        if fate in {Fate.SUCCESS, Fate.CANCEL} and own is not None:
            yield f"job {job.id} of a good model failed by {own}"
        if fate == Fate.OWN_FAULT and job.state == "succeeded":
            yield f"job {job.id} of a model that cannot be run succeeded"
        if job.state == "expired":
            yield f"job {job.id} expired"


def cancels_were_kept(found: Evidence) -> Complaints:
    """Once its cancel is accepted, a job is neither put back nor run anew: where it runs by then, that attempt may come
    to its own end first. Of a cancel whose answer was lost the row says whether it was accepted, and the same holds.
    """
    jobs = {str(job.id): job for job in found.jobs.values()}
    for job_id, answers in found.told.cancels.items():
        for answer in answers:
            if job_id in jobs:
                yield from _broken_promises(found, jobs[job_id], answer)
    for job in found.jobs.values():
        if job.cancel_requested_at is not None:
            yield from _went_on(found, job, job.cancel_requested_at, "its row says that it is cancelled")
        if (job.cancel_requested_at is not None or job.state == "cancelled") and str(job.id) not in found.told.cancels:
            yield f"job {job.id} was cancelled by nobody"
        if job.cancel_requested_at is None and job.state == "cancelled":
            yield f"job {job.id} is cancelled, and its row does not say since when"


def _broken_promises(found: Evidence, job: JobFact, answer: CancelAnswer) -> Complaints:
    """202 says that the job is cancelled, or that it is asked to stop; 409 that it was over before."""
    if answer.status == ACCEPTED:
        if job.cancel_requested_at is None:
            yield f"the cancel of job {job.id} was accepted and forgotten"
        if answer.state not in {"cancelled", "running"}:
            yield f"the cancel of job {job.id} was accepted with the state {answer.state}"
        if answer.state == "cancelled" and job.state != "cancelled":
            yield f"job {job.id} was said to be cancelled and is {job.state}"
        yield from _went_on(found, job, answer.at, "its cancel was accepted")
    elif answer.status == OVER:
        if any(event.created_at > answer.at for event in found.events.get(job.id, [])):
            yield f"job {job.id} was said to be over and went on"
    elif answer.status not in AWAY:
        yield f"the cancel of job {job.id} was answered {answer.status}"


def _went_on(found: Evidence, job: JobFact, since: datetime, why: str) -> Complaints:
    for event in found.events.get(job.id, []):
        if event.created_at > since and event.state not in TERMINAL:
            yield f"job {job.id} came to be {event.state} after {why}"
    if job.code == OurFault.WORKER_LOST:
        yield f"job {job.id} was given up as {job.code} though {why}"


def what_was_given_up_had_been_struck(found: Evidence) -> Complaints:
    """Of the jobs that should have succeeded: each attempt that was spent met a strike that may cost one, and all of
    them are no more than strikes explain, each of which takes from a worker the attempt that it runs, and no other.

    Whose time went by without a strike met a busy machine. Their time is many times what they take: where more than one
    of them met it, and more than succeeded, it was the service.
    """
    good = [job for job in found.jobs.values() if _fate(found, job) in {Fate.SUCCESS, Fate.CANCEL}]
    explained = slow = 0
    for job in good:
        if job.state != "failed" or job.code not in GIVEN_UP:
            continue
        attempts = _attempts(found.events.get(job.id, []))
        if job.code in OUT_OF_TIME:
            attempts = attempts[-1:]  # it ends at once
        elif len(attempts) < job.max_attempts:
            yield f"job {job.id} was given up ({job.code}) after {len(attempts)} of {job.max_attempts} attempts"
        for began, ended in attempts:
            if _was_struck(found, began, ended):
                explained += 1
            elif job.code in OUT_OF_TIME:
                slow += 1
            else:
                yield f"job {job.id} was given up ({job.code}), and nothing struck its attempt at {began}"
    most = len(WORKERS) * sum(strike.spends and not strike.skipped for strike in found.strikes)
    if explained > most:
        yield f"jobs were given up after {explained} attempts, and strikes explain {most}"
    if slow > max(1, sum(job.state == "succeeded" for job in good)):
        yield f"{slow} jobs ran out of their time that nothing struck, more than succeeded"


def _attempts(events: Iterable[StateEvent]) -> list[tuple[datetime, datetime]]:
    """Those that were spent: of all with one number the last one, as those before it were for nothing."""
    spent = {
        event.attempt: (event.created_at, after.created_at)
        for event, after in pairwise(events)
        if event.state == "running"
    }
    return list(spent.values())


def _was_struck(found: Evidence, began: datetime, ended: datetime) -> bool:
    return any(
        strike.at <= ended and began <= strike.at + timedelta(seconds=strike.seconds) + AFTERMATH
        for strike in found.strikes
        if strike.spends and not strike.skipped
    )


def every_inspection_was_asked_for(found: Evidence) -> Complaints:
    """An upload that was accepted starts one, and the same bytes again start another after a fault of ours alone."""
    uploaded = {(found.workspaces[workspace], sha256) for workspace, sha256 in found.told.uploads}
    inspections: dict[object, list[JobFact]] = defaultdict(list)
    for job in found.jobs.values():
        if job.kind == JobKind.OPTIMIZE:
            continue
        model = found.models.get(job.model_id) if job.model_id else None
        if job.kind != JobKind.INSPECT_MODEL or model is None:
            yield f"job {job.id} inspects nothing that was uploaded"
        elif job.workspace != model.workspace:
            yield f"job {job.id} of {job.workspace} inspects model {model.id} of {model.workspace}"
        else:
            inspections[model.id].append(job)
    for model in found.models.values():
        if (model.workspace, model.sha256) not in uploaded:
            yield f"nobody uploaded model {model.id} to {model.workspace}"
        settled = [job for job in inspections[model.id] if job.state != "failed" or job.code not in OUR_FAULTS]
        if not inspections[model.id] or len(settled) > 1:
            yield f"model {model.id} was inspected {len(inspections[model.id])} times, {len(settled)} of them for good"


def what_was_uploaded_is_there(found: Evidence) -> Complaints:
    """Every model that an answer named, with the bytes that were sent, in the workspace that sent them."""
    models = {str(model.id): (model.workspace, model.sha256) for model in found.models.values()}
    for (workspace, sha256), model_ids in found.told.uploads.items():
        for model_id in model_ids:
            if models.get(model_id) != (found.workspaces[workspace], sha256):
                yield f"model {model_id} was accepted in {found.workspaces[workspace]} and is not there"


def what_succeeded_delivered_once(found: Evidence) -> Complaints:
    """A model and its manifest of each job that succeeded, the same bytes for the same model, and of others nothing."""
    kinds: dict[object, Counter[str]] = defaultdict(Counter)
    delivered: dict[object, set[str]] = defaultdict(set)
    for artifact in found.artifacts:
        kinds[artifact.job_id][artifact.kind] += 1
        job = found.jobs[artifact.job_id]
        if artifact.kind == "model":
            delivered[job.model_id].add(artifact.sha256)
        if artifact.provisional:
            yield f"an artifact of job {job.id} is provisional"
    for job in found.jobs.values():
        expected = {"model": 1, "manifest": 1} if job.state == "succeeded" and job.kind == "optimize" else {}
        if kinds[job.id] != expected:
            yield f"job {job.id}, {job.state}, delivered {dict(kinds[job.id])}"
    for model_id, hashes in delivered.items():
        if len(hashes) > 1:
            yield f"jobs on model {model_id} delivered {len(hashes)} different files"


def files_are_what_rows_say(found: Evidence) -> Complaints:
    """A file in storage for every row that names one, with that hash, and none beside."""
    rows = {blob.key: blob.sha256 for blob in found.blobs}
    for artifact in found.artifacts:
        if rows.get(artifact.key) != artifact.sha256:
            yield f"the artifact of job {artifact.job_id} has another hash than its blob"
    for key in sorted(rows.keys() | found.files.keys()):
        file = found.files.get(key)
        if file is None:
            yield f"the file {key} is gone"
        elif key not in rows:
            yield f"no row names the file {key}"
        elif file.sha256 != rows[key]:
            yield f"the file {key} is not what its row says"


def nothing_crossed_workspaces(found: Evidence) -> Complaints:
    """What bears the mark of a workspace lies in it, rows refer to rows of their own one, and lists show its jobs."""
    for blob in found.blobs:
        file = found.files.get(blob.key)
        if file is not None and not file.marks <= {blob.workspace}:
            yield f"the file {blob.key} of {blob.workspace} bears the marks {sorted(file.marks)}"
    for tie in found.ties:
        if tie.workspace != tie.other:
            yield f"{tie.what}: {tie.rows} rows of {tie.workspace} have to do with {tie.other}"
    of_workspace = {str(job.id): job.workspace for job in found.jobs.values()}
    for number, job_ids in found.told.listed.items():
        workspace = found.workspaces[number]
        for job_id in job_ids:
            if of_workspace.get(job_id) != workspace:
                yield f"{workspace} was shown job {job_id}"


def what_was_over_never_changed(found: Evidence) -> Complaints:
    for job_id, digest in found.first_digests.items():
        if found.last_digests.get(job_id) != digest:
            yield f"job {job_id} changed after it was over"


def nothing_is_left_over(found: Evidence) -> Complaints:
    for process in found.processes:
        yield f"a process still runs: {process}"
    for path in found.left_over:
        yield f"{path} is still there"


INVARIANTS: tuple[Callable[[Evidence], Complaints], ...] = (
    what_was_accepted_ended_once,
    no_sound_request_was_refused,
    nothing_was_made_that_nobody_sent,
    every_claim_raised_the_fence,
    states_followed_each_other,
    a_worker_that_was_asked_to_stop_spent_no_attempt,
    jobs_ended_as_they_had_to,
    cancels_were_kept,
    what_was_given_up_had_been_struck,
    every_inspection_was_asked_for,
    what_was_uploaded_is_there,
    what_succeeded_delivered_once,
    files_are_what_rows_say,
    nothing_crossed_workspaces,
    what_was_over_never_changed,
    nothing_is_left_over,
)


def _fate(found: Evidence, job: JobFact) -> str | None:
    """What the job was meant to come to; None of an inspection, and of one that nobody sent."""
    sent = None if job.number is None else found.told.jobs.get(job.number)
    return None if sent is None else sent.fate


def _of_number(found: Evidence) -> dict[int, list[UUID]]:
    """The jobs of each request; inspections have none."""
    jobs: dict[int, list[UUID]] = defaultdict(list)
    for job in found.jobs.values():
        if job.number is not None:
            jobs[job.number].append(job.id)
    return jobs
