"""Processes that are killed, stopped for longer than their lease, or asked to end."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx
import psutil

from tests.faults.storm.installation import HOUSEKEEPERS, WORKERS, WORKSPACES
from tests.faults.storm.load import connect, marked, send_model
from tests.faults.storm.strikes.site import Broken, Fault, Missed, Site
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
    if not (killed := _kill_all(runner)):
        raise Missed(f"the runner of {worker} had just ended")
    return f"{killed} processes of {worker}"


def kill(*names: str) -> Callable[[Site], str]:
    """One of these parts, with its group; what its runners are, the kernel ends."""

    def strike(site: Site) -> str:
        name = _working(site) if names == WORKERS else _living(site, names)
        time.sleep(site.drawn.uniform(0, 2))
        site.struck()
        return _killed(site, name)

    return strike


def kill_inspector(site: Site) -> str:
    """In the middle of an inspection, which another one then makes."""
    content, key = marked(perceptron(seed=site.unique()), WORKSPACES[0]), site.installation.keys[0]
    with connect(site.installation, key) as client, suppress(httpx.HTTPError):
        send_model(client, site.journal, content, workspace=0)
    site.watch.wait(lambda: site.installation.runners("inspector"), RUNNER_SECONDS)
    if not (runner := site.installation.runners("inspector")):
        raise Missed("the inspector had no runner")
    site.struck()
    _killed(site, "inspector")
    site.upload(content)
    return f"{len(runner)} processes of its runner"


def kill_worker_and_runner(site: Site) -> str:
    """All of a worker in one moment, as when its machine is lost."""
    name = _working(site)
    runner = site.installation.runners(name)
    site.struck()
    _killed(site, name)
    return f"{name} and {_kill_all(runner)} processes of its runner"


def kill_every_housekeeper(site: Site) -> str:
    killed = [name for name in HOUSEKEEPERS if site.installation.strike(name, signal.SIGKILL)]
    if not killed:
        raise Missed("every housekeeper was down")
    return ", ".join(killed)


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
    name = _living(site, HOUSEKEEPERS)
    return _hold(site, _pids(site, name), name)


def rolling_restart(site: Site) -> str:
    """SIGTERM to each worker, one after another. Raises Broken where one takes longer than a minute."""
    seconds = []
    for name in WORKERS:
        site.watch.wait(lambda name=name: site.installation.pid(name) is not None, BACK_SECONDS)
        pid = site.installation.pid(name)
        if pid is None or not site.installation.strike(name, signal.SIGTERM):
            raise Missed(f"{name} was down")
        began = time.monotonic()
        if not site.watch.wait(lambda name=name, pid=pid: site.installation.pid(name) != pid, GRACEFUL_SECONDS):
            raise Broken(f"{name} did not end within {GRACEFUL_SECONDS:.0f} s of SIGTERM")
        seconds.append(time.monotonic() - began)
        site.watch.wait(lambda name=name: site.installation.pid(name) is not None, BACK_SECONDS)
    return "ended within " + ", ".join(f"{each:.1f} s" for each in seconds)


def _working(site: Site) -> str:
    """A worker that has a runner, as soon as one has. Raises Missed where none has for a while."""
    having: list[str] = []

    def found() -> bool:
        having[:] = [name for name in WORKERS if site.installation.runners(name)]
        return bool(having)

    if not site.watch.wait(found, RUNNER_SECONDS):
        raise Missed("no worker had a runner")
    return site.drawn.choice(having)


def _living(site: Site, names: Sequence[str]) -> str:
    """One of these parts. Raises Missed where all of them are down."""
    up = [name for name in names if site.installation.pid(name) is not None]
    if not up:
        raise Missed(f"{', '.join(names)}: all were down")
    return site.drawn.choice(up)


def _killed(site: Site, name: str) -> str:
    """The part, which is killed. Raises Missed where it was down."""
    if not site.installation.strike(name, signal.SIGKILL):
        raise Missed(f"{name} was down")
    return name


def _pids(site: Site, name: str) -> list[int]:
    pid = site.installation.pid(name)
    return [] if pid is None else [pid]


def _hold(site: Site, pids: Sequence[int], what: str) -> str:
    """Stop processes past the lease, and let them go on. Raises Missed where there is none."""
    site.struck()
    held = [pid for pid in pids if _send(pid, signal.SIGSTOP)]
    if not held:
        raise Missed(f"{what} was down")
    try:
        time.sleep(site.past_the_lease_seconds)
    finally:
        for pid in held:
            _send(pid, signal.SIGCONT)
    return f"{what} for {site.past_the_lease_seconds:.0f} s"


def _kill_all(processes: Sequence[psutil.Process]) -> int:
    """How many of them were there to be killed."""
    killed = 0
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
            killed += 1
    return killed


def _send(pid: int, number: signal.Signals) -> bool:
    """Whether it was there to get it."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


PROCESSES = [
    Fault("kill -9 of a runner", kill_runner, spends=True),
    Fault("kill -9 of a supervisor", kill(*WORKERS), spends=True),
    Fault("kill -9 of a whole worker", kill_worker_and_runner, spends=True),
    Fault("kill -9 of the inspector", kill_inspector),
    Fault("kill -9 of a housekeeper", kill(*HOUSEKEEPERS)),
    Fault("kill -9 of every housekeeper", kill_every_housekeeper),
    Fault("kill -9 of the API", kill("api")),
    Fault("SIGSTOP of a runner, SIGCONT past the lease", stop_runner, spends=True),
    Fault("SIGSTOP of a supervisor, SIGCONT past the lease", stop_supervisor, spends=True),
    Fault("SIGSTOP of a whole worker, SIGCONT past the lease", stop_worker, spends=True),
    Fault("SIGSTOP of a housekeeper, SIGCONT past the lease", stop_housekeeper, spends=True),
    Fault("SIGSTOP of the API, SIGCONT past the lease", stop_api),
    Fault("rolling restart of the workers", rolling_restart),
]
