"""kill -9 in the middle of a job: of the runner, of the whole worker, of Redis with all that it held.

Each job must end in the right state, with no process and no file left over. With the real lease:
`LATHE_JOBS_LEASE_SECONDS=45 LATHE_JOBS_HEARTBEAT_SECONDS=10 LATHE_JOBS_REPUBLISH_SECONDS=30 pytest tests/faults`.
"""

import os
import signal

import psutil
import pytest

from tests.faults.service import Service

pytestmark = pytest.mark.long  # storms do the same to more jobs at once


def test_a_killed_runner_is_run_again(service: Service, model: str) -> None:
    job_id = service.submit(model)
    for process in service.wait_running(job_id):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    service.wait(lambda: service.job(job_id)["finished_at"])
    job = service.job(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    service.assert_nothing_left_over()


def test_a_killed_worker_leaves_nothing_running_and_its_job_is_run_again(service: Service, model: str) -> None:
    job_id = service.submit(model)
    runners = service.wait_running(job_id)
    assert runners
    os.killpg(os.getpgid(service.stack.pid("worker")), signal.SIGKILL)
    _, alive = psutil.wait_procs(runners, timeout=5)
    assert alive == []
    service.wait(lambda: service.job(job_id)["finished_at"])
    job = service.job(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 2)
    service.assert_nothing_left_over()


def test_redis_may_lose_everything(service: Service, model: str) -> None:
    running, waiting = service.submit(model), service.submit(model)
    service.wait_running(running)
    service.restart_redis()
    late = service.submit(model)
    for job_id in (running, waiting, late):
        service.wait(lambda job_id=job_id: service.job(job_id)["finished_at"])
        job = service.job(job_id)
        assert (job["state"], job["attempt"]) == ("succeeded", 1)
    service.assert_nothing_left_over()
