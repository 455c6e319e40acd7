"""Disks that are full, that fail to sync, that give back something else; and a clock that was stepped."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from sqlalchemy import text

from tests.faults.storm.checker import GIVEN_UP
from tests.faults.storm.installation import WORKERS, WORKSPACES, Installation
from tests.faults.storm.interposing import Interposer
from tests.faults.storm.load import connect, marked, send_model
from tests.faults.storm.strikes.site import INTERPOSER, SMALL_DISKS, Broken, Fault, Missed, NotPossible, Site
from tests.worker.networks import perceptron

PAGE_BYTES = 4096
FULL_SECONDS = (8.0, 25.0)
SYNC_SECONDS = 90.0
"""Until a worker has something to deliver."""
STEP_SECONDS = 3600
# Beyond the wait of a job whose worker lacked something, and the attempts that follow.
OVER_SECONDS = 300.0
KEY_OF_MODEL = text("SELECT 'blobs/' || workspace_id || '/' || blob_id FROM models WHERE id = :id")


def fill(which: Callable[[Installation], Path]) -> Callable[[Site], str]:
    """All of it, or all but a page or two, so that the one file finds room and the next does not."""

    def strike(site: Site) -> str:
        if site.installation.disks_missing:
            raise NotPossible(site.installation.disks_missing)
        ballast = which(site.installation) / ".ballast"
        spare, seconds = site.drawn.randrange(3) * PAGE_BYTES, site.drawn.uniform(*FULL_SECONDS)
        site.struck()
        try:
            _take_room(ballast, spare)
            time.sleep(seconds)
        finally:
            ballast.unlink(missing_ok=True)
        return f"all but {spare} bytes for {seconds:.0f} s"

    return strike


def _take_room(path: Path, spare_bytes: int) -> None:
    status = os.statvfs(path.parent)
    with path.open("wb", buffering=0) as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, max(PAGE_BYTES, status.f_bavail * status.f_frsize - spare_bytes))


def fail_syncs_of_workers(site: Site) -> str:
    """What they deliver is not durable, and must not be called delivered."""
    interposer, pids = _interposer(site), [site.installation.pid(worker) or -1 for worker in WORKERS]
    for model in site.load.models:
        site.submit(model.good, "success", site.load.models.index(model))
    site.struck()
    interposer.fail_syncs(*pids)
    site.watch.wait(lambda: interposer.failed, SYNC_SECONDS)
    return _failed(interposer.relent(), "workers")


def fail_syncs_of_api(site: Site) -> str:
    """An upload meanwhile is not accepted. Raises Broken where it is."""
    interposer, pid = _interposer(site), site.installation.pid("api")
    content = marked(perceptron(seed=site.unique()), WORKSPACES[0])
    site.struck()
    interposer.fail_syncs(pid or -1)
    try:
        with connect(site.installation, site.installation.keys[0]) as client, suppress(httpx.HTTPError):
            answer = send_model(client, site.journal, content, workspace=0)
            if answer.is_success and site.installation.pid("api") == pid:
                raise Broken(f"an upload that was not synced was answered {answer.status_code}")
    finally:
        failed = interposer.relent()
    site.upload(content)
    return _failed(failed, "API")


def _failed(syncs: int, whose: str) -> str:
    """Raises Missed: none was made meanwhile."""
    if not syncs:
        raise Missed(f"the {whose} synced nothing meanwhile")
    return f"{syncs} of the {whose}"


def step_clock(site: Site) -> str:
    """Leases are counted by the database's clock, and waits by one that nobody steps."""
    worker, seconds = site.drawn.choice(WORKERS), site.drawn.choice([-STEP_SECONDS, STEP_SECONDS])
    interposer, pid = _interposer(site), site.installation.pid(worker)
    if pid is None:
        raise Missed(f"{worker} was down")
    site.struck()
    interposer.step_clock(pid, seconds)
    time.sleep(site.past_the_lease_seconds)
    interposer.relent()
    return f"{worker} by {seconds} s, for {site.past_the_lease_seconds:.0f} s"


def flip_bit(site: Site) -> str:
    """Of a stored model: its jobs say so, and a second upload mends it. Raises Broken where that is not so."""
    content = marked(perceptron(seed=site.unique()), WORKSPACES[0])
    model_id = site.upload(content)
    with site.installation.database.session_scope() as session:
        path = site.installation.storage_folder / str(session.scalar(KEY_OF_MODEL, {"id": model_id}))
    spoilt = bytearray(path.read_bytes())
    spoilt[site.drawn.randrange(len(spoilt))] ^= 1 << site.drawn.randrange(8)
    site.struck()
    path.write_bytes(spoilt)
    job = site.job_once_over(site.submit(model_id, "spoilt"), OVER_SECONDS)
    code = (job["error"] or {}).get("code")
    if (job["state"], code) not in {("failed", "content_corrupt"), ("failed", "worker_lost")}:
        raise Broken(f"a job on a spoilt file ended {job['state']} ({code})")
    if site.upload(content) != model_id:
        raise Broken("the same bytes again became another model")
    again = site.job_once_over(site.submit(model_id, "success"), OVER_SECONDS)
    if again["state"] != "succeeded" and (again["error"] or {}).get("code") not in GIVEN_UP:
        raise Broken(f"a job on the mended file ended {again['state']}: {again['error']}")
    return f"{code}, and mended by a second upload"


def _interposer(site: Site) -> Interposer:
    interposer = site.installation.interposer
    if interposer is None or interposer.missing:
        raise NotPossible(interposer.missing if interposer else "it was not asked for")
    return interposer


DISKS = [
    Fault("storage full", fill(lambda installation: installation.storage_folder), SMALL_DISKS, spends=True),
    Fault("work folder full", fill(lambda installation: installation.work_folder), SMALL_DISKS, spends=True),
    Fault("fsync fails in the workers", fail_syncs_of_workers, INTERPOSER, spends=True),
    Fault("fsync fails in the API", fail_syncs_of_api, INTERPOSER),
    Fault("the clock of a worker stepped by an hour", step_clock, INTERPOSER),
    Fault("a flipped bit in storage", flip_bit),
]
