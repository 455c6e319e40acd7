"""What calibration costs: its memory with many samples against few, its time against the plain forward passes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.children import run_in_child
from worker.engine.calibration import Settings, calibrate
from worker.engine.feeds import Feeds
from worker.engine.graph_file import read_graph
from worker.engine.int8.building import tensors_to_calibrate
from worker.engine.int8.eligible import eligible
from worker.engine.int8.units import units_of
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext
from worker.engine.preparation import prepare
from worker.engine.sessions import open_session, run_session

# And the samples that are timed: enough that opening sessions hardly counts.
MODELS = {"resnet50": 200, "mobilenetv2": 2000}
FEW, MANY, ROUNDS = 100, 2000, 5
QUICK_FEW, QUICK_MANY, QUICK_TIMED, QUICK_ROUNDS = 20, 100, 20, 1
INPUT, SHAPE = "pixel_values", (3, 224, 224)


@dataclass(frozen=True)
class Cost:
    """`ratios` are seconds of calibration over seconds of plain forward passes of `timed` samples, a round each."""

    title: str
    few: int
    many: int
    timed: int
    few_peak_bytes: int
    many_peak_bytes: int
    passes: float
    ratios: list[float]


class RowsOfFile:
    """float16 samples read from a file when they are asked for: mapped pages would count as memory of the process."""

    def __init__(self, path: str, count: int) -> None:
        self.path, self.count, self.rows_read = Path(path), count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        elements = int(np.prod(SHAPE))
        self.rows_read += len(rows)
        with self.path.open("rb") as file:
            found = []
            for row in rows:
                file.seek(int(row) * elements * 2)
                found.append(np.fromfile(file, np.float16, elements).reshape(SHAPE))
        return np.stack(found)


def measure_calibration(
    title: str, model: Path, timed: int, threads: int, quick: bool, folder: Path, say: Callable[[str], None]
) -> Cost:
    """Calibrate for `quantize_static`; every measurement in a process of its own, times of `timed` samples by turns.

    Raises:
        ChildFailed: a measurement fails.

    """
    few, many, timed, rounds = (
        (QUICK_FEW, QUICK_MANY, QUICK_TIMED, QUICK_ROUNDS) if quick else (FEW, MANY, timed, ROUNDS)
    )
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / "samples.bin"
    _write_rows(rows, many)
    common = {"rows": str(rows), "threads": threads}
    prepared = folder / "prepared" / "model.onnx"
    run_in_child(f"{__name__}:prepare_model", {"model": str(model), "target": str(prepared), **common})
    common["model"] = str(prepared)
    ratios, passes = [], 1.0
    for number in range(rounds):
        plain = run_in_child(f"{__name__}:forward", {**common, "samples": timed}).value["seconds"]
        answer = run_in_child(f"{__name__}:observe", {**common, "samples": timed}).value
        seconds, passes = answer["seconds"], answer["passes"]
        ratios.append(seconds / (plain * passes))
        say(f"round {number}: {timed} samples forward {plain:.1f} s, calibrated {seconds:.1f} s")
    peaks = [run_in_child(f"{__name__}:observe", {**common, "samples": count}).peak_bytes for count in (few, many)]
    say(f"{few} samples: {peaks[0] / 2**20:.0f} MiB; {many} samples: {peaks[1] / 2**20:.0f} MiB")
    rows.unlink()
    return Cost(title, few, many, timed, peaks[0], peaks[1], passes, ratios)


def prepare_model(model: str, rows: str, threads: int, target: str) -> dict[str, Any]:
    """As every pass does first; apart, so that its memory hides nothing of calibration's."""
    scratch = Path.cwd() / "scratch"
    feed = next(_feeds(RowsOfFile(rows, 1)).calls(1)).feed
    prepared = prepare(ModelFile(Path(model)), feed, scratch, threads).model
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(prepared.path.read_bytes())
    return {}


def observe(model: str, rows: str, threads: int, samples: int) -> dict[str, Any]:
    """Calibrate as `quantize_static` does. `passes` is how often every sample was read."""
    file, source = ModelFile(Path(model)), RowsOfFile(rows, samples)
    tensors = tensors_to_calibrate(eligible(units_of(read_graph(file)), False, None, []))
    scratch = Path.cwd() / "scratch"
    scratch.mkdir()
    context = PassContext(scratch, _feeds(source), 0, threads)
    started = time.perf_counter()
    calibrate(file, Settings("mse", samples=samples), context, lambda _share: None, tensors)
    return {"seconds": time.perf_counter() - started, "passes": max(1, source.rows_read // samples)}


def forward(model: str, rows: str, threads: int, samples: int) -> dict[str, Any]:
    """The same samples through the model and nothing else, sessions opened within the time, as in calibration."""
    started = time.perf_counter()
    session = open_session(Path(model), threads)
    for call in _feeds(RowsOfFile(rows, samples)).calls(1):
        run_session(session, call.feed)
    return {"seconds": time.perf_counter() - started}


def _feeds(source: RowsOfFile) -> Feeds:
    return Feeds({INPUT: source}, {INPUT: "float32"}, frozenset(), len(source))  # type: ignore[dict-item]


def _write_rows(path: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(count):
            generator.standard_normal(SHAPE, np.float32).astype(np.float16).tofile(file)
