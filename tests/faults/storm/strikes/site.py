"""What a fault is given, and what it may say."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from app.jobs.states import TERMINAL
from tests.faults.storm.installation import Installation
from tests.faults.storm.journal import ACCEPTED, Journal
from tests.faults.storm.load import OUTAGE_SECONDS, RECIPE, RETRIED, Load, connect, upload_model
from tests.faults.storm.watching import Watch

# What faults need of the installation.
SMALL_DISKS, INTERPOSER = "small disks", "interposer"
PATIENT_BUDGET_SECONDS = 40
FIRST_NUMBER = 1_000_000
"""Of jobs that faults submit themselves."""


class NotPossible(Exception):
    """The machine does not allow the fault; says why."""


class Missed(Exception):
    """There was nothing for the fault to strike at this moment, and may be at another; says what was missing."""


class Broken(Exception):
    """The service did not answer to the fault as it must."""


@dataclass
class Site:
    """Where faults strike; `drawn` is a generator for the present one alone."""

    installation: Installation
    load: Load
    watch: Watch
    journal: Journal
    lease_seconds: float
    struck_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the present fault did its harm."""
    drawn: random.Random = field(default_factory=random.Random)
    _submitted: int = FIRST_NUMBER

    @property
    def past_the_lease_seconds(self) -> float:
        return 1.2 * self.lease_seconds + 2

    def unique(self) -> int:
        """A number that no other call gives."""
        number, self._submitted = self._submitted, self._submitted + 1
        return number

    def struck(self) -> None:
        """The harm is done now: from here on it counts how long it takes to recover."""
        self.struck_at = datetime.now(UTC)

    def upload(self, content: bytes, workspace: int = 0) -> str:
        """The id of a model that is ready."""
        return upload_model(self.installation, self.journal, content, workspace)

    def submit(self, model_id: str, fate: str, workspace: int = 0) -> str:
        """A job beside the load, as sure as one can be that it is accepted, and once."""
        number = self.unique()
        body = {"model_id": model_id, "recipe": RECIPE, "budget_seconds": PATIENT_BUDGET_SECONDS, "seed": number}
        body["priority"] = "high"  # a fault waits for it
        deadline = time.monotonic() + OUTAGE_SECONDS
        with connect(self.installation, self.installation.keys[workspace]) as client:
            while time.monotonic() < deadline:
                self.journal.write("sent", number=number, workspace=workspace, fate=fate)
                try:
                    answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": f"strike-{number}"})
                except httpx.HTTPError:
                    continue
                accepted = {"job_id": answer.json()["id"]} if answer.status_code == ACCEPTED else {}
                self.journal.write("answer", number=number, status=answer.status_code, **accepted)
                if accepted:
                    return str(answer.json()["id"])
                if answer.status_code not in RETRIED:
                    break
                time.sleep(0.2)
        raise Broken(f"a job of a fault was not accepted: {answer.text[:200]}")

    def job_once_over(self, job_id: str, seconds: float, workspace: int = 0) -> dict[str, Any]:
        """Raises Broken where it is not over by then."""
        deadline = time.monotonic() + seconds
        with connect(self.installation, self.installation.keys[workspace]) as client:
            while time.monotonic() < deadline:
                try:
                    job: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
                except (httpx.HTTPError, ValueError):
                    continue
                if job.get("state") in TERMINAL:
                    return job
                time.sleep(0.2)
        raise Broken(f"job {job_id} was not over within {seconds:.0f} s")


@dataclass(frozen=True)
class Fault:
    """A fault by its name; `strike` says in words what it struck, and raises NotPossible, Missed or Broken."""

    name: str
    strike: Callable[[Site], str]
    needs: str | None = None
    """What the service must have been started with."""
    spends: bool = False
    """Whether it may cost the attempts that run while it lasts."""
