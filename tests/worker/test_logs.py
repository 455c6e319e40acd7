"""One id goes from a request through everything that is done for it."""

import io
import json
from uuid import UUID

import httpx
from sqlalchemy import select

from app.database import Database
from app.jobs.tables import JobRow
from tests.app.uploads import OCTETS
from tests.conftest import MakeKey, bearer
from tests.worker import networks
from worker.supervisor import Supervisor


async def test_what_an_attempt_logs_bears_the_id_of_the_request_that_asked_for_it(
    client: httpx.AsyncClient, supervisor: Supervisor, database: Database, make_key: MakeKey, log: io.StringIO
) -> None:
    headers = bearer(make_key()) | OCTETS | {"X-Request-Id": "from-a-user-17"}
    answer = await client.post("/v1/models?name=x", content=networks.convnet().SerializeToString(), headers=headers)
    assert answer.status_code == 201, answer.text
    with database.session_scope() as session:
        job_id: UUID = session.scalars(select(JobRow.id)).one()
    supervisor.run(job_id)
    said = [line for line in map(json.loads, log.getvalue().splitlines()) if line.get("job_id") == str(job_id)]
    assert {"attempt_started", "attempt_succeeded"} <= {line["event"] for line in said}
    assert {line["request_id"] for line in said} == {"from-a-user-17"}
