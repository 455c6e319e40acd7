"""What a client sent and what it was told: an append-only file of its own, which no fault of the service reaches."""

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCEPTED = 202


@dataclass
class Sent:
    """One job as a client knows it: every attempt to submit it, and each answer."""

    number: int
    workspace: int = 0
    fate: str = ""
    tries: int = 0
    answers: list[int] = field(default_factory=list)
    job_ids: set[str] = field(default_factory=set)


@dataclass
class Told:
    """Everything in the journals: what was sent, and when requests of any kind were answered."""

    jobs: dict[int, Sent] = field(default_factory=dict)
    answered_at: list[datetime] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Jobs of which a cancel was accepted."""


class Journal:
    """Lines of JSON, each written before the next thing happens. Any thread may write."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def write(self, what: str, **facts: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"what": what, "at": datetime.now(UTC).isoformat(), **facts}) + "\n")

    def close(self) -> None:
        self._file.close()


def read_journals(paths: Iterable[Path]) -> Told:
    """`sent` is a request on its way, `answer` what came back, `cancelled` an accepted cancel."""
    told = Told()
    for path in paths:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry["what"] == "sent":
                job = told.jobs.setdefault(entry["number"], Sent(entry["number"]))
                job.workspace, job.fate = entry["workspace"], entry["fate"]
                job.tries += 1
            elif entry["what"] == "answer":
                told.jobs[entry["number"]].answers.append(entry["status"])
                if entry["status"] == ACCEPTED:
                    told.jobs[entry["number"]].job_ids.add(entry["job_id"])
            elif entry["what"] == "cancelled":
                told.cancelled.add(entry["job_id"])
            if entry["what"] in {"answer", "cancelled", "pulse"}:
                told.answered_at.append(datetime.fromisoformat(entry["at"]))
    told.answered_at.sort()
    return told
