"""Alive, ready, measured."""

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from app.blobs import mark
from app.config import Settings
from app.database import AsyncDatabase, Database
from app.health import metrics, service
from app.health.recent import Health
from app.queue import Queue
from app.storage import Storage
from tests.app.health.factories import add_worker
from tests.app.jobs.factories import add_job

Headers = dict[str, str]


async def readiness(client: httpx.AsyncClient) -> tuple[int, dict[str, bool]]:
    answer = await client.get("/readyz")
    return answer.status_code, {name: part["ok"] for name, part in answer.json()["components"].items()}


READY = dict.fromkeys(["postgres", "redis", "storage", "storage_mark", "worker_cpu", "worker_inspect"], True)


async def test_a_service_with_everything_is_ready(client: httpx.AsyncClient, database: Database) -> None:
    add_worker(database)
    assert await readiness(client) == (200, READY)
    [worker] = (await client.get("/readyz")).json()["workers"]
    assert worker["confinement"] == {"network": "cut off"}
    assert worker["trains"] is False


@pytest.mark.parametrize("with_worker", [True, False])
async def test_monitors_may_ask_by_head(client: httpx.AsyncClient, database: Database, with_worker: bool) -> None:
    if with_worker:
        add_worker(database)
    assert (await client.head("/healthz")).status_code == 200
    assert (await client.head("/readyz")).status_code == (200 if with_worker else 503)


async def test_who_can_train_is_told_and_need_not_be_there(client: httpx.AsyncClient, database: Database) -> None:
    def said(answer: httpx.Response) -> str:
        detail: str = answer.json()["components"]["worker_cpu"]["detail"]
        return detail

    add_worker(database)
    answer = await client.get("/readyz")
    assert (answer.status_code, said(answer)) == (200, "1 live worker on the queue `cpu`, 0 that can train")
    add_worker(database, name="trainer", queues=["cpu", "cpu-training"])
    answer = await client.get("/readyz")
    assert said(answer) == "2 live workers on the queue `cpu`, 1 that can train"
    assert [worker["trains"] for worker in answer.json()["workers"]] == [False, True]


@pytest.mark.parametrize(
    ("queues", "silent_seconds", "missing"),
    [
        ([], 0, {"worker_cpu", "worker_inspect"}),
        (["cpu"], 0, {"worker_inspect"}),
        (["gpu", "inspect"], 0, {"worker_cpu"}),
        (["cpu", "inspect"], 61, {"worker_cpu", "worker_inspect"}),
    ],
    ids=["idle", "no-inspection", "gpu-only", "silent"],
)
async def test_without_live_workers_nothing_would_happen(
    client: httpx.AsyncClient, database: Database, queues: list[str], silent_seconds: float, missing: set[str]
) -> None:
    add_worker(database, queues=queues, silent_seconds=silent_seconds)
    assert await readiness(client) == (503, READY | dict.fromkeys(missing, False))


async def test_what_takes_no_jobs_is_no_worker(client: httpx.AsyncClient, database: Database) -> None:
    """Housekeeping says that it lives, and confines nothing."""
    add_worker(database, queues=[])
    assert (await client.get("/readyz")).json()["workers"] == []


async def test_without_redis_it_is_not_ready(client: httpx.AsyncClient, app: FastAPI, database: Database) -> None:
    add_worker(database)
    app.state.queue = Queue(app.state.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    assert await readiness(client) == (503, READY | {"redis": False})


async def test_without_storage_it_is_not_ready(client: httpx.AsyncClient, database: Database, tmp_path: Path) -> None:
    add_worker(database)
    shutil.rmtree(tmp_path / "storage")
    assert await readiness(client) == (503, READY | {"storage": False, "storage_mark": False})


async def test_with_the_storage_of_another_database_it_is_not_ready(
    client: httpx.AsyncClient, database: Database, storage: Storage
) -> None:
    add_worker(database)
    assert await readiness(client) == (200, READY)
    storage.put_note_sync(mark.KEY, b"another database's")
    assert await readiness(client) == (503, READY | {"storage_mark": False})


async def test_without_postgres_it_lives_and_is_not_ready(
    client: httpx.AsyncClient, app: FastAPI, settings: Settings, reader: Headers
) -> None:
    working = app.state.database
    nowhere = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://l:x@127.0.0.1:1/l")})
    app.state.database = AsyncDatabase(nowhere)
    status, components = await readiness(client)
    assert (status, components["postgres"], components["redis"]) == (503, False, True)
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    answer = await client.get("/v1/models", headers=reader)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "2"
    assert "127.0.0.1" not in answer.text
    app.state.database = working


async def test_what_is_down_is_not_told_to_anybody_in_its_own_words(client: httpx.AsyncClient, app: FastAPI) -> None:
    app.state.queue = Queue(app.state.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    assert (await client.get("/readyz")).json()["components"]["redis"]["detail"].startswith("does not answer")


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_count_jobs_and_workers(client: httpx.AsyncClient, database: Database) -> None:
    add_worker(database)
    for queue in ("cpu", "cpu", "gpu"):
        add_job(database, queue=queue)
    found = await samples(client)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("lathe_jobs", state="queued", queue="cpu", kind="optimize") == 2
    assert value("lathe_jobs", state="queued", queue="gpu", kind="optimize") == 1
    assert value("lathe_live_workers", queue="inspect") == 1
    assert value("lathe_live_workers", queue="cpu") == 1
    assert value("lathe_live_workers", queue="cpu-training") == 0
    assert 0 <= value("lathe_oldest_queued_seconds", queue="cpu") < 60


async def test_metrics_tell_passes_leases_and_how_long_jobs_take(client: httpx.AsyncClient, database: Database) -> None:
    now = datetime.now(UTC)
    chain = {"recipe": [{"pass": "prune_structured"}, {"pass": "quantize_static"}]}
    past = {"created_at": now - timedelta(seconds=100), "started_at": now - timedelta(seconds=80)}
    add_job(database, request=chain)
    over = {"state": "succeeded", "finished_at": now - timedelta(seconds=40), "peak_memory_bytes": 300 << 20}
    add_job(database, request={"recipe": "auto"}, **over, **past)
    add_job(database, request=chain, state="running", lease_expires_at=now - timedelta(seconds=1), **past)
    found = await samples(client)

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    assert value("lathe_job_passes", **{"pass": "quantize_static"}, state="queued") == 1
    assert value("lathe_job_passes", **{"pass": "prune_structured"}, state="running") == 1
    assert value("lathe_job_passes", **{"pass": "auto"}, state="succeeded") == 1
    assert value("lathe_jobs_past_lease") == 1
    assert value("lathe_job_waiting_seconds_count", kind="optimize") == 2
    assert value("lathe_job_running_seconds_sum", kind="optimize") == pytest.approx(40)
    assert value("lathe_job_running_seconds_bucket", kind="optimize", le="30.0") == 0
    assert value("lathe_job_running_seconds_bucket", kind="optimize", le="60.0") == 1
    assert value("lathe_runner_peak_memory_bytes_count", kind="optimize") == 1
    assert value("lathe_runner_peak_memory_bytes_sum", kind="optimize") == 300 << 20
    assert value("lathe_runner_peak_memory_bytes_bucket", kind="optimize", le=f"{float(256 << 20)}") == 0
    assert value("lathe_runner_peak_memory_bytes_bucket", kind="optimize", le=f"{float(512 << 20)}") == 1


async def test_metrics_count_the_bytes_of_uploads(client: httpx.AsyncClient, writer: Headers) -> None:
    labels = frozenset({"method": "POST", "route": "/v1/models"}.items())
    before = (await samples(client)).get(("lathe_http_received_bytes_total", labels), 0.0)
    headers = writer | {"Content-Type": "application/octet-stream"}
    assert (await client.post("/v1/models?name=net", content=b"x" * 12_345, headers=headers)).status_code == 201
    after = await samples(client)
    assert after["lathe_http_received_bytes_total", labels] - before == 12_345


async def test_metrics_count_requests_by_template(client: httpx.AsyncClient, reader: Headers) -> None:
    labels = frozenset({"method": "GET", "route": "/v1/models/{model_id}", "status": "404"}.items())
    before = (await samples(client)).get(("lathe_http_requests_total", labels), 0.0)
    for last in "123":
        await client.get(f"/v1/models/00000000-0000-0000-0000-00000000000{last}", headers=reader)
    after = await samples(client)
    assert after["lathe_http_requests_total", labels] - before == 3
    timed = frozenset({"method": "GET", "route": "/v1/models/{model_id}"}.items())
    assert after["lathe_http_request_seconds_count", timed] >= 3
    assert after["lathe_http_request_seconds_sum", timed] > 0
    assert not any("00000000" in value for _, labels in after for _, value in labels)


@pytest.fixture
def computed(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What of `/metrics` and `/readyz` was asked of the database; it is kept for as long as a test takes."""
    asked: list[str] = []

    def noting(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        async def note(*args: object) -> object:
            asked.append(name)
            return await real(*args)

        monkeypatch.setattr(module, name, note)

    noting(metrics, "of_jobs_and_workers")
    noting(service, "readiness")
    app.state.health = Health(600)
    return asked


async def test_however_many_ask_the_database_is_asked_once(
    client: httpx.AsyncClient, database: Database, computed: list[str]
) -> None:
    for path, asked in (("/metrics", "of_jobs_and_workers"), ("/readyz", "readiness")):
        add_worker(database, name=path)
        first = await asyncio.gather(*(client.get(path) for _ in range(20)))
        later = await client.get(path)
        assert [answer.status_code for answer in [*first, later]] == [200] * 21
        assert computed.count(asked) == 1


async def test_what_was_found_is_forgotten_when_its_time_is_over(
    client: httpx.AsyncClient, app: FastAPI, database: Database
) -> None:
    add_worker(database)
    app.state.health = Health(0.05)
    assert await readiness(client) == (200, READY)
    app.state.queue = Queue(app.state.settings.model_copy(update={"redis_url": SecretStr("redis://127.0.0.1:1/0")}))
    await asyncio.sleep(0.1)
    assert await readiness(client) == (503, READY | {"redis": False})


async def test_what_could_not_be_found_is_looked_for_again(
    client: httpx.AsyncClient, app: FastAPI, settings: Settings, database: Database, computed: list[str]
) -> None:
    working = app.state.database
    nowhere = settings.model_copy(update={"database_url": SecretStr("postgresql+psycopg://l:x@127.0.0.1:1/l")})
    app.state.database = AsyncDatabase(nowhere)
    await client.get("/healthz")
    without = await samples(client)
    app.state.database = working
    found = await samples(client)
    known = ("lathe_job_figures_known", frozenset[tuple[str, str]]())
    assert (without[known], found[known]) == (0, 1)
    # What this process saw itself is there in either case.
    names, told = ({name for name, _ in some} for some in (without, found))
    assert "lathe_http_requests_total" in names
    assert "lathe_live_workers" not in names
    assert names | {"lathe_live_workers"} <= told
    assert computed == ["of_jobs_and_workers"] * 2


async def test_the_root_leads_on(client: httpx.AsyncClient) -> None:
    links = (await client.get("/")).json()
    for name in ("documentation", "openapi"):
        assert (await client.get(links[name])).status_code == 200
    assert links["version"] == version("lathe")
