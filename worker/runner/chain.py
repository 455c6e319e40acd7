"""Running the passes of a recipe, one after another."""

import gc
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.jobs.report import Step
from app.recipes.base import PassConfig
from worker.engine.feeds import Feeds
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import BudgetExhausted, ExtraKind, PassContext, TrainingData
from worker.engine.preparation import Preparations, defaults_in_words
from worker.engine.sessions import Device
from worker.passes.registry import load_pass
from worker.runner.checkpoints import StepCheckpoints, chosen_before
from worker.runner.pacing import Pacing


@dataclass
class Outcome:
    """The last good model and how it came about."""

    model: ModelFile
    steps: list[Step] = field(default_factory=list)
    files: list[ModelFile] = field(default_factory=list)
    """What each step left: its own file, or the one that it was given where it changed nothing."""
    manifests: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    extras: dict[ExtraKind, Path] = field(default_factory=dict)
    """What the last pass made beside its model; of an earlier one's it would be out of date."""
    made_here: bool = False
    """Whether a pass ran for it in this job; else all it is made of was taken from an earlier search."""

    @property
    def modified(self) -> bool:
        return any(step.modified for step in self.steps)

    def branch(self) -> "Outcome":
        """The same so far: what goes on from it leaves this one as it is."""
        return replace(
            self,
            steps=list(self.steps),
            files=list(self.files),
            manifests=list(self.manifests),
            warnings=list(self.warnings),
            extras=dict(self.extras),
        )

    def go_on(self, model: ModelFile, step: Step, manifest: dict[str, Any], extras: dict[ExtraKind, Path]) -> None:
        """By one step more, which left this model."""
        self.model, self.extras = model, extras
        self.steps.append(step)
        self.files.append(model)
        self.manifests.append(manifest)


@dataclass(frozen=True)
class Circumstances:
    """What every pass of a chain is given."""

    feeds: Feeds
    seed: int
    threads: int
    round_seconds: float
    folder: Path
    pacing: Pacing
    target: Feeds
    max_drop: float | None
    device: Device
    instruction_set: str | None
    original: ModelFile
    preparations: Preparations
    others: Mapping[str, ModelFile]
    training: TrainingData | None
    workdir: Path
    checkpoints: Mapping[int, str]
    """By step, where in `workdir` an earlier attempt's lie."""
    findings: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)

    def context(self, number: int, name: str, choices: Sequence[Mapping[str, Any] | None] = ()) -> PassContext:
        """Of one step of a recipe; `choices`: by step before it, the arguments that repeat it."""
        scratch = self.folder / f"{number}-{name}"
        scratch.mkdir(parents=True)
        return PassContext(
            scratch=scratch,
            feeds=self.feeds,
            seed=self.seed,
            threads=self.threads,
            round_seconds=self.round_seconds,
            deadline=self.pacing.passes_deadline(),
            progress=self.pacing.at,
            phase=self.pacing.phase,
            target=self.target,
            max_drop=self.max_drop,
            device=self.device,
            instruction_set=self.instruction_set,
            training=self.training,
            original=self.original,
            preparations=self.preparations,
            findings=self.findings,
            others=self.others,
            checkpoints=self._checkpoints(number, scratch, choices),
            log=lambda message: self.pacing.events.log(f"{name}: {message}"),
            epoch=self.pacing.events.epoch,
        )

    def settled(self, recipe: Sequence[PassConfig]) -> dict[int, PassConfig]:
        """By step, as an earlier attempt had chosen by its last checkpoint."""
        if not self.checkpoints:
            return {}
        last = self.workdir / self.checkpoints[max(self.checkpoints)]
        return chosen_before(last, recipe, self.folder)

    def _checkpoints(self, number: int, scratch: Path, choices: Sequence[Mapping[str, Any] | None]) -> StepCheckpoints:
        given = self.checkpoints.get(number)
        return StepCheckpoints(
            self.workdir, number, None if given is None else self.workdir / given, scratch, self.pacing.events, choices
        )


def run_chain(
    model: ModelFile, recipe: Sequence[PassConfig], circumstances: Circumstances, span: tuple[float, float]
) -> Outcome:
    """Passes in order, taking the job over `span` of its progress. Out of time, what is ready is kept.

    Raises:
        UserFault: a pass cannot do its work, or time is over before one has.

    """
    outcome = Outcome(model)
    width = (span[1] - span[0]) / len(recipe)
    settled = circumstances.settled(recipe)
    for number, config in enumerate(recipe):
        name = str(config.model_dump()["pass_"])
        circumstances.pacing.span(span[0] + width * number, span[0] + width * (number + 1))
        try:
            choices = [manifest.get("replay") for manifest in outcome.manifests]
            context = circumstances.context(number, name, choices)
            run_pass(name, config, outcome, context, settled.get(number))
        except BudgetExhausted as error:
            if not outcome.modified:
                raise
            outcome.warnings.append(f"The recipe stopped before `{name}` was done: {error.detail}")
            break
        for note in outcome.steps[-1].notes:
            circumstances.pacing.events.log(f"{name}: {note}")
    gc.collect()
    return outcome


def run_pass(
    name: str, config: PassConfig, outcome: Outcome, context: PassContext, settled: PassConfig | None = None
) -> None:
    """Let one pass go on from `outcome`, as an earlier attempt had `settled` it where one had.

    Raises:
        UserFault: it cannot do its work, or time is over before it has.

    """
    started = time.monotonic()
    context.check_time(f"`{name}`")
    result = load_pass(name)(outcome.model, settled or config, context)
    notes = list(result.notes)
    if result.modified:
        # Said here and of the files: no pass that makes its model ready knows yet whether it will change anything.
        notes += defaults_in_words(outcome.model, result.model)
    step = {
        "pass": name,
        "parameters": config.model_dump(by_alias=True, mode="json"),
        "modified": result.modified,
        "seconds": time.monotonic() - started,
        "notes": notes,
        "layers": result.layers,
    }
    outcome.go_on(result.model, Step.model_validate(step), {"pass": name, **result.manifest}, result.extras)
    outcome.made_here = True
