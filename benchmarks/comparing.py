"""One model, the files that are made of it, and what is measured of them: shared by the comparisons.

Every optimizer and every measurement has a process of its own; latencies are taken by turns.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.children import ChildFailed, run_in_child
from benchmarks.entries import ORIGINAL, Entry
from benchmarks.standings import Standing
from benchmarks.subjects import FULL, QUICK, NotThere, Plan, Scale, Subject, prepare_subject
from benchmarks.tables import MIB, Comparison, entry_table, fidelity_words
from benchmarks.tasks import Task

ROUNDS, QUICK_ROUNDS = 11, 3
# A session of the largest model takes a second to load; what is timed of a round is a quarter of that.
SECONDS_A_TURN = 2.0
BUSY_LOAD = 0.5


@dataclass(frozen=True)
class Run:
    """Where files are made, and how thoroughly they are measured."""

    out: Path
    mnist: Path | None
    quick: bool
    threads: int
    digits_kept: int | None = None
    """Of the digits that judge, by default all that trained nothing."""

    @property
    def scale(self) -> Scale:
        scale = QUICK if self.quick else FULL
        kept = scale.digit_held_out if self.digits_kept is None else min(self.digits_kept, scale.digit_held_out)
        return replace(scale, digit_held_out=kept)

    @property
    def rounds(self) -> int:
        return QUICK_ROUNDS if self.quick else ROUNDS


def say(line: str = "") -> None:
    print(line, flush=True)


def warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        say(f"This machine is busy (load {load:.1f}): nothing measured now is worth keeping.")


def compare(plan: Plan, entries: Sequence[Entry], run: Run) -> Comparison | None:
    """Everything of one model; None where there is no such model here. Entries may start from earlier ones."""
    say(f"\n{plan.title}")
    try:
        subject = prepare_subject(plan, run.out, run.scale, run.mnist, lambda line: say(f"  {line}"))
        original = measure_original(subject, run)
    except (NotThere, ChildFailed) as error:
        say(f"  left out: {error}")
        return None
    standings = []
    for entry in entries:
        standing = optimize(entry, subject, original, run)
        say(f"  {entry.title:<46} {progress_words(standing, original)}")
        for note in standing.notes:
            say(f"      {note}")
        standings.append(standing)
    try:
        time_by_turns(subject, [original, *standings], run)
    except ChildFailed as error:
        say(f"  left out: timing failed: {error}")
        return None
    comparison = Comparison(plan, original, standings)
    say()
    for line in entry_table(comparison):
        say(line)
    return comparison


def measure_original(subject: Subject, run: Run) -> Standing:
    """
    Raises:
        ChildFailed: it does not run.

    """
    target = str(subject.folder / "expected.npy")
    arguments = {"model": str(subject.model), "target": target, **_judged_on(subject, run)}
    accuracy = run_in_child("benchmarks.judging:reference", arguments).value["accuracy"]
    size = subject.model.stat().st_size
    return Standing(ORIGINAL, path=str(subject.model), size_bytes=size, accuracy=accuracy)


def optimize(entry: Entry, subject: Subject, original: Standing, run: Run) -> Standing:
    """Run one optimizer, then its file on the samples kept."""
    standing = Standing(entry)
    if not entry.is_installed:
        standing.failure = f"left out: {entry.package} is not installed"
        return standing
    folder = subject.folder / entry.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    standing.path = str(folder / "model.onnx")
    task = _task(entry, subject, standing.path, run)
    try:
        answer = run_in_child(entry.function, {"task": task.as_json(), **entry.options})
    except ChildFailed as error:
        standing.failure = f"optimizing failed: {error}"
        return standing
    standing.seconds, standing.notes = answer.value["seconds"], answer.value.get("notes", [])
    standing.is_unchanged = not answer.value.get("modified", True)
    standing.peak_bytes, standing.baseline_bytes = answer.peak_bytes, answer.baseline_bytes
    standing.size_bytes = sum(file.stat().st_size for file in folder.iterdir())
    arguments = {"model": standing.path, "expected": str(subject.folder / "expected.npy"), **_judged_on(subject, run)}
    try:
        found = run_in_child("benchmarks.judging:fidelity", arguments).value
    except ChildFailed as error:
        standing.failure = f"its output fails: {error}"
        return standing
    standing.sqnr_db, standing.agreement, standing.accuracy = (
        found["sqnr_db"],
        found["agreement"],
        found["accuracy"],
    )
    return standing


def time_by_turns(subject: Subject, standings: list[Standing], run: Run) -> None:
    """Latencies of all that runs, in one process without any of the optimizers."""
    running = [standing for standing in standings if standing.failure is None]
    arguments = {
        "models": [standing.path for standing in running],
        "held_out": str(subject.held_out),
        "batch": subject.plan.batch,
        "threads": run.threads,
        "rounds": run.rounds,
        "seconds": SECONDS_A_TURN * run.rounds * len(running),
    }
    medians = run_in_child("benchmarks.judging:turns", arguments).value["medians_ms"]
    for standing, found in zip(running, medians, strict=True):
        standing.medians_ms = found


def progress_words(standing: Standing, original: Standing) -> str:
    if standing.failure is not None:
        return standing.failure
    fidelity = fidelity_words(standing, original)
    peak = (standing.peak_bytes or 0) / MIB
    return f"{standing.seconds:7.1f} s {peak:7.0f} MiB, file {standing.size_bytes / MIB:7.2f} MiB, {fidelity}"


def _task(entry: Entry, subject: Subject, target: str, run: Run) -> Task:
    start = subject.folder / entry.start / "model.onnx" if entry.start else subject.model
    task = Task(str(start), str(subject.calibration), target, run.threads, str(subject.model), batch=subject.plan.batch)
    if not subject.plan.is_trained:
        return task
    return replace(task, training=str(subject.training), weights=str(subject.weights))


def _judged_on(subject: Subject, run: Run) -> dict[str, object]:
    labels = str(subject.labels) if subject.plan.is_trained else None
    return {"held_out": str(subject.held_out), "labels": labels, "threads": run.threads}
