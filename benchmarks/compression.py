"""What the passes that prune, factorize, train and quantize with training are worth, on networks trained on digits.

    python -m benchmarks.compression --mnist FOLDER                   everything (MNIST's test set, IDX)
    python -m benchmarks.compression --mnist FOLDER half low-rank-vit some of it, by name
    python -m benchmarks.compression --mnist FOLDER --quick           few samples and rounds: whether everything works

The first 8,000 digits train, the last 2,000 judge. Torch-Pruning prunes the torch module that the file was exported
from, and what it leaves is trained on by the same fine-tuning. Files of one experiment are timed by turns, in calls of
as many digits as take 5 ms and more in float. Tables for benchmarks/RESULTS.md: `benchmarks/out/compression.md`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.asking import answers, parser_of
from benchmarks.children import ChildFailed
from benchmarks.comparing import Run, compare, say, warn_if_busy
from benchmarks.experiments import EXPERIMENTS, Experiment, build_students
from benchmarks.subjects import NotThere
from benchmarks.tables import Comparison, conditions, entry_table

OUT = Path(__file__).parent / "out"


def carry_out(experiment: Experiment, run: Run) -> Comparison | None:
    """None where it could not be."""
    say(f"\n{experiment.title}: {experiment.aim}")
    try:
        entries = [*experiment.entries, *build_students(experiment, run)]
    except (NotThere, ChildFailed) as error:
        say(f"  left out: {error}")
        return None
    return compare(experiment.plan, entries, run)


def report(run: Run, results: Sequence[tuple[Experiment, Comparison]]) -> str:
    """Everything as markdown, in the order of RESULTS.md."""
    lines = ["## Compression that trains", "", *conditions(run.threads, run.scale, run.rounds), ""]
    if run.quick:
        lines += ["A quick run: its numbers are worth little.", ""]
    for experiment, comparison in results:
        table = entry_table(replace(comparison, plan=replace(comparison.plan, title=experiment.title)))
        lines += [table[0], "", f"Aim: {experiment.aim}. Calls of {experiment.plan.batch} digits.", *table[1:], ""]
    return "\n".join(lines)


def keep(run: Run, results: Sequence[tuple[Experiment, Comparison]]) -> str:
    markdown = report(run, results)
    (OUT / "compression.md").write_text(markdown)
    numbers = [asdict(comparison) | {"experiment": experiment.name} for experiment, comparison in results]
    (OUT / "compression.json").write_text(json.dumps(numbers, indent=1))
    return markdown


def main() -> None:
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = parser_of("benchmarks.compression", __doc__, "EXPERIMENT", names)
    parser.add_argument("--mnist", type=Path, required=True, help="the folder of MNIST's test set: two files, t10k-*")
    asked = answers(parser, "experiment", names)
    run = Run(OUT, asked.mnist.resolve(), asked.quick, asked.threads)
    warn_if_busy()
    OUT.mkdir(exist_ok=True)
    results: list[tuple[Experiment, Comparison]] = []
    for experiment in EXPERIMENTS:
        if not asked.parts or experiment.name in asked.parts:
            comparison = carry_out(experiment, run)
            results += [] if comparison is None else [(experiment, comparison)]
            keep(run, results)
    say(f"\n{keep(run, results)}")


if __name__ == "__main__":
    main()
