"""Jobs for a supervisor, and what became of them."""

import contextlib
import time
from typing import Any
from uuid import UUID

import psutil

from app.database import Database
from app.jobs.states import JobKind
from app.models.tables import ModelRow
from tests.app.jobs.factories import add_job
from worker.supervisor import Supervisor

# Of a runner: it inspected a model, and leaves a file to be delivered.
DELIVERY = """
facts = dict(inputs=[], outputs=[], opset=17, ir_version=9, domains={}, parameter_count=0, mac_count=None,
             operators={}, trainable=False)
artifact = dict(path='outputs/a', kind='manifest', file_name='a', media_type='x')
(folder / 'outputs' / 'a').write_text('the same bytes each time')
(folder / 'result.json').write_text(json.dumps(dict(outcome='succeeded', model=facts, artifacts=[artifact])))
"""


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


def runners(supervisor: Supervisor) -> list[psutil.Process]:
    """The processes of its runners, outermost first: launcher, process 1 of the namespace, the runner, its children."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if str(supervisor.settings.work_folder) in " ".join(process.cmdline()):
                found.append(process)
    return found


def runners_left(supervisor: Supervisor) -> list[psutil.Process]:
    """Those that are still there after a moment."""
    deadline = time.monotonic() + 2
    while (left := runners(supervisor)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
