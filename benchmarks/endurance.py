"""Mixed load on the whole service for an hour: what grows that should not?

    python -m benchmarks.endurance                an hour
    python -m benchmarks.endurance --minutes 5

Clients in threads do what users do, one thing after another, as fast as the machine lets them: upload models and
datasets, submit jobs and follow or poll them, download what was delivered, cancel, read lists, delete, and send what is
no model. Meanwhile the programs of the service are looked at: resident memory, open file descriptors, threads, and the
connections that Postgres has. Of its memory what processes share, its buffers, is counted once, and grows until they
are full; what each has for itself is told apart. What is flat has the same median in the last quarter of the time as in
the second; the first is for warming up.
"""

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import psycopg

from app.client import Lathe
from app.client.errors import LatheClientError
from app.embedded import Stack
from tests.worker import networks

CLIENTS = 4
LOOK_SECONDS = 5.0
MIB = 1 << 20
PROGRAMS = ("api", "worker", "inspector", "housekeeping")
RECIPES = ("optimize_graph", "quantize_dynamic", "quantize_weights")
READS = 40
MOST_DATA_MIB = 8
BUDGET_SECONDS = 10


@dataclass
class Client:
    """One user, who draws what to do next. `done` and `failed` count it by its name."""

    url: str
    key: str
    seed: int
    folder: Path
    done: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def run(self, over: threading.Event) -> None:
        drawn = random.Random(self.seed)  # noqa: S311 - it need not be secret
        things: list[tuple[Callable[[Lathe, random.Random], None], int]] = [
            (self.optimize, 5), (self.cancel, 2), (self.read, 4), (self.send_data, 2), (self.send_nonsense, 1)
        ]  # fmt: skip
        actions, weights = [action for action, _ in things], [weight for _, weight in things]
        with Lathe(self.url, self.key) as lathe:
            while not over.is_set():
                action = drawn.choices(actions, weights)[0]
                try:
                    action(lathe, drawn)
                    self.done[action.__name__] += 1
                except Exception as error:
                    self.failed[f"{action.__name__}: {type(error).__name__}: {error}"[:200]] += 1

    def optimize(self, lathe: Lathe, drawn: random.Random) -> None:
        """A model of its own through one pass; followed to the end, read, downloaded and deleted."""
        model = lathe.upload_model(_model(drawn))
        job = lathe.optimize(model, [{"pass": drawn.choice(RECIPES)}], budget_seconds=BUDGET_SECONDS)
        if drawn.random() < 0.5:
            for _ in lathe.events(job):
                pass
        job = lathe.wait(job)
        lathe.report(job)
        if job.optimized is not None:
            lathe.download(job, self.folder / f"{self.seed}.onnx")
        lathe.delete_model(model)

    def cancel(self, lathe: Lathe, drawn: random.Random) -> None:
        model = lathe.upload_model(_model(drawn))
        job = lathe.optimize(model, [{"pass": "optimize_graph"}], budget_seconds=BUDGET_SECONDS)
        time.sleep(drawn.uniform(0, 2))
        with suppress(LatheClientError):
            lathe.cancel(job)
        lathe.wait(job)

    def read(self, lathe: Lathe, drawn: random.Random) -> None:
        del drawn
        for _ in range(READS):
            next(iter(lathe.jobs()), None)
            next(iter(lathe.models()), None)
        lathe.passes()

    def send_data(self, lathe: Lathe, drawn: random.Random) -> None:
        rows = drawn.randint(1, MOST_DATA_MIB) * MIB // 4096
        generator = np.random.default_rng(drawn.randrange(1 << 30))
        dataset = lathe.upload_dataset({"x": generator.standard_normal((rows, 1024), np.float32)})
        lathe.delete_dataset(dataset)

    def send_nonsense(self, lathe: Lathe, drawn: random.Random) -> None:
        with suppress(LatheClientError):
            lathe.upload_model(drawn.randbytes(drawn.randint(1, MIB)))


def _model(drawn: random.Random) -> bytes:
    return networks.perceptron(seed=drawn.randrange(1 << 30)).SerializeToString()


@dataclass
class Observer:
    """Figures by name, one a look."""

    stack: Stack
    figures: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def run(self, over: threading.Event) -> None:
        while not over.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        for name in PROGRAMS:
            process = psutil.Process(self.stack.pid(name))
            self._note(f"{name}: resident MiB", process.memory_info().rss / MIB)
            self._note(f"{name}: file descriptors", process.num_fds())
            self._note(f"{name}: threads", process.num_threads())
        self._note("redis: resident MiB", psutil.Process(self.stack.pid("redis")).memory_info().rss / MIB)
        postgres = psutil.Process(self.stack.pid("postgres"))
        held = list(map(_held, [postgres, *postgres.children(recursive=True)]))
        self._note("postgres: proportional MiB", sum(shares for shares, _ in held) / MIB)
        self._note("postgres: unshared MiB", sum(own for _, own in held) / MIB)
        with psycopg.connect(_plain(self.stack.environment["DATABASE_URL"])) as link:
            row = link.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").fetchone()
        self._note("postgres: connections", float(row[0]) - 1 if row else 0.0)

    def _note(self, name: str, value: float) -> None:
        self.figures[name].append(value)


def _held(process: psutil.Process) -> tuple[int, int]:
    """Bytes in shares, and of its own alone; of a process that has ended, none."""
    with suppress(psutil.Error):
        found = process.memory_full_info()
        return int(found.pss), int(found.uss)
    return 0, 0


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    os.environ["LATHE_LIMITS_REQUESTS_PER_MINUTE"] = "0"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with tempfile.TemporaryDirectory(prefix="lathe-endurance-") as name:
        folder = Path(name)
        stack = Stack(folder / "data", port=0)
        stack.start()
        try:
            stack.wait_ready(60)
            clients = [Client(stack.url, stack.key, CLIENTS * asked.seed + number, folder) for number in range(CLIENTS)]
            observer = Observer(stack)
            seconds = load(clients, observer, asked.minutes * 60)
        finally:
            stack.stop()
    report(clients, observer, seconds)


def load(clients: list[Client], observer: Observer, seconds: float) -> float:
    """How long it took until the last client had ended what it was at."""
    over, began = threading.Event(), time.monotonic()
    threads = [threading.Thread(target=client.run, args=[over]) for client in clients]
    watching = threading.Thread(target=observer.run, args=[over])
    for thread in (*threads, watching):
        thread.start()
    over.wait(seconds)
    over.set()
    for thread in (*threads, watching):
        thread.join()
    return time.monotonic() - began


def report(clients: list[Client], observer: Observer, seconds: float) -> None:
    """As Markdown, for RESULTS.md."""
    done = sum((client.done for client in clients), Counter[str]())
    failed = sum((client.failed for client in clients), Counter[str]())
    print(f"{seconds / 60:.0f} minutes, {CLIENTS} clients; done: {dict(done)}; failed: {sum(failed.values())}\n")
    for what, count in failed.most_common(10):
        print(f"- {count} x {what}")
    print("| | 1st quarter | 2nd | 3rd | 4th | 4th over 2nd | highest |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name, values in observer.figures.items():
        quarters = [statistics.median(part) for part in np.array_split(np.array(values), 4) if len(part)]
        if len(quarters) == 4:
            cells = [*(f"{value:.1f}" for value in quarters), f"{quarters[3] / max(quarters[1], 1e-9):.2f}"]
            print(f"| {name} | {' | '.join(cells)} | {max(values):.1f} |")


if __name__ == "__main__":
    main()
