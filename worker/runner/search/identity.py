"""What a piece of a search depends on, as a hash: where anything of that differs the key does, and nothing is found."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Any

from app.recipes.catalogue import AnyPass
from app.recipes.request import Metric
from worker.engine.processor import instruction_sets, processor_name
from worker.engine.versions import source_digest
from worker.runner.opening import OpenJob


@dataclass(frozen=True)
class Identity:
    """Keys of the pieces of one job; `facts` is what they all depend on."""

    facts: Mapping[str, Any]

    def of_step(self, given_sha256: str, config: AnyPass) -> str:
        """Of what a pass makes of a file."""
        return self._key({"step": given_sha256, "pass": config.model_dump(by_alias=True, mode="json")})

    def of_trial(self, made_sha256: str, metric: Metric, *, with_memory: bool) -> str:
        """Of what is measured on a file, on the samples for choosing."""
        return self._key({"trial": made_sha256, "metric": metric.model_dump(mode="json"), "with_memory": with_memory})

    def of_finding(self, key: Sequence[Any]) -> str:
        """Of what a pass found out on its way; `key` is plain JSON."""
        return self._key({"finding": key})

    def _key(self, piece: Mapping[str, Any]) -> str:
        text = json.dumps({"job": self.facts, "piece": piece}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def identity_of(opened: OpenJob, max_drop: float | None) -> Identity:
    """`max_drop` is what passes are told of the contract."""
    job, request = opened.job, opened.request
    return Identity(
        {
            "model": job.model.sha256 if job.model else None,
            "datasets": {role: file.sha256 for role, file in job.datasets.items()},
            "others": {name: file.sha256 for name, file in job.others.items()},
            "seed": request.seed,
            # Samples are divided otherwise where some are set aside to learn from.
            "learns": request.learns,
            "threads": opened.threads,
            "target": request.target.model_dump(mode="json"),
            "max_drop": max_drop,
            # Passes choose by timing as well, and a trial keeps what it was timed at.
            "timing": [job.timing_rounds, job.round_seconds],
            "source": source_digest(),
            "libraries": libraries(),
            "python": platform.python_version(),
            "processor": [processor_name(opened.device), *instruction_sets(), platform.machine()],
        }
    )


@lru_cache(maxsize=1)
def libraries() -> list[str]:
    """All that is installed, with its version: which of them a pass uses is nobody's to keep in mind."""
    return sorted({f"{one.name} {one.version}" for one in metadata.distributions()})
