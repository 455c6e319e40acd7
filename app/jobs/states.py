"""The state machine of a job, and who may cross which edge.

A trigger in the database holds the same edges (`migrations/`), and a test holds the two against each other.
"""

from enum import StrEnum


class JobKind(StrEnum):
    INSPECT_MODEL = "inspect_model"
    INSPECT_DATASET = "inspect_dataset"
    OPTIMIZE = "optimize"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Actor(StrEnum):
    """Who moves a job."""

    USER = "user"
    SUPERVISOR = "supervisor"
    HOUSEKEEPING = "housekeeping"


TERMINAL: frozenset[JobState] = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

EDGES: dict[tuple[JobState, JobState], frozenset[Actor]] = {
    (JobState.QUEUED, JobState.RUNNING): frozenset({Actor.SUPERVISOR}),
    (JobState.QUEUED, JobState.CANCELLED): frozenset({Actor.USER}),
    (JobState.QUEUED, JobState.EXPIRED): frozenset({Actor.HOUSEKEEPING}),
    (JobState.RUNNING, JobState.QUEUED): frozenset({Actor.SUPERVISOR, Actor.HOUSEKEEPING}),
    (JobState.RUNNING, JobState.SUCCEEDED): frozenset({Actor.SUPERVISOR}),
    (JobState.RUNNING, JobState.FAILED): frozenset({Actor.SUPERVISOR, Actor.HOUSEKEEPING}),
    (JobState.RUNNING, JobState.CANCELLED): frozenset({Actor.SUPERVISOR, Actor.HOUSEKEEPING}),
}
