"""The deployment check: whether the file that is delivered can be put to work, asked of the file itself.

No part of it fails the job. What time does not suffice for, or what its process dies of, is a check that was skipped,
with the reason.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from app.jobs.report import CheckName, Deployment, DeploymentCheck, EdgeInput, ThreadLatency
from app.recipes.request import OptimizeRequest
from worker.engine.deployment import judging
from worker.engine.deployment.cases import Ground, shape_cases, value_cases
from worker.engine.deployment.requests import Alone, AloneAnswer, Case, Edges, EdgesAnswer, FedArray
from worker.engine.deployment.saturation_risk import saturation_risk
from worker.engine.evaluation.child import SOURCE_ROOT, Bounds, run_probe, run_script
from worker.engine.graph import inputs_of, nodes_of
from worker.engine.model_file import MAX_SINGLE_FILE_BYTES, ModelFile
from worker.engine.processor import needs_reduced_range
from worker.engine.random_input import integer_bounds
from worker.engine.sessions import PROVIDERS, Feed
from worker.engine.stored_arrays import ArrayStore
from worker.runner.measuring import GRACE_SECONDS, MOST_SHARES, START_SECONDS, Laboratory, Share, Subject
from worker.runner.side_by_side import why_unmeasured
from worker.runner.verdict import is_slower

# As many calls as a service answers in its first minutes; a model that takes longer gets as many as time allows.
RUNS = 1000
# More than most machines that run this have cores, so that calls do overlap.
CALLERS = 4
INPUTS = 4
MOST_SECONDS = 90.0
LEAST_SECONDS = 1.0
ALONE, VALUES, SHAPES, THREADS = 0.35, 0.15, 0.2, 0.3
"""Shares of the time."""
RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
DROPOUT_TRAINING_INPUT = 2
ALONE_CHECKS: tuple[CheckName, ...] = ("loads", "same_answers", "memory")
UNFEEDABLE = frozenset({"bfloat16"})
SCRIPT = SOURCE_ROOT / "worker" / "engine" / "deployment" / "standalone.py"
Step = Callable[[Deployment], list[DeploymentCheck]]


@dataclass(frozen=True)
class Terms:
    """How much may be asked: `seconds` for all checks together, as many threads as the worker has at most; whether a
    file that is slower than its original fails, or is only said to be; whether sums of 8-bit products saturate where
    it will run.
    """

    seconds: float
    most_threads: int
    slower_fails: bool = True
    saturates: bool = field(default_factory=needs_reduced_range)


def seconds_for_checking(laboratory: Laboratory) -> float:
    """What is left of the job's budget, up to what the checks can make use of."""
    return max(0.0, min(MOST_SECONDS, laboratory.pacing.seconds_left()))


def checked(
    request: OptimizeRequest, laboratory: Laboratory, original: Subject, candidate: Subject, most_threads: int
) -> Deployment | None:
    """The check, where the job asked for one. It comes before the steps of a chain, which take what is left."""
    if not request.deployment_check:
        return None
    laboratory.pacing.phase("checking")
    slower_fails = request.weights.latency > 0
    seconds = seconds_for_checking(laboratory)
    saturates = needs_reduced_range(request.target.instruction_set)
    return check_deployment(laboratory, original, candidate, Terms(seconds, most_threads, slower_fails, saturates))


def check_deployment(laboratory: Laboratory, original: Subject, candidate: Subject, terms: Terms) -> Deployment:
    """Every check on `candidate`, beside the original. Raises no fault of the user's."""
    started = time.monotonic()
    checking = _Checking(laboratory, original, candidate, terms)
    found = Deployment(checks=[], seconds=0.0)
    steps: list[tuple[tuple[CheckName, ...], float, Step]] = [
        (ALONE_CHECKS, ALONE, checking.alone),
        (("extreme_values",), ALONE + VALUES, checking.values),
        (("extreme_shapes",), ALONE + VALUES + SHAPES, checking.shapes),
        (("threads",), 1.0, checking.threads),
        (("without_vnni",), 1.0, checking.saturation),
    ]
    for names, end, step in steps:
        try:
            found.checks += step(found)
        except Exception as error:  # whatever it was, what the job delivers is not spoiled by it
            reason = f"It could not be made: {why_unmeasured(error)}"
            found.checks += [judging.skipped(name, reason) for name in names]
        laboratory.pacing.at(end)
    found.seconds = time.monotonic() - started
    return found


@dataclass
class _Checking:
    """The checks under way. Each takes a share of the time."""

    laboratory: Laboratory
    original: Subject
    candidate: Subject
    terms: Terms
    _count: int = 0
    _store: ArrayStore = field(init=False)

    def __post_init__(self) -> None:
        self._store = ArrayStore(self.laboratory.folder / "deployment" / "arrays")

    def alone(self, found: Deployment) -> list[DeploymentCheck]:
        """Loading, answering and memory, in one process of nothing but the runtime."""
        reason = self._no_time(self.candidate, ALONE) or self._unfeedable()
        if reason is not None:
            return [judging.skipped(name, reason) for name in ALONE_CHECKS]
        seconds = self._seconds(ALONE)
        answer = self._ask_alone(self.candidate.model, seconds)
        found.modules = answer.modules
        differs = any(one is not None and one.different_runs for one in (answer.alone, answer.together))
        other = self._ask_alone(self.original.model, seconds / 2) if differs else None
        loading = judging.judge_loading(answer)
        if answer.alone is None:
            return [loading, *(judging.skipped(name, "The file did not run.") for name in ALONE_CHECKS[1:])]
        draws = random_operators(self.original.model)
        return [loading, judging.judge_answers(answer, other, draws), judging.judge_memory(answer.memory)]

    def values(self, found: Deployment) -> list[DeploymentCheck]:
        """Zeros, ones and extremes."""
        return self._edges("extreme_values", value_cases, VALUES, found.edge_inputs)

    def shapes(self, found: Deployment) -> list[DeploymentCheck]:
        """One sample and many, short and long."""
        return self._edges("extreme_shapes", shape_cases, SHAPES, found.edge_inputs)

    def threads(self, found: Deployment) -> list[DeploymentCheck]:
        """Latency with 1, 2 and all threads, beside the original's."""
        counts = sorted({1, 2, self.terms.most_threads} & set(range(1, self.terms.most_threads + 1)))
        left_out = [] if len(counts) > 1 else ["This worker gives a model one thread."]
        for position, count in enumerate(counts):
            share = THREADS / len(counts)
            reason = self._no_time(self.original, share, files=2)
            if reason is not None:
                left_out.append(f"With {count} not timed: {reason}")
                continue
            folder = self.laboratory.folder / f"deployment-{count}-threads"
            laboratory = replace(self.laboratory, folder=folder, threads=count)
            begun = ALONE + VALUES + SHAPES + share * position
            span = Share(self._seconds(share) - START_SECONDS, (begun, begun + share))
            try:
                turns = laboratory.take_turns([self.original.model, self.candidate.model], span)
            except Exception as error:  # see `check_deployment`
                left_out.append(f"With {count} not timed: {why_unmeasured(error)}")
                continue
            before, after = turns.latencies
            found.latencies.append(
                ThreadLatency(threads=count, original=before, optimized=after, ratio=turns.ratios[1])
            )
        slower = [one.threads for one in found.latencies if is_slower(one.ratio)]
        return [judging.judge_threads(found.latencies, slower, self.terms.slower_fails, left_out)]

    def saturation(self, found: Deployment) -> list[DeploymentCheck]:
        """What the weights and codes say of processors without VNNI."""
        if self.laboratory.device != "cpu":
            return [judging.skipped("without_vnni", "The model runs on a GPU.")]
        if self.candidate.size_bytes > MAX_SINGLE_FILE_BYTES:
            return [judging.skipped("without_vnni", "The file is too large to be taken apart in memory.")]
        reason = self._no_time(self.candidate, 1.0)
        if reason is not None:
            return [judging.skipped("without_vnni", reason)]
        folder = self.laboratory.folder / "deployment" / "saturation"
        dtypes = _dtypes(self.candidate.model)
        feeds = [{key: array.astype(dtypes[key]) for key, array in feed.items()} for feed in self._feeds]
        risk = saturation_risk(self.candidate.model, feeds, self.laboratory.threads, folder)
        return [judging.judge_saturation(risk, self.terms.saturates)]

    def _edges(
        self, name: CheckName, cases: Callable[[Ground], list[Case]], share: float, found: list[EdgeInput]
    ) -> list[DeploymentCheck]:
        reason = self._no_time(self.original, share, files=2)
        if reason is not None:
            return [judging.skipped(name, reason)]
        seconds = self._seconds(share)
        request = Edges(
            original=str(self.original.model.path.resolve()),
            candidate=str(self.candidate.model.path.resolve()),
            cases=cases(self._ground),
            threads=self.laboratory.threads,
            device=self.laboratory.device,
            seconds=seconds - START_SECONDS,
        )
        answer = run_probe("edges", request, EdgesAnswer, self._bounds(name, seconds), "worker.engine.deployment")
        check, inputs = judging.judge_edges(name, answer)
        found += inputs
        return [check]

    def _ask_alone(self, model: ModelFile, seconds: float) -> AloneAnswer:
        dtypes = _dtypes(model)
        stored = [{name: self._store.keep(array) for name, array in feed.items()} for feed in self._feeds]
        request = Alone(
            model=str(model.path.resolve()),
            feeds=[
                {name: FedArray(**one.model_dump(), as_dtype=dtypes[name]) for name, one in feed.items()}
                for feed in stored
            ],
            threads=self.laboratory.threads,
            providers=PROVIDERS[self.laboratory.device],
            callers=CALLERS,
            runs=RUNS,
            seconds=seconds - START_SECONDS,
        )
        return run_script(SCRIPT, request, AloneAnswer, self._bounds("alone", seconds))

    @cached_property
    def _ground(self) -> Ground:
        inputs = inputs_of(self.original.model.structure())
        structure = self.original.model.structure()
        bounds = integer_bounds(structure, inputs)
        return Ground(inputs, self._feeds[0], self.laboratory.data.evaluation, bounds, structure, self._store)

    @cached_property
    def _feeds(self) -> list[Feed]:
        """The call that latency is measured on, and others of its shapes with other samples where there are any."""
        data = self.laboratory.data
        ordinary = next(data.latency.calls(1)).feed
        batch = data.evaluation.samples_per_call(data.batch)
        count = min(INPUTS, data.evaluation.sample_count // batch)
        others = [data.evaluation.call(np.arange(index * batch, (index + 1) * batch)).feed for index in range(1, count)]
        return [
            ordinary,
            *({name: np.resize(other[name], array.shape) for name, array in ordinary.items()} for other in others),
        ]

    def _seconds(self, share: float) -> float:
        return min(share * self.terms.seconds, self.laboratory.pacing.seconds_left())

    def _bounds(self, name: str, seconds: float) -> Bounds:
        self._count += 1
        folder = self.laboratory.folder / "deployment" / f"{self._count}-{name}"
        return Bounds(folder, MOST_SHARES * seconds + GRACE_SECONDS)

    def _no_time(self, subject: Subject, share: float, files: int = 1) -> str | None:
        """Why a check with this share is not begun, where it is too short for loading and a few calls."""
        needed = START_SECONDS + files * (subject.footprint.load_ms + 3 * subject.footprint.call_ms) / 1e3
        seconds = self._seconds(share)
        if seconds >= max(needed, LEAST_SECONDS):
            return None
        return (
            f"No time was left for it: it takes {max(needed, LEAST_SECONDS):.1f} s or more, and had "
            f"{max(seconds, 0.0):.1f} s. Raise budget_seconds."
        )

    def _unfeedable(self) -> str | None:
        names = [face.name for face in inputs_of(self.candidate.model.structure()) if face.dtype in UNFEEDABLE]
        return f"numpy alone has no dtype for {', '.join(names)}." if names else None


def random_operators(model: ModelFile) -> list[str]:
    """The operators of a model that draw random numbers, those in subgraphs included."""
    found = set()
    for node in nodes_of(model.structure().graph):
        training = node.op_type == "Dropout" and len(node.input) > DROPOUT_TRAINING_INPUT
        if node.op_type in RANDOM_OPERATORS or training:
            found.add(node.op_type)
    return sorted(found)


def _dtypes(model: ModelFile) -> dict[str, str]:
    return {face.name: face.dtype for face in inputs_of(model.structure())}
