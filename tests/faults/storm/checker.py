"""What must hold once a storm is over, whatever struck: each function names what does not."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from uuid import UUID

from app.jobs.states import EDGES, TERMINAL
from tests.faults.storm.evidence import Evidence, StateEvent
from tests.faults.storm.plan import Fate

# How a job may end that nothing is wrong with: the service lost its worker on every attempt, or the time that the user
# gave went by while its processes stood still.
GIVEN_UP = frozenset({"worker_lost", "runner_crashed", "measurement_failed", "time_limit", "budget_exhausted"})
ANSWERS = frozenset({202, 429, 503})
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
    """No good model is called bad, no bad one is optimized, and nothing is cancelled that nobody cancelled."""
    for job in found.jobs.values():
        sent = found.told.jobs.get(job.number if job.number is not None else -1)
        if sent is None:
            continue
        own = job.code if job.state == "failed" and job.code not in GIVEN_UP else None
        if sent.fate in {Fate.SUCCESS, Fate.CANCEL} and own is not None:
            yield f"job {job.id} of a good model failed by {own}"
        if sent.fate == Fate.OWN_FAULT and job.state == "succeeded":
            yield f"job {job.id} of a model that cannot be run succeeded"
        if job.state == "cancelled" and sent.fate != Fate.CANCEL:
            yield f"job {job.id} was cancelled by nobody"
        if job.state == "expired":
            yield f"job {job.id} expired"


def what_succeeded_delivered_once(found: Evidence) -> Complaints:
    """A model and its manifest of each job that succeeded, the same bytes for the same model, and of others nothing."""
    kinds: dict[object, Counter[str]] = defaultdict(Counter)
    delivered: dict[object, set[str]] = defaultdict(set)
    for artifact in found.artifacts:
        kinds[artifact.job_id][artifact.kind] += 1
        job = found.jobs[artifact.job_id]
        if artifact.kind == "model":
            delivered[job.model_id].add(artifact.sha256)
        if artifact.provisional or artifact.workspace != job.workspace:
            yield f"an artifact of job {job.id} is provisional, or another workspace's"
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
    """What bears the mark of a workspace lies in it."""
    for blob in found.blobs:
        file = found.files.get(blob.key)
        if file is not None and not file.marks <= {blob.workspace}:
            yield f"the file {blob.key} of {blob.workspace} bears the marks {sorted(file.marks)}"


def what_was_over_never_changed(found: Evidence) -> Complaints:
    for job_id, digest in found.first_digests.items():
        if found.last_digests.get(job_id) != digest:
            yield f"job {job_id} changed after it was over"


def nothing_is_left_over(found: Evidence) -> Complaints:
    for process in found.processes:
        yield f"a process still runs: {process}"
    for folder in found.folders:
        yield f"the work folder {folder} is still there"


INVARIANTS: tuple[Callable[[Evidence], Complaints], ...] = (
    what_was_accepted_ended_once,
    no_sound_request_was_refused,
    nothing_was_made_that_nobody_sent,
    every_claim_raised_the_fence,
    states_followed_each_other,
    a_worker_that_was_asked_to_stop_spent_no_attempt,
    jobs_ended_as_they_had_to,
    what_succeeded_delivered_once,
    files_are_what_rows_say,
    nothing_crossed_workspaces,
    what_was_over_never_changed,
    nothing_is_left_over,
)


def _of_number(found: Evidence) -> dict[int, list[UUID]]:
    """The jobs of each request; inspections have none."""
    jobs: dict[int, list[UUID]] = defaultdict(list)
    for job in found.jobs.values():
        if job.number is not None:
            jobs[job.number].append(job.id)
    return jobs
