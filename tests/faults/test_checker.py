"""The checker of storms finds what is broken: each invariant is broken once, and named."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.faults.storm.checker import INVARIANTS, check
from tests.faults.storm.evidence import ArtifactFact, BlobFact, Evidence, FileFact, JobFact, StateEvent
from tests.faults.storm.journal import Sent, Told
from tests.faults.storm.plan import Fate

GOOD, BAD, GIVEN_BACK, STOPPED = (UUID(int=number) for number in range(1, 5))
MODEL, BROKEN_MODEL = UUID(int=11), UUID(int=12)
START = datetime(2026, 1, 1, tzinfo=UTC)


def _events(*states: str | tuple[str, int | None, str | None]) -> list[StateEvent]:
    found = []
    for number, state in enumerate(states):
        name, attempt, reason = (state, None, None) if isinstance(state, str) else state
        found.append(StateEvent(START + timedelta(seconds=number), name, reason, attempt))
    return found


def _job(job_id: UUID, number: int, model_id: UUID = MODEL, **columns: object) -> JobFact:
    usual = {"state": "succeeded", "attempt": 1, "max_attempts": 3, "fence": 1, "code": None}
    return JobFact(job_id, "left", "optimize", number=number, model_id=model_id, **(usual | columns))


def sound() -> Evidence:
    """Four jobs: one that succeeded, one whose model is broken, one taken back from a dead worker, one handed back."""
    found = Evidence(Told(), ("left", "right"))
    jobs = [
        _job(GOOD, 0),
        _job(BAD, 1, BROKEN_MODEL, state="failed", code="model_fails"),
        _job(GIVEN_BACK, 2, attempt=2, fence=2),
        _job(STOPPED, 3, fence=2),
    ]
    found.jobs = {job.id: job for job in jobs}
    for job, fate in zip(jobs, [Fate.SUCCESS, Fate.OWN_FAULT, Fate.SUCCESS, Fate.SUCCESS], strict=True):
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
    found.events[GIVEN_BACK] = _events(("running", 1, None), lost, ("running", 2, None), "succeeded")
    found.events[STOPPED] = _events(("running", 1, None), stopped, ("running", 1, None), "succeeded")
    found.blobs = [BlobFact("blobs/left/1", "a1", "left"), BlobFact("blobs/left/2", "b2", "left")]
    found.files = {
        "blobs/left/1": FileFact("a1", frozenset({"left"})),
        "blobs/left/2": FileFact("b2", frozenset()),
    }
    found.first_digests = {job.id: "as it was" for job in jobs}
    found.last_digests = dict(found.first_digests)
    return found


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
    Breach("jobs_ended_as_they_had_to", _change(GOOD, state="cancelled"), "a job was cancelled by nobody"),
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
    Breach("what_was_over_never_changed", lambda found: found.last_digests.update({GOOD: "other"}), "a row changed"),
    Breach("what_was_over_never_changed", lambda found: found.last_digests.pop(GOOD), "a row went"),
    Breach("nothing_is_left_over", lambda found: found.processes.append("python -m worker.runner"), "a process"),
    Breach("nothing_is_left_over", lambda found: found.folders.append("0198"), "a work folder"),
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
