"""Clients that keep the queue filled, in two workspaces, and write down what they were told."""

import hashlib
import heapq
import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from onnx import ModelProto

from app.client.transport import own_connections
from tests.faults.storm.installation import WORKSPACES, Installation
from tests.faults.storm.journal import ACCEPTED, Journal
from tests.faults.storm.plan import Fate, Mix, PlannedJob, planned_job
from tests.worker.networks import perceptron
from tests.worker.runner.hostile.programs import PROGRAMS

CLIENTS = 3
TIMEOUT_SECONDS = 10.0
OUTAGE_SECONDS = 180.0
"""How long a client tries a request that it may send twice."""
PAUSE_SECONDS = 0.05
PULSE_SECONDS = 0.5
BUDGET_SECONDS = 20
RECIPE = [{"pass": "optimize_graph"}]
OCTETS = "application/octet-stream"
RETRIED = frozenset({429, 500, 502, 503, 504})


def mark(workspace: str) -> str:
    """A name that every model of a workspace bears, and no other's: Lathe keeps the names of a model."""
    return f"only_in_{workspace}"


def marked(model: ModelProto, workspace: str, what: str = "model") -> bytes:
    """The model with its output named after the workspace, and unlike any other by `what`."""
    was, now = model.graph.output[0].name, f"{mark(workspace)}_{what}"
    for node in model.graph.node:
        node.output[:] = [now if name == was else name for name in node.output]
    model.graph.output[0].name = now
    return model.SerializeToString()


@dataclass
class Uploaded:
    """The models of one workspace, by what becomes of their jobs."""

    good: str
    broken: str


@dataclass
class Load:
    """`jobs` jobs and as many more as it takes until `enough`; `depth` of them wait or run at a time."""

    installation: Installation
    folder: Path
    seed: int
    jobs: int
    mix: Mix
    depth: int
    unfinished: Callable[[], int]
    enough: Callable[[], bool]
    out_of_time: Callable[[], bool]
    hopeless: Callable[[], bool]
    """Whether the service stands still, so that there is no use in waiting for it."""
    models: list[Uploaded] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)
    _threads: list[threading.Thread] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def upload(self) -> None:
        """The models of each workspace, ready to be worked on."""
        journal = Journal(self.folder / "uploads.jsonl")
        for number, workspace in enumerate(WORKSPACES):
            good = marked(perceptron(), workspace)
            broken = marked(PROGRAMS["index-out-of-range"](), workspace, "broken")
            ids = [upload_model(self.installation, journal, content, number) for content in (good, broken)]
            self.models.append(Uploaded(*ids))
        journal.close()

    def start(self) -> None:
        for number in range(CLIENTS):
            client = Client(self, Journal(self.folder / f"client-{number}.jsonl"))
            self._threads.append(threading.Thread(target=client.run, name=f"client-{number}"))
        self._threads.append(threading.Thread(target=self._pulse, name="pulse"))
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until every client has sent all it had to send."""
        for thread in self._threads[:-1]:
            thread.join()
        self._over.set()
        self._threads[-1].join()

    def next_job(self) -> PlannedJob | None:
        """None where there are enough of them."""
        number = next(self._numbers)
        if (number >= self.jobs and self.enough()) or self.out_of_time():
            return None
        return planned_job(self.seed, number, self.mix, len(WORKSPACES))

    def journals(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def _pulse(self) -> None:
        """Asks for a list now and then, so that it is known when requests were answered, and what they show."""
        journal = Journal(self.folder / "pulse.jsonl")
        clients = [connect(self.installation, key) for key in self.installation.keys]
        for workspace, client in itertools.cycle(enumerate(clients)):
            if self._over.wait(PULSE_SECONDS):
                break
            with suppress(httpx.HTTPError):
                answer = client.get("/v1/jobs?limit=2")
                if answer.status_code == httpx.codes.OK:
                    journal.write("list", workspace=workspace, job_ids=[job["id"] for job in answer.json()["items"]])
        for client in clients:
            client.close()
        journal.close()


class Client:
    """One thread that submits jobs, one after another, and cancels those that are to be cancelled."""

    def __init__(self, load: Load, journal: Journal) -> None:
        self._load = load
        self._journal = journal
        self._cancels: list[tuple[float, str, int]] = []
        self._connections = [connect(load.installation, key) for key in load.installation.keys]

    def run(self) -> None:
        try:
            while (job := self._wait_for_turn()) is not None:
                self._submit(job)
            while self._cancels:
                self._cancel_due()
                time.sleep(PAUSE_SECONDS)
        finally:
            for connection in self._connections:
                connection.close()
            self._journal.close()

    def _wait_for_turn(self) -> PlannedJob | None:
        while self._load.unfinished() >= self._load.depth:
            if self._load.hopeless():
                return None
            self._cancel_due()
            time.sleep(PAUSE_SECONDS)
        self._cancel_due()
        return self._load.next_job()

    def _submit(self, job: PlannedJob) -> None:
        if job.breaks_off:
            self._journal.write("sent", number=job.number, workspace=job.workspace, fate=job.fate)
            self._send_and_leave(job)
        deadline = time.monotonic() + OUTAGE_SECONDS
        while True:
            answer = self._ask(job)
            if answer is not None and answer.status_code == ACCEPTED:
                self._cancels_later(job, answer.json()["id"])
                return
            # Without a key nobody knows whether it was accepted: to send it again could make two of it.
            if (
                not job.keyed
                or time.monotonic() > deadline
                or (answer is not None and answer.status_code not in RETRIED)
            ):
                return
            self._cancel_due()
            time.sleep(PAUSE_SECONDS * 4)

    def _ask(self, job: PlannedJob) -> httpx.Response | None:
        self._journal.write("sent", number=job.number, workspace=job.workspace, fate=job.fate)
        try:
            answer = self._connections[job.workspace].post("/v1/jobs", json=self._body(job), headers=_headers(job))
        except httpx.HTTPError:
            return None
        accepted = {"job_id": answer.json()["id"]} if answer.status_code == ACCEPTED else {}
        self._journal.write("answer", number=job.number, status=answer.status_code, **accepted)
        return answer

    def _send_and_leave(self, job: PlannedJob) -> None:
        address = urlsplit(self._load.installation.url)
        key = self._load.installation.keys[job.workspace]
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
        headers = _headers(job) | {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        with suppress(OSError):
            connection.request("POST", "/v1/jobs", json.dumps(self._body(job)), headers)
            time.sleep(job.patience_seconds)
        connection.close()

    def _body(self, job: PlannedJob) -> dict[str, Any]:
        models = self._load.models[job.workspace]
        model = models.broken if job.fate is Fate.OWN_FAULT else models.good
        return {"model_id": model, "recipe": RECIPE, "budget_seconds": BUDGET_SECONDS, "seed": job.number}

    def _cancels_later(self, job: PlannedJob, job_id: str) -> None:
        if job.fate is Fate.CANCEL:
            heapq.heappush(self._cancels, (time.monotonic() + job.patience_seconds, job_id, job.workspace))

    def _cancel_due(self) -> None:
        while self._cancels and self._cancels[0][0] <= time.monotonic():
            _, job_id, workspace = heapq.heappop(self._cancels)
            self._journal.write("cancel", job_id=job_id)
            with suppress(httpx.HTTPError):
                answer = self._connections[workspace].post(f"/v1/jobs/{job_id}/cancel")
                state = answer.json()["state"] if answer.status_code == ACCEPTED else None
                self._journal.write("cancel answer", job_id=job_id, status=answer.status_code, state=state)


def _headers(job: PlannedJob) -> dict[str, str]:
    return {"Idempotency-Key": f"job-{job.number}"} if job.keyed else {}


def connect(installation: Installation, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(
        base_url=installation.url, headers=headers, timeout=TIMEOUT_SECONDS, **own_connections(installation.url)
    )


def send_model(client: httpx.Client, journal: Journal, content: bytes, workspace: int) -> httpx.Response:
    """One upload, which is written down before it is sent and when it was accepted. Raises httpx.HTTPError."""
    sent = {"workspace": workspace, "sha256": hashlib.sha256(content).hexdigest()}
    journal.write("upload", **sent, model_ids=[])
    answer = client.post("/v1/models?name=net", content=content, headers={"Content-Type": OCTETS})
    if answer.is_success:
        journal.write("upload", **sent, model_ids=[answer.json()["id"]])
    return answer


def upload_model(installation: Installation, journal: Journal, content: bytes, workspace: int) -> str:
    """The id of a model that is ready, sent again for as long as the service is away."""
    deadline = time.monotonic() + OUTAGE_SECONDS
    with connect(installation, installation.keys[workspace]) as client:
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                answer = send_model(client, journal, content, workspace)
                if answer.is_success and answer.json()["status"] == "ready":
                    return str(UUID(answer.json()["id"]))
            time.sleep(PAUSE_SECONDS)
    raise TimeoutError("a model was not ready in time")
