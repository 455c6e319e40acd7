"""What a pass is: a model file in, another out, and a truthful account of what was done."""

import shutil
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from app.jobs.report import Layer, TrainedEpoch
from app.recipes.base import PassConfig
from worker.engine import turns
from worker.engine.faults import UserFault
from worker.engine.feeds import Feeds
from worker.engine.model_file import ModelFile
from worker.engine.sessions import Device, Feed

if TYPE_CHECKING:
    from worker.engine.preparation import Preparations

ExtraKind = Literal["ort"]
Finding = TypeVar("Finding")


class BudgetExhausted(UserFault):
    code, title = "budget_exhausted", "The job's time was over before a model was ready"


@dataclass(frozen=True)
class TrainingData:
    """What is learned from: feeds, and the arrays of the same dataset that are no inputs, by name."""

    feeds: Feeds
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    places: np.ndarray | None = None
    """Where its samples lie in the dataset, ascending indices; None: they are all of it."""


class Checkpoints(Protocol):
    """Where one pass of one job leaves what it would go on from, should its process end."""

    def last(self) -> Path | None:
        """The folder that an earlier attempt at the job saved last in this pass; None where there is none."""

    def save(self, folder: Path) -> None:
        """Let this folder of plain files be the last one; it is moved away."""

    def settle(self, arguments: Mapping[str, Any]) -> None:
        """What this pass has chosen: arguments that an attempt which goes on from here is given in the recipe's place,
        so that it makes the same choices though its clock may tell it another time.
        """


class NoCheckpoints:
    """For callers that start anew: what is saved is gone at once."""

    def last(self) -> Path | None:
        return None

    def save(self, folder: Path) -> None:
        shutil.rmtree(folder)

    def settle(self, arguments: Mapping[str, Any]) -> None:
        """There is nobody to remember it for."""


@dataclass
class Haste:
    """Whether a pass did less than it would have done with more time."""

    cut_short: bool = False


@dataclass(frozen=True)
class PassContext:
    """What a pass may use. It writes into `scratch` alone, an empty folder of its own."""

    scratch: Path
    feeds: Feeds
    seed: int
    threads: int
    target: Feeds | None = None
    """One call at the shapes that latency is measured at; None: the first of `feeds`."""
    round_seconds: float = field(default_factory=lambda: turns.ROUND_SECONDS)
    """How long a file is timed every time, where files are timed by turns."""
    deadline: float = field(default=float("inf"))
    """On the clock of `time.monotonic`; a pass that could do less to keep it does so, and asks by `lacks`."""
    haste: Haste = field(default_factory=Haste)
    progress: Callable[[float], None] = lambda _share: None
    """Told the share of the pass that is done, 0 to 1."""
    max_drop: float | None = None
    """What the job's contract allows to be lost of a metric that counts samples; None where it says nothing of it."""
    phase: Callable[[str], None] = lambda _name: None
    """Told what the pass is doing, in one word: `calibrating`, `quantizing`."""
    device: Device = "cpu"
    """Where the model will run."""
    instruction_set: str | None = None
    """The least that its processors have there, as the job's target names it; None: what this one has."""
    training: TrainingData | None = None
    """What the passes that train learn from."""
    original: ModelFile | None = None
    """The model as it was uploaded, before any pass; None: the one that the pass is given."""
    preparations: "Preparations | None" = None
    """Those of `original` that the passes of one job share."""
    findings: dict[tuple[Hashable, ...], Any] = field(default_factory=dict)
    """What the passes of one job found out, by what it rests on beside the job's data and seed: see `once`."""
    others: Mapping[str, ModelFile] = field(default_factory=dict)
    """Other uploaded models that the recipe names, by id."""
    checkpoints: Checkpoints = field(default_factory=NoCheckpoints)
    log: Callable[[str], None] = lambda _message: None
    """Told what a person who waits wants to read: the loss and the metric of an epoch."""
    epoch: Callable[[TrainedEpoch], None] = lambda _epoch: None
    """Told the same of each epoch in numbers."""

    def timed_feed(self) -> Feed:
        """The call that speed is measured on."""
        return next((self.target or self.feeds).calls(1)).feed

    def once(self, key: tuple[Hashable, ...], find: Callable[[], Finding]) -> Finding:
        """What `find` answers, which another pass of the job may have asked before. What time cut short is not kept:
        a later pass may have more.
        """
        if key in self.findings:
            known: Finding = self.findings[key]
            return known
        before, self.haste.cut_short = self.haste.cut_short, False
        try:
            found = find()
            if not self.haste.cut_short:
                self.findings[key] = found
        finally:
            self.haste.cut_short |= before
        return found

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def lacks(self, seconds: float) -> bool:
        """Whether less time than that is left. A pass then does less, and what it makes differs: it is remembered."""
        short = self.seconds_left() < seconds
        self.haste.cut_short |= short
        return short

    def check_time(self, what: str) -> None:
        """
        Raises:
            BudgetExhausted: nothing is left for `what`.

        """
        if self.lacks(0.0):
            raise BudgetExhausted(f"No time was left for {what}.", "Raise budget_seconds.")


def share_of(context: PassContext, start: float, end: float) -> PassContext:
    """The same for a part of the pass, whose progress goes from `start` to `end` of the whole."""
    return replace(context, progress=lambda share: context.progress(start + (end - start) * share))


@dataclass(frozen=True)
class PassResult:
    """`model` lies in the pass's scratch folder, or among the job's preparations; where `modified` is false it is the
    input.
    """

    model: ModelFile
    modified: bool
    notes: list[str] = field(default_factory=list)
    manifest: dict[str, Any] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    extras: dict[ExtraKind, Path] = field(default_factory=dict)
    """Files to be delivered beside the model, by kind."""


class Pass(Protocol):
    """One optimization method. The input file is never touched; the same seed gives the same bytes."""

    def __call__(self, model: ModelFile, config: PassConfig, context: PassContext, /) -> PassResult: ...
