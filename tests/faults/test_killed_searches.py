"""kill -9 of a worker that searches: what it had found is there at once, and stays, and is not searched for again."""

import hashlib
import os
import signal
from typing import Any

import psutil
import pytest

from app.client import Lathe
from tests.faults.service import Service
from tests.worker import networks

# By size: what is smaller is so on a busy machine as well.
REQUEST: dict[str, Any] = {
    "recipe": "auto",
    "objective": "size",
    "contract": {"max_drop": 0.5},
    "search": {"passes": ["quantize_weights", "quantize_static", "quantize_dynamic", "convert_float16"]},
    "target": {"threads": 1},
    "budget_seconds": 600,
}


@pytest.mark.long
def test_a_killed_worker_costs_nothing_that_its_search_had_found(service: Service, model: str) -> None:
    with Lathe(service.stack.url, service.stack.key) as client:
        data = client.upload_dataset({"image": networks.normal(400, 3, 16, 16)})
        body = {**REQUEST, "model_id": model, "data": {"evaluation": str(data.id)}}
        answer = service.client.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        # What the first of two candidates left is stored by the time that the second was tried.
        service.wait(lambda: service.job(job_id)["artifacts"] and len(client.trials(job_id)) >= 2)
        runners = service.runners()
        os.killpg(os.getpgid(service.stack.pid("worker")), signal.SIGKILL)
        psutil.wait_procs(runners, timeout=5)
        (before,) = service.job(job_id)["artifacts"]
        content = service.client.get(f"/v1/artifacts/{before['id']}/content").content
        assert hashlib.sha256(content).hexdigest() == before["sha256"]
        # The next attempt goes on from there; whatever it finds, what is kept is no worse.
        service.wait(lambda: any(one.cached for one in client.trials(job_id)))
        assert service.job(job_id)["attempt"] == 2
        client.cancel(job_id)
        ended = client.wait(job_id)
        assert ended.state == "cancelled"
        assert ended.optimized is not None and ended.optimized.trial is not None
        assert ended.optimized.trial.size_ratio >= before["trial"]["size_ratio"]
        assert before["trial"]["name"] in {one.name for one in client.trials(job_id)}
    service.wait(lambda: not service.runners())
