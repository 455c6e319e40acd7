"""The checker of storms finds what is broken: each invariant is broken once, and named."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.faults.storm.checker import INVARIANTS, check
from tests.faults.storm.crossing import Tie
from tests.faults.storm.evidence import (
    ArtifactFact,
    BlobFact,
    Evidence,
    FileFact,
    JobFact,
    ModelFact,
    StateEvent,
    Struck,
)
from tests.faults.storm.journal import CancelAnswer, Sent, Told
from tests.faults.storm.plan import Fate

GOOD, BAD, GIVEN_BACK, STOPPED, CANCELLED, LATE, LOST = (UUID(int=number) for number in range(1, 8))
INSPECTION, BROKEN_INSPECTION = UUID(int=21), UUID(int=22)
MODEL, BROKEN_MODEL = UUID(int=11), UUID(int=12)
START = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = START + timedelta(seconds=0.5)


def _events(*states: str | tuple[str, int | None, str | None]) -> list[StateEvent]:
    found = []
    for number, state in enumerate(states):
        name, attempt, reason = (state, None, None) if isinstance(state, str) else state
        found.append(StateEvent(START + timedelta(seconds=number), name, reason, attempt))
    return found


def _job(job_id: UUID, number: int | None, model_id: UUID = MODEL, **columns: object) -> JobFact:
    usual = {"kind": "optimize", "state": "succeeded", "attempt": 1, "max_attempts": 3, "fence": 1, "code": None}
    usual |= {"cancel_requested_at": None}
    return JobFact(job_id, "left", number=number, model_id=model_id, **(usual | columns))


def _struck(seconds: float) -> Struck:
    """A strike a while after `START`."""
    return Struck(0, "kill -9 of a runner", 0, START + timedelta(seconds=seconds), 0.0, "worker-1", spends=True)


def sound() -> Evidence:
    """A job that succeeded, one whose model is broken, one taken back from a dead worker, one handed back, two that
    were cancelled while they ran, one of which came to its end all the same, and one that lost its worker three times.
    """
    found = Evidence(Told(), ("left", "right"))
    jobs = [
        _job(GOOD, 0),
        _job(BAD, 1, BROKEN_MODEL, state="failed", code="model_fails"),
        _job(GIVEN_BACK, 2, attempt=2, fence=2),
        _job(STOPPED, 3, fence=2),
        _job(CANCELLED, 4, state="cancelled", cancel_requested_at=ASKED),
        _job(LATE, 5, cancel_requested_at=ASKED),
        _job(LOST, 6, state="failed", code="worker_lost", attempt=3, fence=3),
    ]
    fates = [Fate.SUCCESS, Fate.OWN_FAULT, *[Fate.SUCCESS] * 2, *[Fate.CANCEL] * 2, Fate.SUCCESS]
    found.jobs = {job.id: job for job in jobs}
    for job, fate in zip(jobs, fates, strict=True):
        number = job.number or 0
        found.told.jobs[number] = Sent(number, 0, fate, 1, [202], {str(job.id)})
        if job.state == "succeeded":
            found.artifacts += [
                ArtifactFact(job.id, "left", "model", "a1", False, "blobs/left/1"),
                ArtifactFact(job.id, "left", "manifest", "b2", False, "blobs/left/2"),
            ]
    found.events[GOOD] = _events(("running", 1, None), "succeeded")
    found.events[BAD] = _events(("running", 1, None), "failed")
    lost, stopped = ("queued", None, "lease_over"), ("queued", None, "worker_stopped")
    found.events[CANCELLED] = _events(("running", 1, None), "cancelled")
    found.events[LATE] = _events(("running", 1, None), "succeeded")
    found.events[LOST] = _events(*(event for number in (1, 2) for event in (("running", number, None), lost)))
    found.events[LOST] += [StateEvent(START + timedelta(minutes=1), "running", attempt=3)]
    found.events[LOST] += [StateEvent(START + timedelta(minutes=2), "failed")]
    found.strikes = [_struck(0.5), _struck(90)]
    for job_id in (CANCELLED, LATE):
        found.told.cancels[str(job_id)] = [CancelAnswer(ASKED, 202, "running")]
    _inspect(found)
    found.told.listed[0] = {str(GOOD), str(BAD)}
    found.ties = [Tie("jobs.model_id", "left", "left", 9), Tie("reports", "left", "left", 4)]
    found.events[GIVEN_BACK] = _events(("running", 1, None), lost, ("running", 2, None), "succeeded")
    found.events[STOPPED] = _events(("running", 1, None), stopped, ("running", 1, None), "succeeded")
    found.blobs = [BlobFact("blobs/left/1", "a1", "left"), BlobFact("blobs/left/2", "b2", "left")]
    found.files = {
        "blobs/left/1": FileFact("a1", frozenset({"left"})),
        "blobs/left/2": FileFact("b2", frozenset()),
    }
    found.first_digests = dict.fromkeys(found.jobs, "as it was")
    found.last_digests = dict(found.first_digests)
    return found


def _inspect(found: Evidence) -> None:
    """Two models, which were uploaded and inspected."""
    for job_id, model_id, sha256 in ((INSPECTION, MODEL, "aa"), (BROKEN_INSPECTION, BROKEN_MODEL, "bb")):
        found.jobs[job_id] = _job(job_id, None, model_id, kind="inspect_model")
        found.events[job_id] = _events(("running", 1, None), "succeeded")
        found.models[model_id] = ModelFact(model_id, "left", sha256)
        found.told.uploads[0, sha256] = {str(model_id)}


@dataclass(frozen=True)
class Breach:
    """Something that went wrong, and the invariant that it breaks."""

    invariant: str
    happen: Callable[[Evidence], object]
    id: str


def _change(job_id: UUID, **columns: object) -> Callable[[Evidence], object]:
    return lambda found: found.jobs.update({job_id: replace(found.jobs[job_id], **columns)})


def _twice(found: Evidence) -> None:
    """Request 0 made a second job, of which the client never heard."""
    other = UUID(int=99)
    found.jobs[other] = replace(found.jobs[BAD], id=other, number=1)
    found.events[other] = list(found.events[BAD])


def _asked(found: Evidence, job_id: UUID, status: int = 202, state: str | None = "running") -> None:
    """A client cancelled the job, and was told this after its last event but one."""
    found.told.cancels[str(job_id)] = [CancelAnswer(ASKED, status, state)]


def _run_anew(found: Evidence) -> None:
    """A cancel that was accepted is forgotten by the hand-back of its job, which runs again and succeeds."""
    _asked(found, STOPPED)


def _run_anew_unheard(found: Evidence) -> None:
    """As above, of a cancel whose answer was lost: the row says that it was accepted."""
    found.told.cancels[str(STOPPED)] = []
    found.jobs[STOPPED] = replace(found.jobs[STOPPED], cancel_requested_at=ASKED)


def _inspected_again(found: Evidence) -> None:
    """A model that was found sound is inspected once more."""
    other = UUID(int=98)
    found.jobs[other] = replace(found.jobs[INSPECTION], id=other)
    found.events[other] = list(found.events[INSPECTION])


def _crash(found: Evidence) -> None:
    """A good job fails by its runner, on each of the attempts allowed, though nothing struck."""
    found.jobs[GOOD] = replace(found.jobs[GOOD], state="failed", code="runner_crashed", attempt=3, fence=3)
    crashed = ("queued", None, "crashed")
    attempts = [("running", 1, None), crashed, ("running", 2, None), crashed, ("running", 3, None), "failed"]
    hour = timedelta(hours=1)
    found.events[GOOD] = [replace(event, created_at=event.created_at + hour) for event in _events(*attempts)]


def _crash_all_under_one_strike(found: Evidence) -> None:
    """More attempts are lost than two workers run."""
    for job_id in (GOOD, GIVEN_BACK):
        found.jobs[job_id] = replace(found.jobs[LOST], id=job_id, number=found.jobs[job_id].number)
        found.events[job_id] = list(found.events[LOST])


def _run_out_of_time(found: Evidence) -> None:
    """Most of the good jobs end by their time, long after the strikes."""
    for job_id in (GOOD, GIVEN_BACK, STOPPED):
        found.jobs[job_id] = replace(found.jobs[job_id], state="failed", code="time_limit")
        found.events[job_id] = [
            StateEvent(START + timedelta(hours=1), "running", attempt=1),
            StateEvent(START + timedelta(hours=2), "failed"),
        ]


BREACHES = [
    Breach("what_was_accepted_ended_once", lambda found: found.jobs.pop(BAD), "a job that was accepted is missing"),
    Breach("what_was_accepted_ended_once", _change(BAD, state="queued"), "a job is not over"),
    Breach("what_was_accepted_ended_once", lambda found: found.events[GOOD].pop(), "no event tells of an end"),
    Breach(
        "what_was_accepted_ended_once",
        lambda found: found.events[GOOD].extend(_events("succeeded")),
        "a job succeeded twice",
    ),
    Breach(
        "what_was_accepted_ended_once",
        lambda found: found.told.jobs[0].job_ids.add(str(BAD)),
        "two jobs were accepted of one request",
    ),
    Breach("no_sound_request_was_refused", lambda found: found.told.jobs[0].answers.append(500), "an answer of 500"),
    Breach("nothing_was_made_that_nobody_sent", lambda found: found.told.jobs.pop(1), "nobody sent it"),
    Breach("nothing_was_made_that_nobody_sent", _twice, "a job was made twice"),
    Breach("nothing_was_made_that_nobody_sent", _change(BAD, workspace="right"), "a job is in another workspace"),
    Breach("every_claim_raised_the_fence", _change(GIVEN_BACK, fence=1), "a claim did not raise the fence"),
    Breach("every_claim_raised_the_fence", _change(GIVEN_BACK, attempt=4), "too many attempts"),
    Breach(
        "states_followed_each_other",
        lambda found: found.events[GIVEN_BACK].pop(1),
        "a job was claimed while somebody held it",
    ),
    Breach(
        "a_worker_that_was_asked_to_stop_spent_no_attempt",
        lambda found: found.events.update({STOPPED: _replaced(found.events[STOPPED], 2, attempt=2)}),
        "a graceful stop spent an attempt",
    ),
    Breach(
        "jobs_ended_as_they_had_to", _change(GOOD, state="failed", code="model_fails"), "a good model is called bad"
    ),
    Breach("jobs_ended_as_they_had_to", _change(BAD, state="succeeded"), "a broken model was optimized"),
    Breach("jobs_ended_as_they_had_to", _change(GOOD, state="expired"), "a job expired"),
    Breach("cancels_were_kept", _run_anew, "a job runs anew after its cancel was accepted"),
    Breach("cancels_were_kept", _run_anew_unheard, "a job runs anew after a cancel whose answer was lost"),
    Breach("cancels_were_kept", _change(LATE, cancel_requested_at=None), "an accepted cancel is not in the row"),
    Breach(
        "cancels_were_kept", lambda found: _asked(found, LATE, state="cancelled"), "said to be cancelled, and succeeded"
    ),
    Breach(
        "cancels_were_kept",
        lambda found: _asked(found, LATE, state="succeeded"),
        "a cancel of what is over is accepted",
    ),
    Breach("cancels_were_kept", lambda found: _asked(found, GOOD, 409, None), "said to be over, and went on"),
    Breach("cancels_were_kept", lambda found: _asked(found, GOOD, 404, None), "a job that is there is not found"),
    Breach("cancels_were_kept", _change(LATE, state="failed", code="worker_lost"), "given up in place of cancelled"),
    Breach("cancels_were_kept", lambda found: found.told.cancels.pop(str(CANCELLED)), "a job was cancelled by nobody"),
    Breach("cancels_were_kept", _change(CANCELLED, cancel_requested_at=None), "a job is cancelled without a cancel"),
    Breach("what_was_given_up_had_been_struck", _crash, "a good job is given up and nothing struck it"),
    Breach(
        "what_was_given_up_had_been_struck",
        _change(GOOD, state="failed", code="runner_crashed"),
        "a job is given up before its attempts are spent",
    ),
    Breach("what_was_given_up_had_been_struck", _crash_all_under_one_strike, "more are given up than strikes explain"),
    Breach("what_was_given_up_had_been_struck", _run_out_of_time, "most good jobs run out of their time"),
    Breach(
        "what_was_given_up_had_been_struck",
        lambda found: setattr(found, "strikes", [replace(strike, skipped=True) for strike in found.strikes]),
        "a strike that did not strike explains nothing",
    ),
    Breach(
        "every_inspection_was_asked_for", lambda found: found.told.uploads.pop((0, "aa")), "nobody uploaded the model"
    ),
    Breach(
        "every_inspection_was_asked_for", _change(INSPECTION, workspace="right"), "an inspection in another workspace"
    ),
    Breach("every_inspection_was_asked_for", _change(INSPECTION, model_id=None), "an inspection of nothing"),
    Breach("every_inspection_was_asked_for", _inspected_again, "a sound model is inspected twice"),
    Breach("every_inspection_was_asked_for", lambda found: found.jobs.pop(INSPECTION), "a model is not inspected"),
    Breach("what_was_uploaded_is_there", lambda found: found.models.pop(MODEL), "an accepted model is missing"),
    Breach(
        "what_was_uploaded_is_there",
        lambda found: found.models.update({MODEL: ModelFact(MODEL, "right", "aa")}),
        "an accepted model is in another workspace",
    ),
    Breach("what_succeeded_delivered_once", lambda found: found.artifacts.pop(0), "a model was not delivered"),
    Breach(
        "what_succeeded_delivered_once",
        lambda found: found.artifacts.append(replace(found.artifacts[0], job_id=BAD)),
        "a job that failed delivered",
    ),
    Breach(
        "what_succeeded_delivered_once",
        lambda found: found.artifacts.append(replace(found.artifacts.pop(0), sha256="c3")),
        "another result for the same model",
    ),
    Breach("files_are_what_rows_say", lambda found: found.files.pop("blobs/left/1"), "a file is gone"),
    Breach(
        "files_are_what_rows_say",
        lambda found: found.files.update({"blobs/left/3": FileFact("c3", frozenset())}),
        "a file that no row names",
    ),
    Breach(
        "files_are_what_rows_say",
        lambda found: found.files.update({"blobs/left/1": FileFact("c3", frozenset())}),
        "a flipped bit",
    ),
    Breach(
        "nothing_crossed_workspaces",
        lambda found: found.files.update({"blobs/left/1": FileFact("a1", frozenset({"left", "right"}))}),
        "another workspace's mark",
    ),
    Breach(
        "nothing_crossed_workspaces",
        lambda found: found.ties.append(Tie("artifacts.job_id", "left", "right", 1)),
        "a row refers to another workspace's",
    ),
    Breach(
        "nothing_crossed_workspaces",
        lambda found: found.ties.append(Tie("job_events", "left", "right", 1)),
        "another workspace's mark in an event",
    ),
    Breach(
        "nothing_crossed_workspaces", lambda found: found.told.listed[1].add(str(GOOD)), "a list shows another's job"
    ),
    Breach("what_was_over_never_changed", lambda found: found.last_digests.update({GOOD: "other"}), "a row changed"),
    Breach("what_was_over_never_changed", lambda found: found.last_digests.pop(GOOD), "a row went"),
    Breach("nothing_is_left_over", lambda found: found.processes.append("python -m worker.runner"), "a process"),
    Breach("nothing_is_left_over", lambda found: found.left_over.append("0198"), "a work folder"),
]


def _replaced(events: list[StateEvent], place: int, **columns: object) -> list[StateEvent]:
    return [replace(event, **columns) if number == place else event for number, event in enumerate(events)]


def test_what_is_sound_gives_no_cause_for_complaint() -> None:
    assert check(sound()) == []


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: breach.id)
def test_what_is_broken_is_named(breach: Breach) -> None:
    found = sound()
    breach.happen(found)
    assert breach.invariant in {complaint.partition(":")[0] for complaint in check(found)}


def test_every_invariant_was_seen_to_break() -> None:
    assert {breach.invariant for breach in BREACHES} == {invariant.__name__ for invariant in INVARIANTS}
