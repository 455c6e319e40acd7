"""What the service costs around the work itself, against floors measured beside it in the same run.

    python -m benchmarks.service            everything
    python -m benchmarks.service uploads    one part: ready, jobs, reads, uploads

Ratios are medians over rounds that take turns; the spread is the smallest and the largest.
"""

import hashlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from sqlalchemy import text

from app.client import Lathe
from app.config import Settings
from app.database import Database
from app.embedded import Stack
from benchmarks.load import requests_per_second

UPLOAD_BYTES = 1 << 30
CHUNK_BYTES = 1 << 20
UPLOAD_ROUNDS = 5
READ_ROUNDS = 7
READY_ROUNDS = 5
JOB_COUNT = 12
BARE_PORT = 8931


@dataclass
class Bench:
    """The running stack, and where things are."""

    stack: Stack
    folder: Path

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.stack.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    @property
    def api(self) -> psutil.Process:
        return psutil.Process(self.stack.pid("api"))

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.key}"}


def row(name: str, values: list[float], aim: str, unit: str = "") -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<58} {middle:9.3f}{unit:<3} ({low:.3f} - {high:.3f})   aim {aim}", flush=True)


def copy_and_hash(source: Path, target: Path) -> float:
    """Seconds for the floor: a plain copy with its SHA-256, made durable as an upload is."""
    started = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    seconds = time.perf_counter() - started
    target.unlink()
    return seconds


def upload(bench: Bench, source: Path) -> tuple[float, str]:
    """Seconds for one upload over HTTP, and the id of what it made."""
    host, port = bench.address
    connection = http.client.HTTPConnection(host, port, timeout=300, blocksize=CHUNK_BYTES)
    started = time.perf_counter()
    with source.open("rb") as body:
        headers = bench.headers() | {"Content-Type": "application/octet-stream", "Content-Length": str(UPLOAD_BYTES)}
        connection.request("POST", f"/v1/datasets?name={source.name}", body=body, headers=headers)
        answer = connection.getresponse()
        location = answer.getheader("Location") or ""
        text_ = answer.read()
    seconds = time.perf_counter() - started
    if answer.status != 201:
        raise RuntimeError(f"upload answered {answer.status}: {text_[:300]!r}")
    return seconds, location.rsplit("/", 1)[-1]


def make_file(path: Path, number: int) -> None:
    """A file of UPLOAD_BYTES that no earlier round has sent."""
    block = os.urandom(CHUNK_BYTES)
    with path.open("wb") as file:
        file.write(number.to_bytes(8, "big") + block[8:])
        for _ in range(UPLOAD_BYTES // CHUNK_BYTES - 1):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


def highest_memory(process: psutil.Process, work: Callable[[], None]) -> int:
    """The largest resident memory of a process, sampled every 10 ms while `work` runs."""
    highest, over = process.memory_info().rss, threading.Event()

    def sample() -> None:
        nonlocal highest
        while not over.wait(0.01):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        work()
    finally:
        over.set()
        thread.join()
    return highest


def measure_uploads(bench: Bench) -> None:
    source, target = bench.folder / "source.bin", bench.folder / "copy.bin"
    speed_ratios, growths = [], []
    for number in range(UPLOAD_ROUNDS):
        make_file(source, number)
        floor = copy_and_hash(source, target)
        before, seconds = bench.api.memory_info().rss, [0.0]

        def once(seconds: list[float] = seconds) -> None:
            seconds[0], uploaded = upload(bench, source)
            wait_inspected(bench, uploaded)

        highest = highest_memory(bench.api, once)
        speed_ratios.append(floor / seconds[0])
        growths.append((highest - before) / (1 << 20))
        print(f"  round {number}: copy+sha256 {floor:.2f} s, upload {seconds[0]:.2f} s", flush=True)
    row("upload of 1 GiB: speed over plain copy + sha256", speed_ratios, ">= 0.6")
    row("upload of 1 GiB: growth of the API's resident memory", growths, "< 64 MiB", "MiB")


def wait_inspected(bench: Bench, dataset_id: str) -> None:
    """An upload that is still being inspected would disturb the next round; it is noise, so it gets rejected."""
    with Lathe(bench.stack.url, bench.stack.key) as lathe:
        while lathe.dataset(dataset_id).status == "inspecting":
            time.sleep(0.2)
        lathe.delete_dataset(dataset_id)


def measure_reads(bench: Bench, job_id: str) -> None:
    bare = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "benchmarks.bare:app", "--port", str(BARE_PORT), "--no-access-log"],
        env=os.environ | bench.stack.environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_port(BARE_PORT)
        host, port = bench.address
        ratios = []
        for number in range(READ_ROUNDS):
            floor = requests_per_second(host, BARE_PORT, f"/jobs/{job_id}", headers={})
            ours = requests_per_second(host, port, f"/v1/jobs/{job_id}", headers=bench.headers())
            if number:  # the first round warms both up
                ratios.append(ours / floor)
            print(f"  round {number}: bare {floor:.0f}/s, GET /v1/jobs/{{id}} {ours:.0f}/s", flush=True)
        row("GET /v1/jobs/{id}: requests a second over the bare route", ratios, ">= 0.6")
    finally:
        bare.terminate()
        bare.wait()


def measure_ready(bench: Bench) -> None:
    """From the start of the API's process to its first answer; Postgres and Redis are up already."""
    seconds = []
    for _ in range(READY_ROUNDS):
        started = time.perf_counter()
        served = ["app.main:create_app", "--factory", "--http", "app.heads:HttpProtocol"]
        command = [sys.executable, "-m", "uvicorn", *served, "--port", str(BARE_PORT)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        api = subprocess.Popen(command, env=os.environ | bench.stack.environment, **quiet)
        wait_port(BARE_PORT)
        connection = http.client.HTTPConnection("127.0.0.1", BARE_PORT, timeout=10)
        connection.request("GET", "/healthz")
        if connection.getresponse().status != 200:
            raise RuntimeError("the API is not healthy")
        seconds.append(time.perf_counter() - started)
        connection.close()
        api.terminate()
        api.wait()
    row("the API's process: start to first answer", seconds, "< 2 s", "s")


def wait_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"nothing listens on {port}")


def measure_jobs(bench: Bench) -> str:
    """Submits small jobs one after another; returns the id of the last."""
    from examples.digits import data as digits  # noqa: PLC0415 - scikit-learn is slow to import; only this needs it

    model_file = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
    _, evaluation = digits.write(bench.folder)
    with Lathe(bench.stack.url, bench.stack.key) as lathe:
        model = lathe.upload_model(model_file)
        data = {"evaluation": lathe.upload_dataset(evaluation).id}
        last = ""
        for _ in range(JOB_COUNT):
            job = lathe.optimize(model, [{"pass": "optimize_graph"}], data=data, budget_seconds=5)
            last = str(lathe.wait(job).id)
    database = Database(Settings())
    with database.session_scope() as session:
        rows = session.execute(
            text(
                "SELECT extract(epoch FROM j.started_at - j.created_at) AS claimed,"
                " extract(epoch FROM j.finished_at - j.created_at) - (e.data->>'runner_seconds')::float AS around"
                " FROM jobs j JOIN job_events e ON e.job_id = j.id AND e.data ? 'runner_seconds'"
                " WHERE j.kind = 'optimize' AND j.state = 'succeeded' ORDER BY j.id"
            )
        ).all()
    database.dispose()
    row("submit to claimed, p50", [float(each.claimed) * 1000 for each in rows], "< 50 ms", "ms")
    row("everything but the runner's own time, a job", [float(each.around) for each in rows], "< 1.5 s", "s")
    return last


def main() -> None:
    parts = set(sys.argv[1:]) or {"ready", "jobs", "reads", "uploads"}
    with tempfile.TemporaryDirectory(prefix="lathe-bench-") as name:
        folder = Path(name)
        os.environ["LATHE_LIMITS_REQUESTS_PER_MINUTE"] = "0"  # reads come as fast as they are answered
        stack = Stack(folder / "data", port=0)
        stack.start()
        try:
            stack.wait_ready(60)
            os.environ.update(stack.environment)
            bench = Bench(stack, folder)
            if "ready" in parts:
                measure_ready(bench)
            if parts & {"jobs", "reads"}:
                job_id = measure_jobs(bench)
                if "reads" in parts:
                    measure_reads(bench, job_id)
            if "uploads" in parts:
                measure_uploads(bench)
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
