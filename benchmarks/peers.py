"""Lathe's passes beside the tools that do the same, on the same models, data and machine, in one run.

    python -m benchmarks.peers                          everything
    python -m benchmarks.peers resnet50 calibration     some of it, by name
    python -m benchmarks.peers --mnist FOLDER           with the networks trained on digits (MNIST's test set, IDX)
    python -m benchmarks.peers --quick                  few samples and rounds: whether everything works

Every optimizer and every measurement has a process of its own; latencies are taken by turns. Models are built once, in
`benchmarks/out`. What is not installed is left out, and said. At the end: tables for benchmarks/RESULTS.md, which
`benchmarks/out/peers.md` holds as well, and `peers.json` with every raw number.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import calibration_cost
from benchmarks.asking import answers, parser_of
from benchmarks.calibration_cost import Cost, measure_calibration
from benchmarks.children import ChildFailed
from benchmarks.comparing import Run, compare, say, warn_if_busy
from benchmarks.entries import entries_for
from benchmarks.subjects import PLANS, NotThere, Plan, prepare_subject
from benchmarks.tables import Comparison, calibration_lines, conditions, entry_table, summary

OUT = Path(__file__).parent / "out"
CALIBRATION = "calibration"


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    plans: list[Plan]
    with_calibration: bool
    run: Run


def measure_costs(run: Run) -> list[Cost]:
    say("\nCost of calibration")
    costs = []
    for plan in (plan for plan in PLANS if plan.name in calibration_cost.MODELS):
        try:
            subject = prepare_subject(plan, OUT, run.scale, None, lambda line: say(f"  {line}"))
            folder, timed = subject.folder / "cost", calibration_cost.MODELS[plan.name]
            costs.append(
                measure_calibration(
                    plan.title, subject.model, timed, run.threads, run.quick, folder, lambda line: say(f"  {line}")
                )
            )
        except (NotThere, ChildFailed) as error:
            say(f"  left out: {error}")
    return costs


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


def parse() -> Asked:
    names = [*(plan.name for plan in PLANS), CALIBRATION]
    parser = parser_of("benchmarks.peers", __doc__, "MODEL", names)
    parser.add_argument("--mnist", type=Path, help="the folder of MNIST's test set: two gzipped IDX files, t10k-*")
    asked = answers(parser, "model", names)
    plans = [plan for plan in PLANS if not asked.parts or plan.name in asked.parts]
    mnist = asked.mnist.resolve() if asked.mnist else None
    run = Run(OUT, mnist, asked.quick, asked.threads)
    return Asked(plans, not asked.parts or CALIBRATION in asked.parts, run)


def main() -> None:
    asked = parse()
    run = asked.run
    warn_if_busy()
    for line in conditions(run.threads, run.scale, run.rounds):
        say(line)
    OUT.mkdir(exist_ok=True)
    comparisons: list[Comparison] = []
    for plan in asked.plans:
        comparison = compare(plan, entries_for(plan.kind, plan.fuse), run)
        if comparison is not None:
            comparisons.append(comparison)
            keep(run, comparisons, [])
    costs = measure_costs(run) if asked.with_calibration else []
    say(f"\n{keep(run, comparisons, costs)}")


if __name__ == "__main__":
    main()
