"""What an operator demands of the sandbox keeps a worker from starting where it does not hold."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from app.config import RunnerSettings
from tests.worker.escapes import WITHOUT_NAMESPACES, namespaces_can_be_refused
from worker.sandbox import unmet

HELD = {"network": True, "filesystem": True, "namespaces": False, "processes": False}


@dataclass(frozen=True)
class Demand:
    """A demand, and what the refusal names; nothing where the worker may start."""

    demand: str
    names: tuple[str, ...] = ()
    passes_over: tuple[str, ...] = ()


DEMANDS = [
    Demand("best"),
    Demand("network"),
    Demand("network,filesystem"),
    Demand("required", names=("namespaces, processes", "unshare", "/readyz"), passes_over=("filesystem",)),
    Demand("network,namespaces", names=("namespaces",), passes_over=("processes",)),
    Demand("network,walls", names=("by walls;", "filesystem, namespaces, network, processes")),
]


@pytest.mark.parametrize("case", DEMANDS, ids=lambda case: case.demand)
def test_a_demand_is_held_against_what_there_is(case: Demand) -> None:
    RunnerSettings(sandbox=case.demand)
    reason = unmet(case.demand, HELD)
    assert (reason is None) is (not case.names)
    assert all(name in (reason or "") for name in case.names)
    assert not any(name in (reason or "") for name in case.passes_over)


@pytest.mark.parametrize("demand", ["", "network;secrets", "Required", "network,"])
def test_what_is_no_demand_is_refused_with_the_settings(demand: str) -> None:
    with pytest.raises(ValueError, match="sandbox"):
        RunnerSettings(sandbox=demand)


def test_a_worker_does_not_start_without_a_layer_that_is_required() -> None:
    if not namespaces_can_be_refused():
        pytest.skip("no user namespace can be made here")
    worker = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker", "--pool", "threads", "-Q", "cpu"]
    # Nobody answers at these addresses: the worker ends before it asks.
    environment = {
        **os.environ,
        "DATABASE_URL": "postgresql+psycopg://nobody@nowhere.invalid/nothing",
        "REDIS_URL": "redis://nowhere.invalid:1/0",
        "STORAGE_URL": "file:///nowhere",
        "LATHE_SECRET_KEY": "a secret key of the tests, 32 characters and more",
        "LATHE_RUNNER_SANDBOX": "required",
    }
    ended = subprocess.run(
        [*WITHOUT_NAMESPACES, *worker], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "LATHE_RUNNER_SANDBOX=required" in ended.stderr
    assert "do not hold: namespaces" in ended.stderr
    assert "user namespaces are allowed" in ended.stderr
