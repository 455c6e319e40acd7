"""Processes that are killed, stopped for longer than their lease, or asked to end."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx
import psutil

from tests.faults.storm.installation import HOUSEKEEPERS, WORKERS, WORKSPACES
from tests.faults.storm.load import connect, marked, upload_model
from tests.faults.storm.strikes.site import Broken, Fault, Site
from tests.worker.networks import perceptron

# Until a worker has a runner: the queue is kept filled.
RUNNER_SECONDS = 20.0
GRACEFUL_SECONDS = 60.0
BACK_SECONDS = 90.0


def kill_runner(site: Site) -> str:
    """Every process of it, the one that the supervisor waits for first."""
    worker = _working(site)
    runner = site.installation.runners(worker)
    time.sleep(site.drawn.uniform(0, 2))
    runner = site.installation.runners(worker) or runner
    site.struck()
    _kill_all(runner)
    return f"{len(runner)} processes of {worker}"


def kill(*names: str) -> Callable[[Site], str]:
    """One of these parts, with its group; what its runners are, the kernel ends."""

    def strike(site: Site) -> str:
        name = _working(site) if names == WORKERS else site.drawn.choice(names)
        time.sleep(site.drawn.uniform(0, 2))
        site.struck()
        return name if site.installation.strike(name, signal.SIGKILL) else f"{name}, which was down"

    return strike


def kill_inspector(site: Site) -> str:
    """In the middle of an inspection, which another one then makes."""
    content, key = marked(perceptron(seed=site.unique()), WORKSPACES[0]), site.installation.keys[0]
    with connect(site.installation, key) as client, suppress(httpx.HTTPError):
        client.post("/v1/models?name=net", content=content, headers={"Content-Type": "application/octet-stream"})
    runner = _wait_for_runner(site, "inspector")
    site.struck()
    struck = site.installation.strike("inspector", signal.SIGKILL)
    upload_model(site.installation, key, content)
    return f"{len(runner)} processes of its runner" if struck else "inspector, which was down"


def kill_worker_and_runner(site: Site) -> str:
    """All of a worker in one moment, as when its machine is lost."""
    name = _working(site)
    runner = site.installation.runners(name)
    site.struck()
    site.installation.strike(name, signal.SIGKILL)
    _kill_all(runner)
    return f"{name} and {len(runner)} processes of its runner"


def kill_every_housekeeper(site: Site) -> str:
    return ", ".join(name for name in HOUSEKEEPERS if site.installation.strike(name, signal.SIGKILL))


def stop_runner(site: Site) -> str:
    """Its supervisor lives, and keeps the lease: the job goes on where it was."""
    worker = _working(site)
    return _hold(site, [process.pid for process in site.installation.runners(worker)], f"the runner of {worker}")


def stop_supervisor(site: Site) -> str:
    """Its runner goes on, and nobody renews the lease."""
    worker = _working(site)
    return _hold(site, _pids(site, worker), worker)


def stop_worker(site: Site) -> str:
    """Supervisor and runner, as when a machine is paused."""
    worker = _working(site)
    runner = [process.pid for process in site.installation.runners(worker)]
    return _hold(site, [*_pids(site, worker), *runner], f"{worker} with its runner")


def stop_api(site: Site) -> str:
    return _hold(site, _pids(site, "api"), "api")


def stop_housekeeper(site: Site) -> str:
    """In the middle of a round, maybe, with rows locked."""
    name = site.drawn.choice(HOUSEKEEPERS)
    return _hold(site, _pids(site, name), name)


def rolling_restart(site: Site) -> str:
    """SIGTERM to each worker, one after another. Raises Broken where one takes longer than a minute."""
    seconds = []
    for name in WORKERS:
        pid = site.installation.pid(name)
        if pid is None or not site.installation.strike(name, signal.SIGTERM):
            continue
        began = time.monotonic()
        if not site.watch.wait(lambda name=name, pid=pid: site.installation.pid(name) != pid, GRACEFUL_SECONDS):
            raise Broken(f"{name} did not end within {GRACEFUL_SECONDS:.0f} s of SIGTERM")
        seconds.append(time.monotonic() - began)
        site.watch.wait(lambda name=name: site.installation.pid(name) is not None, BACK_SECONDS)
    return "ended within " + ", ".join(f"{each:.1f} s" for each in seconds)


def _working(site: Site) -> str:
    """A worker that has a runner, as soon as one has; any where none has for a while."""
    having: list[str] = []

    def found() -> bool:
        having[:] = [name for name in WORKERS if site.installation.runners(name)]
        return bool(having)

    site.watch.wait(found, RUNNER_SECONDS)
    return site.drawn.choice(having or WORKERS)


def _wait_for_runner(site: Site, worker: str) -> list[psutil.Process]:
    """What the worker's runner consists of; nothing where it has none for a while."""
    site.watch.wait(lambda: site.installation.runners(worker), RUNNER_SECONDS)
    return site.installation.runners(worker)


def _pids(site: Site, name: str) -> list[int]:
    pid = site.installation.pid(name)
    return [] if pid is None else [pid]


def _hold(site: Site, pids: Sequence[int], what: str) -> str:
    """Stop processes past the lease, and let them go on."""
    site.struck()
    try:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        time.sleep(site.past_the_lease_seconds)
    finally:
        for pid in pids:
            _send(pid, signal.SIGCONT)
    return f"{what} for {site.past_the_lease_seconds:.0f} s"


def _kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


PROCESSES = [
    Fault("kill -9 of a runner", kill_runner),
    Fault("kill -9 of a supervisor", kill(*WORKERS)),
    Fault("kill -9 of a whole worker", kill_worker_and_runner),
    Fault("kill -9 of the inspector", kill_inspector),
    Fault("kill -9 of a housekeeper", kill(*HOUSEKEEPERS)),
    Fault("kill -9 of every housekeeper", kill_every_housekeeper),
    Fault("kill -9 of the API", kill("api")),
    Fault("SIGSTOP of a runner, SIGCONT past the lease", stop_runner),
    Fault("SIGSTOP of a supervisor, SIGCONT past the lease", stop_supervisor),
    Fault("SIGSTOP of a whole worker, SIGCONT past the lease", stop_worker),
    Fault("SIGSTOP of a housekeeper, SIGCONT past the lease", stop_housekeeper),
    Fault("SIGSTOP of the API, SIGCONT past the lease", stop_api),
    Fault("rolling restart of the workers", rolling_restart),
]
