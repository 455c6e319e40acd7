"""`"recipe": "auto"` beside the best file that any peer makes of the same model under the same contract, in one run.

    python -m benchmarks.auto --mnist FOLDER                  everything (MNIST's test set, IDX)
    python -m benchmarks.auto --mnist FOLDER mobilenetv2      some of it, by name
    python -m benchmarks.auto --mnist FOLDER --seeds 5        the search again under other seeds
    python -m benchmarks.auto --mnist FOLDER --quick          few samples and rounds: whether everything works

The search is given what a user has: samples to calibrate on, others to judge by (labelled digits, or random input for
the large models without weights), on trained networks also the digits that trained them. It is judged, like every
peer, on samples that it never saw: 1,000 digits, or 32 random samples. Contract: at most one point of accuracy lost;
10 dB. Tables for benchmarks/RESULTS.md: `benchmarks/out/auto.md`.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import digit_images
from benchmarks.asking import answers, parser_of
from benchmarks.comparing import Run, compare, say, warn_if_busy
from benchmarks.entries import Entry, entries_for
from benchmarks.standings import LEAST_SQNR_DB, MOST_ACCURACY_LOST, Standing, best, best_peer
from benchmarks.subjects import LABELS, PLANS, Plan, random_arrays
from benchmarks.tables import NONE, Comparison, conditions, entry_table, fidelity_words
from benchmarks.tasks import write_arrays

OUT = Path(__file__).parent / "out"
DIGITS_KEPT = 1000
# A third of them chooses; what accepts is enough for the confidence of the contract.
RANDOM_SAMPLES, RANDOM_SEED = 96, 3
AIMS = {"search": 0.8, "search-training": 0.5}
CONTRACTS: dict[bool, dict[str, Any]] = {
    True: {"metric": {"name": "top1", "labels": LABELS}, "contract": {"max_drop": MOST_ACCURACY_LOST}},
    False: {"metric": {"name": "sqnr_db"}, "contract": {"floor": LEAST_SQNR_DB}},
}


def entries(plan: Plan, run: Run, seeds: int, budget: int) -> list[Entry]:
    """Every peer, then the search: without training, and with it where the network was trained."""
    found = [entry for entry in entries_for(plan.kind, plan.fuse) if entry.side == "peer"]
    evaluation = str(write_evaluation(plan, run))
    for train in (False, True) if plan.is_trained else (False,):
        name = "search-training" if train else "search"
        title = "Lathe auto, with training" if train else "Lathe auto"
        for seed in range(seeds):
            options = {
                "evaluation": evaluation,
                "body": {**CONTRACTS[plan.is_trained], "seed": seed},
                "train": train,
                "budget": budget * (2 if train else 1),
            }
            of_seed = f", seed {seed}" if seeds > 1 else ""
            found.append(Entry(f"{name}-{seed}", f"{title}{of_seed}", "lathe", "benchmarks.searching:search", options))
    return found


def write_evaluation(plan: Plan, run: Run) -> Path:
    """What the search may judge by, and nobody is judged on at the end."""
    folder = run.out / plan.name / "search-data"
    if not plan.is_trained or run.mnist is None:
        write_arrays(folder, random_arrays(plan, RANDOM_SAMPLES, RANDOM_SEED))
        return folder
    images, labels = digit_images.read_digits(run.mnist)
    given = slice(digit_images.TRAINING + DIGITS_KEPT, None)
    write_arrays(folder, {"image": images[given], LABELS: labels[given]})
    return folder


def report(run: Run, results: Sequence[Comparison]) -> str:
    """Everything as markdown, in the order of RESULTS.md."""
    lines = ["## The search", "", *conditions(run.threads, run.scale, run.rounds), ""]
    lines += ["A quick run: its numbers are worth little.", ""] if run.quick else []
    lines += [
        "| model | best peer | speed-up | fidelity | Lathe auto | speed-up | fidelity | kept the contract "
        "| its time over the best peer's, or the original's if less |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [line for one in results for line in _lines(one)]
    lines += ["", *_means(results), ""]
    for comparison in results:
        lines += [*entry_table(comparison), ""]
        for standing in comparison.standings:
            lines += [f"- {standing.entry.title}: {note}" for note in standing.notes if standing.entry.side == "lathe"]
        lines.append("")
    return "\n".join(lines)


def _searches(comparison: Comparison, name: str) -> list[Standing]:
    found = [one for one in comparison.standings if one.entry.name.rpartition("-")[0] == name]
    return [one for one in found if one.failure is None and one.medians_ms]


def _usual(comparison: Comparison, name: str) -> Standing | None:
    """Of searches under several seeds the one in the middle by speed, faithful or not."""
    searches = sorted(_searches(comparison, name), key=lambda one: one.speed(comparison.original))
    return searches[len(searches) // 2] if searches else None


def _lines(comparison: Comparison) -> list[str]:
    original, peer = comparison.original, best_peer(comparison.original, comparison.standings)
    lines = []
    for name in AIMS:
        searches, usual = _searches(comparison, name), _usual(comparison, name)
        if usual is None:
            continue
        kept = sum(one.is_faithful(original) for one in searches)
        over = [_worth(one, comparison) for one in searches]
        spread = f" ({min(over):.2f} - {max(over):.2f})" if len(over) > 1 else ""
        cells = [
            comparison.plan.title,
            peer.entry.title if peer else "none that is faithful",
            f"{peer.speed(original):.2f}" if peer else NONE,
            fidelity_words(peer, original) if peer else NONE,
            usual.entry.title,
            f"{usual.speed(original):.2f}",
            fidelity_words(usual, original),
            f"{kept} of {len(searches)}",
            f"{_worth(usual, comparison):.2f}{spread}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _to_beat(comparison: Comparison) -> Standing:
    """What is deployed without a search: the best peer's file, or the original where no peer gains anything."""
    peers = [one for one in comparison.standings if one.entry.side == "peer"]
    return best(comparison.original, [comparison.original, *peers]) or comparison.original


def _worth(search: Standing, comparison: Comparison) -> float:
    """Its time over that of the best file without it, the median over rounds; of one that broke the contract, which
    nobody would deploy, the original's.
    """
    deployed = search if search.is_faithful(comparison.original) else comparison.original
    rounds = zip(deployed.medians_ms, _to_beat(comparison).medians_ms, strict=True)
    return statistics.median(mine / other for mine, other in rounds)


def _means(results: Sequence[Comparison]) -> list[str]:
    """Of every search's time over that of the best file without it; of several seeds the one in the middle counts."""
    lines = []
    for name, aim in AIMS.items():
        searches = [(one, comparison) for comparison in results for one in _searches(comparison, name)]
        ratios = [_worth(usual, one) for one in results for usual in [_usual(one, name)] if usual is not None]
        if ratios:
            mean = float(np.exp(np.mean(np.log(ratios))))
            what = "with training" if name.endswith("training") else "without training"
            kept = sum(one.is_faithful(comparison.original) for one, comparison in searches)
            worst = max(_worth(*one) for one in searches)
            lines.append(
                f"Geometric mean {what}, {len(ratios)} models: {mean:.2f} (aim {aim}); the worst of {len(searches)} "
                f"searches {worst:.2f}; {kept} of them kept the contract."
            )
    return lines


def keep(run: Run, results: Sequence[Comparison]) -> str:
    markdown = report(run, results)
    (OUT / "auto.md").write_text(markdown)
    (OUT / "auto.json").write_text(json.dumps([asdict(one) for one in results], indent=1))
    return markdown


def main() -> None:
    names = [plan.name for plan in PLANS]
    parser = parser_of("benchmarks.auto", __doc__, "MODEL", names)
    parser.add_argument("--mnist", type=Path, help="the folder of MNIST's test set: two gzipped IDX files, t10k-*")
    parser.add_argument("--seeds", type=int, default=1, help="searches of every model, each under a seed of its own")
    parser.add_argument("--budget", type=int, default=180, help="seconds of a search; with training twice as many")
    asked = answers(parser, "model", names)
    mnist = asked.mnist.resolve() if asked.mnist else None
    run = Run(OUT, mnist, asked.quick, asked.threads, digits_kept=DIGITS_KEPT)
    warn_if_busy()
    OUT.mkdir(exist_ok=True)
    results: list[Comparison] = []
    for plan in PLANS:
        if (asked.parts and plan.name not in asked.parts) or (plan.is_trained and mnist is None):
            continue
        comparison = compare(plan, entries(plan, run, asked.seeds, asked.budget), run)
        results += [] if comparison is None else [comparison]
        keep(run, results)
    say(f"\n{keep(run, results)}")


if __name__ == "__main__":
    main()
