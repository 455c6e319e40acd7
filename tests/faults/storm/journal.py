"""What a client sent and what it was told: an append-only file of its own, which no fault of the service reaches."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ACCEPTED = 202
SERVER_ERROR = 500


@dataclass
class Sent:
    """One job as a client knows it: every attempt to submit it, and each answer."""

    number: int
    workspace: int = 0
    fate: str = ""
    tries: int = 0
    answers: list[int] = field(default_factory=list)
    job_ids: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class CancelAnswer:
    """What a client was told of a cancel; `state` is that of the job in the answer, where it was accepted."""

    at: datetime
    status: int
    state: str | None = None


@dataclass
class Told:
    """Everything in the journals: what was sent, and when requests of any kind were answered."""

    jobs: dict[int, Sent] = field(default_factory=dict)
    answered_at: list[datetime] = field(default_factory=list)
    cancels: dict[str, list[CancelAnswer]] = field(default_factory=dict)
    """By job; of a cancel whose answer was lost nothing, though it was sent."""
    uploads: dict[tuple[int, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """By workspace and hash: the models that answers named; none where every answer was lost."""
    listed: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The jobs that a workspace was shown in lists."""

    def take(self, entry: dict[str, Any]) -> None:
        """One line of a journal."""
        at = datetime.fromisoformat(entry["at"])
        match entry["what"]:
            case "sent":
                job = self.jobs.setdefault(entry["number"], Sent(entry["number"]))
                job.workspace, job.fate = entry["workspace"], entry["fate"]
                job.tries += 1
            case "answer":
                self.jobs[entry["number"]].answers.append(entry["status"])
                if entry["status"] == ACCEPTED:
                    self.jobs[entry["number"]].job_ids.add(entry["job_id"])
                self.answered_at.append(at)
            case "cancel":
                self.cancels.setdefault(entry["job_id"], [])
            case "cancel answer":
                self.cancels[entry["job_id"]].append(CancelAnswer(at, entry["status"], entry["state"]))
                if entry["status"] < SERVER_ERROR:
                    self.answered_at.append(at)
            case "upload":
                self.uploads[entry["workspace"], entry["sha256"]].update(entry["model_ids"])
            case "list":
                self.listed[entry["workspace"]].update(entry["job_ids"])
                self.answered_at.append(at)


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
    """`sent`, `cancel` and an `upload` that names no model are requests on their way; all others are what came back."""
    told = Told()
    for path in paths:
        for line in path.read_text().splitlines():
            told.take(json.loads(line))
    told.answered_at.sort()
    return told
