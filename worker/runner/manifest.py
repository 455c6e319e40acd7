"""What another run needs to come to the same file, and the raw material of the figures."""

import platform
from dataclasses import dataclass
from typing import Any

from app.recipes.request import Metric, OptimizeRequest
from worker.engine.processor import instruction_sets, processor_name
from worker.engine.versions import source_digest, versions
from worker.runner.contract import InputFile, RunnerJob

VERSION = 1


@dataclass(frozen=True)
class Account:
    """What was done and measured."""

    metric: Metric
    recipe: list[dict[str, Any]]
    """The passes as they were asked for."""
    passes: list[dict[str, Any]]
    """And what they say of how they were carried out."""
    round_medians_ms: dict[str, list[float]]
    artifact: dict[str, Any]
    extras: list[dict[str, Any]]


def build_manifest(job: RunnerJob, request: OptimizeRequest, account: Account) -> dict[str, Any]:
    """Plain JSON."""
    return {
        "version": VERSION,
        "model": _file(job.model) if job.model else None,
        "other_models": {name: _file(file) for name, file in sorted(job.others.items())},
        "datasets": {role: _file(file) for role, file in sorted(job.datasets.items())},
        "request": request.model_dump(mode="json", by_alias=True),
        "metric": account.metric.model_dump(mode="json"),
        "seed": request.seed,
        "recipe": account.recipe,
        "passes": account.passes,
        "artifact": account.artifact,
        "extras": account.extras,
        "threads": request.target.threads or job.threads,
        "versions": versions(),
        "source_sha256": source_digest(),
        "processor": {
            "name": processor_name(request.target.device),
            "instruction_sets": instruction_sets(),
            "machine": platform.machine(),
        },
        "latency": {
            "method": "by turns: create, warm up, time, destroy; order reversed every round",
            "round_medians_ms": account.round_medians_ms,
        },
    }


def _file(file: InputFile) -> dict[str, Any]:
    return {"name": file.name, "sha256": file.sha256, "size_bytes": file.size_bytes}
