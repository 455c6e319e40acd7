"""Jobs for a supervisor, and what became of them."""

from typing import Any
from uuid import UUID

from app.database import Database
from app.jobs.states import JobKind
from app.models.tables import ModelRow
from tests.app.jobs.factories import add_job
from worker.supervisor import Supervisor


def inspect(supervisor: Supervisor, database: Database, model: UUID, **columns: Any) -> UUID:
    job_id = add_job(database, kind=JobKind.INSPECT_MODEL, model_id=model, **columns)
    supervisor.run(job_id)
    return job_id


def read_model(database: Database, model: UUID) -> ModelRow:
    with database.session_scope() as session:
        return session.get_one(ModelRow, model)


def add_optimization(
    database: Database, model: UUID, *, threads: int = 1, budget_seconds: float = 10.0, **columns: Any
) -> UUID:
    """A short job on random input, of a model with the output `logits`; `columns` override."""
    request = {
        "model_id": str(model),
        "recipe": [{"pass": "optimize_graph"}],
        "metric": {"name": "agreement", "output": "logits"},
        "target": {"device": "cpu", "threads": threads},
    }
    return add_job(database, model_id=model, request=request, budget_seconds=budget_seconds, **columns)
