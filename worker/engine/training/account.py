"""What a training did, in words and for the manifest."""

import math
from collections import Counter
from typing import Any

from worker.engine.training.judging import Judgement
from worker.engine.training.lesson import Lesson
from worker.engine.training.objective import Lessons
from worker.engine.training.targets import Target
from worker.engine.training.trainer import DIVERGED, PATIENCE, TIME, Trained

WHY_STOPPED = {
    TIME: "the next epoch would not have fitted into the job's time",
    PATIENCE: "for as many epochs as `patience` says none had counted more or lost less than all before",
    DIVERGED: "the loss or its gradient was no number any more: lower `learning_rate`",
}
NEVER_A_NUMBER = (
    "the loss was no number, and was none before training: NaN or infinity is in the training data or in what is "
    "answered to it"
)
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}


def in_words(lesson: Lesson, trained: Trained) -> list[str]:
    """What was learned from, how it went, what was kept, and what stayed as it was."""
    options, standing, choice = lesson.options, trained.standing, trained.choice
    ran, held = len(standing.history), len(lesson.split.held_out)
    notes = [
        f"{ran} of {options.epochs} epochs of {lesson.batches.steps} steps over {len(lesson.split.training):,} samples "
        f"({OPTIMIZERS[options.optimizer]}, learning rate {options.highest_rate:g}); learned from "
        f"{_sources(lesson.objective)}."
    ]
    if standing.stopped is not None:
        notes.append(f"Training ended after epoch {ran}: {why_stopped(trained)}.")
    start, kept = choice.start, choice.kept
    if trained.improved and kept is not None:
        before = "" if start is None else f", before training {start.in_words()}"
        notes.append(f"Kept: epoch {choice.epoch}. On {held:,} held-out samples: {kept.in_words()}{before}.")
    elif start is not None:
        last = Judgement(**standing.history[-1]["held_out"]).in_words() if standing.history else "none was judged"
        notes.append(
            f"No epoch was better on {held:,} held-out samples than the weights of before ({start.in_words()}; the "
            f"last epoch: {last}): those were kept."
        )
    if trained.resumed_at is not None:
        notes.append(f"An earlier attempt had done {trained.resumed_at} epochs: training went on from there.")
    return [*notes, *lesson.notes, *_what_stayed(lesson), *lesson.student.notes]


def why_stopped(trained: Trained) -> str:
    """The reason of a training that was `stopped`."""
    stopped, start = trained.standing.stopped, trained.choice.start
    if stopped == DIVERGED and start is not None and not math.isfinite(start.loss):
        return NEVER_A_NUMBER
    return WHY_STOPPED[stopped or ""]


def finite(value: Any) -> Any:
    """As it is, with None for NaN and infinity, which JSON does not have: a loss may become either."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def for_manifest(lesson: Lesson, trained: Trained) -> dict[str, Any]:
    """Plain JSON."""
    standing = trained.standing
    return {
        "options": lesson.options.filled_in(),
        "history": finite(standing.history),
        "before_training": finite(trained.choice.start and trained.choice.start.facts()),
        "kept_epoch": trained.choice.epoch,
        "stopped": standing.stopped,
        "split": {
            "training": len(lesson.split.training),
            "held_out": len(lesson.split.held_out),
            "held_out_sha256": lesson.split.sha256(),
        },
        "labels": {hard.target.output: hard.target.array for hard in lesson.objective.hard},
        "features": {one.pair.student: one.pair.teacher for one in lesson.objective.features},
        "frozen": dict(sorted(lesson.student.frozen.items())),
        "zeros_kept": sorted(lesson.masks.kept) if lesson.masks else [],
    }


def replayed(lesson: Lesson, trained: Trained) -> dict[str, Any]:
    """The arguments that end where this run did, however much time there is."""
    pinned = {"stop_after": len(trained.standing.history)} if trained.standing.stopped == TIME else {}
    return lesson.options.filled_in() | pinned


def _sources(objective: Lessons) -> str:
    weights, named = objective.weights, []
    if objective.soft:
        names = ", ".join(_meaning(one.reading.output, one.reading.axis, one.reading.certain) for one in objective.soft)
        named.append(f"the teacher's outputs (weight {weights.alpha:g}, T {weights.temperature:g}: {names})")
    if objective.features:
        projected = sum(one.projection is not None for one in objective.features)
        by = f", {projected} by projection" if projected else ""
        named.append(f"{len(objective.features)} of its inner tensors (weight {weights.beta:g}{by})")
    if objective.hard:
        labels = ", ".join(
            f"{one.target.array} for {one.target.output} by {_loss(one.target)}" for one in objective.hard
        )
        named.append(f"labels (weight {weights.gamma:g}: {labels})")
    return " and ".join(named)


def _loss(target: Target) -> str:
    if target.axis is not None:
        return "cross-entropy"
    return "binary cross-entropy" if target.binary else "squared error"


def _meaning(output: str, axis: int | None, certain: bool) -> str:
    if axis is None:
        return f"{output} as numbers"
    return f"{output} as classes" if certain else f"{output} as classes and as numbers, as nothing says which"


def _what_stayed(lesson: Lesson) -> list[str]:
    student = lesson.student
    weights = student.module.held()  # scales that are learned beside them are none
    trained = sum(tensor.requires_grad for name, tensor in student.tensors.items() if name in weights)
    notes = [f"{trained} weight tensors were trained."]
    counts = Counter(student.frozen.values())
    notes += [f"Not trained: {count} tensors ({reason})." for reason, count in sorted(counts.items())]
    if lesson.masks:
        zeros = sum(int((~kept).sum()) for kept in lesson.masks.kept.values())
        notes.append(f"{zeros:,} weights in {len(lesson.masks.kept)} tensors were zero and stayed so.")
    return notes
