"""Lathe's passes beside the tools that do the same, on the same models, data and machine, in one run.

    python -m benchmarks.peers                          everything
    python -m benchmarks.peers resnet50 calibration     some of it, by name
    python -m benchmarks.peers --mnist FOLDER           with the networks trained on digits (MNIST's test set, IDX)
    python -m benchmarks.peers --quick                  few samples and rounds: whether everything works

Every optimizer and every measurement has a process of its own; latencies are taken by turns. Models are built once, in
`benchmarks/out`. What is not installed is left out, and said. At the end: tables for benchmarks/RESULTS.md, which
`benchmarks/out/peers.md` holds as well, and `peers.json` with every raw number.
"""

import argparse
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import calibration_cost
from benchmarks.calibration_cost import Cost, measure_calibration
from benchmarks.children import ChildFailed, run_in_child
from benchmarks.entries import ORIGINAL, Entry, entries_for
from benchmarks.standings import Standing
from benchmarks.subjects import FULL, PLANS, QUICK, NotThere, Plan, Scale, Subject, prepare_subject
from benchmarks.tables import (
    MIB,
    Comparison,
    calibration_lines,
    conditions,
    entry_table,
    fidelity_words,
    summary,
)
from benchmarks.tasks import Task

OUT = Path(__file__).parent / "out"
CALIBRATION = "calibration"
ROUNDS, QUICK_ROUNDS = 11, 3
# A session of the largest model takes a second to load; what is timed of a round is a quarter of that.
SECONDS_A_TURN = 2.0
BUSY_LOAD = 0.5


@dataclass(frozen=True)
class Run:
    """What is to be measured, and how thoroughly."""

    plans: list[Plan]
    with_calibration: bool
    mnist: Path | None
    quick: bool
    threads: int

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def rounds(self) -> int:
        return QUICK_ROUNDS if self.quick else ROUNDS


def say(line: str = "") -> None:
    print(line, flush=True)


def compare(plan: Plan, run: Run) -> Comparison | None:
    """Everything of one model; None where there is no such model here."""
    say(f"\n{plan.title}")
    try:
        subject = prepare_subject(plan, OUT, run.scale, run.mnist, lambda line: say(f"  {line}"))
        original = measure_original(subject, run)
    except (NotThere, ChildFailed) as error:
        say(f"  left out: {error}")
        return None
    standings = []
    for entry in entries_for(plan.kind, plan.fuse):
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
    task = Task(str(subject.model), str(subject.calibration), standing.path, run.threads)
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


def measure_costs(run: Run) -> list[Cost]:
    say("\nCost of calibration")
    costs = []
    for plan in (plan for plan in PLANS if plan.name in calibration_cost.MODELS):
        try:
            subject = prepare_subject(plan, OUT, run.scale, None, lambda line: say(f"  {line}"))
            folder = subject.folder / "cost"
            costs.append(
                measure_calibration(
                    plan.title, subject.model, run.threads, run.quick, folder, lambda line: say(f"  {line}")
                )
            )
        except (NotThere, ChildFailed) as error:
            say(f"  left out: {error}")
    return costs


def _judged_on(subject: Subject, run: Run) -> dict[str, object]:
    labels = str(subject.labels) if subject.plan.is_trained else None
    return {"held_out": str(subject.held_out), "labels": labels, "threads": run.threads}


def report(run: Run, comparisons: list[Comparison], costs: list[Cost]) -> str:
    """Everything as markdown, in the order of RESULTS.md."""
    lines = ["## Beside its peers", "", *conditions(run.threads, run.scale, run.rounds), ""]
    if run.quick:
        lines += ["A quick run: its numbers are worth little.", ""]
    if comparisons:
        lines += [*summary(comparisons), ""]
    if costs:
        lines += [*calibration_lines(costs), ""]
    for comparison in comparisons:
        lines += [*entry_table(comparison), ""]
    return "\n".join(lines)


def keep(run: Run, comparisons: list[Comparison], costs: list[Cost]) -> str:
    """Write what there is so far: the tables, which are returned, and every raw number."""
    markdown = report(run, comparisons, costs)
    (OUT / "peers.md").write_text(markdown)
    numbers = {
        "conditions": conditions(run.threads, run.scale, run.rounds),
        "comparisons": [asdict(comparison) for comparison in comparisons],
        "calibration": [asdict(cost) for cost in costs],
    }
    (OUT / "peers.json").write_text(json.dumps(numbers, indent=1))
    return markdown


def parse() -> Run:
    names = [plan.name for plan in PLANS]
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="MODEL", help=f"by default all: {', '.join([*names, CALIBRATION])}")
    parser.add_argument("--mnist", type=Path, help="the folder of MNIST's test set: two gzipped IDX files, t10k-*")
    parser.add_argument("--quick", action="store_true", help="few samples and rounds")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    unknown = set(asked.parts) - {*names, CALIBRATION}
    if unknown:
        parser.error(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join([*names, CALIBRATION])}")
    plans = [plan for plan in PLANS if not asked.parts or plan.name in asked.parts]
    mnist = asked.mnist.resolve() if asked.mnist else None
    return Run(plans, not asked.parts or CALIBRATION in asked.parts, mnist, asked.quick, asked.threads)


def main() -> None:
    run = parse()
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        say(f"This machine is busy (load {load:.1f}): nothing measured now is worth keeping.")
    for line in conditions(run.threads, run.scale, run.rounds):
        say(line)
    OUT.mkdir(exist_ok=True)
    comparisons: list[Comparison] = []
    for plan in run.plans:
        comparison = compare(plan, run)
        if comparison is not None:
            comparisons.append(comparison)
            keep(run, comparisons, [])
    costs = measure_costs(run) if run.with_calibration else []
    say(f"\n{keep(run, comparisons, costs)}")


if __name__ == "__main__":
    main()
