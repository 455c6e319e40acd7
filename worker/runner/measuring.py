"""Measuring a file and its original through the probes, within what is left of the budget."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from app.jobs.report import Latency, Measurement, Quality
from app.recipes.request import Metric
from worker.engine.evaluation.child import Bounds, run_probe
from worker.engine.evaluation.file_size import compressed_size_bytes
from worker.engine.evaluation.one_call import Footprint, OneCall
from worker.engine.evaluation.requests import Comparison, ComparisonAnswer, KernelReport, Turns, TurnsAnswer
from worker.engine.feeds import FeedDescription
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.sessions import Device
from worker.engine.stored_arrays import ArrayStore, StoredArray
from worker.runner.job_data import JobData
from worker.runner.pacing import Pacing

LEAST_SECONDS = 1.0
KERNEL_SECONDS, FOOTPRINT_SECONDS, TURNS_SECONDS = 2.0, 10.0, 60.0
GRACE_SECONDS = 30.0
# Rounds on an idle machine stay within a few per cent.
NOISY_SPREAD = 1.5
# What a probe takes beyond measuring: a fresh interpreter and its imports.
START_SECONDS = 0.7
# What a turn takes beyond its calls that are timed: loading, and warming up.
BESIDE_CALLS_SECONDS = 0.08
# A probe that was given a share of the time and takes this many times as long hangs.
MOST_SHARES = 3


@dataclass(frozen=True)
class Share:
    """What one probe may take: seconds of measuring, and its part of the present span of progress."""

    seconds: float
    span: tuple[float, float] = (0.0, 1.0)


@dataclass
class Subject:
    """One file under measurement."""

    model: ModelFile
    size_bytes: int
    compressed_size_bytes: int
    footprint: Footprint
    kernels: KernelReport

    def measurement(self, latency: Latency, samples_per_second: float, quality: list[Quality]) -> Measurement:
        return Measurement(
            size_bytes=self.size_bytes,
            compressed_size_bytes=self.compressed_size_bytes,
            load_ms=self.footprint.load_ms,
            peak_memory_bytes=self.footprint.peak_memory_bytes,
            baseline_memory_bytes=self.footprint.baseline_memory_bytes,
            latency=latency,
            throughput_per_second=samples_per_second,
            quality=quality,
            kernels=self.kernels.kernels,
        )


@dataclass
class Laboratory:
    """Runs probes one at a time; each gets a folder of its own in `folder`."""

    folder: Path
    data: JobData
    threads: int
    device: Device
    seed: int
    pacing: Pacing
    timing_rounds: int
    round_seconds: float
    confidence: float = 0.95
    """Of the bounds on the drop of the metric."""
    _store: ArrayStore = field(init=False)
    _count: int = 0

    def __post_init__(self) -> None:
        self._store = ArrayStore(self.folder / "arrays")

    def examine(self, model: ModelFile) -> Subject:
        """Everything that is measured on one file alone."""
        request = self._one_call(model, self._allot(FOOTPRINT_SECONDS, 0.1))
        footprint = run_probe("footprint", request, Footprint, self._bounds("footprint", START_SECONDS))
        self.pacing.at(0.5)
        request = self._one_call(model, self._allot(KERNEL_SECONDS, 0.05))
        kernels = run_probe("kernels", request, KernelReport, self._bounds("kernels", START_SECONDS, (0.5, 1.0)))
        self.pacing.at(1.0)
        return Subject(model, model.size_bytes(), compressed_size_bytes(model.files()), footprint, kernels)

    def take_turns(self, models: list[ModelFile], share: Share | None = None) -> TurnsAnswer:
        """Latency of all, the first being what the others are compared with."""
        seconds = share.seconds if share else self._allot(TURNS_SECONDS, 0.4)
        request = Turns(
            models=[str(model.path.resolve()) for model in models],
            feeds=[self._latency_feed(model) for model in models],
            threads=self.threads,
            device=self.device,
            seconds=seconds,
            rounds=self.timing_rounds,
            round_seconds=self.round_seconds,
        )
        expected = START_SECONDS + min(seconds, self.turns_seconds(len(models)))
        return run_probe("latency", request, TurnsAnswer, self._bounds_within(share, "latency", expected))

    def turns_seconds(self, count: int) -> float:
        """What turns of so many files usually take, where their time suffices for every round."""
        return self.timing_rounds * count * (self.round_seconds + BESIDE_CALLS_SECONDS)

    def compare(
        self,
        original: ModelFile,
        candidate: ModelFile,
        metric: Metric,
        call_ms: float,
        share: Share | None = None,
    ) -> ComparisonAnswer:
        """Quality of both on the evaluation data; `call_ms` is what a call of both takes, for the estimate of time."""
        seconds = share.seconds if share else self._allot(float("inf"), 0.8)
        feeds = self.data.evaluation
        request = Comparison(
            original=str(original.path.resolve()),
            candidate=str(candidate.path.resolve()),
            feed=self._evaluation,
            labels=self._labels,
            metric=metric,
            threads=self.threads,
            device=self.device,
            batch=self.data.batch,
            seconds=seconds,
            seed=self.seed,
            confidence=self.confidence,
        )
        calls = feeds.sample_count / feeds.samples_per_call(self.data.batch)
        expected = START_SECONDS + min(seconds, calls * call_ms / 1e3)
        return run_probe("comparison", request, ComparisonAnswer, self._bounds_within(share, "comparison", expected))

    # Data that no file holds is written for the probes, once however many there are.

    @cached_property
    def _latency(self) -> FeedDescription:
        return self.data.latency.describe(self._store)

    @cached_property
    def _evaluation(self) -> FeedDescription:
        return self.data.evaluation.describe(self._store)

    @cached_property
    def _labels(self) -> dict[str, StoredArray]:
        return {name: self._store.keep(array) for name, array in self.data.labels.items()}

    def _one_call(self, model: ModelFile, seconds: float) -> OneCall:
        folder = self.folder / f"written-{self._count}"
        folder.mkdir(parents=True)
        return OneCall(
            model=str(model.path.resolve()),
            feed=self._latency_feed(model),
            threads=self.threads,
            device=self.device,
            seconds=seconds,
            folder=str(folder.resolve()),
        )

    def _latency_feed(self, model: ModelFile) -> FeedDescription:
        """A pass may have changed the dtype of an input: float16 in place of float32."""
        dtypes = {face.name: face.dtype for face in inputs_of(model.structure())}
        return self._latency.model_copy(update={"dtypes": {name: dtypes[name] for name in self._latency.dtypes}})

    def _allot(self, most: float, share: float) -> float:
        return max(LEAST_SECONDS, min(most, share * self.pacing.seconds_left()))

    def _bounds_within(self, share: Share | None, name: str, expected_seconds: float) -> Bounds:
        if share is None:
            return self._bounds(name, expected_seconds)
        bounds = self._bounds(name, expected_seconds, share.span)
        return replace(bounds, limit_seconds=min(bounds.limit_seconds, MOST_SHARES * share.seconds + GRACE_SECONDS))

    def _bounds(self, name: str, expected_seconds: float, span: tuple[float, float] = (0.0, 1.0)) -> Bounds:
        """While a probe runs, progress follows the clock: it cannot tell itself without disturbing what it times."""
        self._count += 1
        start, end = span

        def waiting(gone: float) -> None:
            # Past what was expected, ever slower towards the end of the span.
            done = gone / expected_seconds
            self.pacing.at(start + (end - start) * (0.9 * done if done < 1 else 1 - 0.1 / done))

        limit = self.pacing.seconds_left() + GRACE_SECONDS
        return Bounds(self.folder / f"{self._count}-{name}", limit, waiting)


def noise_warnings(measured: TurnsAnswer) -> list[str]:
    """Whether the machine was too busy to time on, in words: a list of no or one sentence."""
    medians = measured.latencies[0].round_medians_ms
    if max(medians) <= NOISY_SPREAD * min(medians):
        return []
    return [
        f"Timing was disturbed: the original's median went from {min(medians):.3g} to {max(medians):.3g} ms between "
        "rounds. Something else used the machine; the ratio's interval shows what that leaves uncertain."
    ]
