"""How faithful a file is to the original, and how fast: measured in children, for a file may crash its process."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tasks import arrays_in, samples_of
from worker.engine.evaluation.metrics import agreement, broken_samples, classes, signal_and_noise
from worker.engine.fidelity import Power, typical_db
from worker.engine.sessions import open_session, run_session
from worker.engine.turns import ROUND_SECONDS, Conditions, take_turns


class Broken(Exception):
    """A file runs and returns what is no number where the original returns one."""


def reference(model: str, held_out: str, labels: str | None, target: str, threads: int) -> dict[str, Any]:
    """Write the original's output on every sample kept to `target`; its accuracy, where there are labels."""
    output = _outputs(model, held_out, threads)
    np.save(target, output)
    return {"accuracy": _accuracy(output, labels)}


def fidelity(model: str, held_out: str, labels: str | None, expected: str, threads: int) -> dict[str, Any]:
    """SQNR in dB (None: not a bit differs), the share of samples with the same top class, and accuracy.

    Where few samples would hide that most are noise, SQNR is that of the usual one.

    Raises:
        ModelFails: the file does not load or run.
        Broken: it returns NaN or infinity.

    """
    left, right = np.load(expected), _outputs(model, held_out, threads)
    broken = int(broken_samples(left, right).sum())
    if broken:
        raise Broken(f"NaN or infinity for {broken} of {len(left)} samples")
    signal, noise = signal_and_noise(left, right)
    samples = [Power(*powers) for powers in zip(signal.tolist(), noise.tolist(), strict=True)]
    return {
        "sqnr_db": typical_db(samples) if noise.any() else None,
        "agreement": float(agreement(left, right).mean()),
        "accuracy": _accuracy(right, labels),
    }


def turns(models: list[str], held_out: str, batch: int, threads: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Median milliseconds of a call of `batch` samples by round, a list a file. `seconds` is for all of it."""
    feed = next(samples_of(arrays_in(Path(held_out)), batch))
    timings = take_turns(
        [Path(model) for model in models],
        [feed] * len(models),
        Conditions(threads, rounds, seconds, "cpu", ROUND_SECONDS),
    )
    return {"medians_ms": [timing.medians for timing in timings]}


def _outputs(model: str, held_out: str, threads: int) -> np.ndarray:
    """The first output on every sample, one a call: what dynamic ranges are taken over is one sample then."""
    session = open_session(Path(model), threads)
    return np.concatenate([run_session(session, feed)[0] for feed in samples_of(arrays_in(Path(held_out)))])


def _accuracy(output: np.ndarray, labels: str | None) -> float | None:
    if labels is None:
        return None
    truth = np.load(labels)
    return float((classes(output, truth) == truth).mean())
