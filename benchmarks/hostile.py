"""Everything hostile at once: known files, bombs, thousands of mutations, and ways out of the sandbox.

    python -m benchmarks.hostile --mutations 5000 --seed 20

Files go to the runner's own code in its real sandbox. One got through if it was called a fault of ours, came to no end,
was taken for something else than it is known to be, or changed a file outside. Prints a table and exits with 1 where
anything did.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from app.jobs.states import JobKind
from tests.worker.escapes import ONLY_BY_NAMESPACES, WITHOUT_NAMESPACES, attempt, namespaces_can_be_refused
from tests.worker.runner.hostile.archives import ARCHIVES
from tests.worker.runner.hostile.case import OCTETS, Hostile
from tests.worker.runner.hostile.confined import RESULT, Outcome, Upload, canary, inspect_all, optimize_all
from tests.worker.runner.hostile.datasets import DATASETS
from tests.worker.runner.hostile.good import GOOD
from tests.worker.runner.hostile.models import MODELS
from tests.worker.runner.hostile.mutations import mutated
from tests.worker.runner.hostile.programs import BOMBS
from tests.worker.runner.hostile.swaps import SWAPS, inspect_swapped
from worker.sandbox import confinement

BATCH = 100
CODES_SHOWN = 6


@dataclass
class Row:
    """A line of the table."""

    kind: str
    tried: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    results: int = 0
    through: list[str] = field(default_factory=list)

    def add(self, name: str, outcome: Outcome, *, wanted: str | None = None) -> None:
        self.tried += 1
        if not outcome.clear or wanted not in {None, outcome.code}:
            self.through.append(f"{name}: {outcome.code} {outcome.detail[:200]}")
        elif outcome.code == RESULT:
            self.results += 1
        else:
            self.refused[outcome.code] += 1

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count}" for code, count in self.refused.most_common(CODES_SHOWN))
        more = len(self.refused) - CODES_SHOWN
        codes += f" and {more} other codes" if more > 0 else ""
        barred = sum(self.refused.values())
        return f"| {self.kind} | {self.tried:,} | {barred:,} | {self.results:,} | {len(self.through)} | {codes} |"


def known(title: str, kind: JobKind, cases: Sequence[Hostile]) -> Row:
    """Files that are hostile on purpose: each has its own code."""
    row = Row(title)
    uploads = [Upload(kind, case.media_type, case.write) for case in cases]
    for case, outcome in zip(cases, _inspected(row, uploads), strict=True):
        row.add(case.name, outcome, wanted=case.code)
    return row


def swapped() -> Row:
    """Data files that become something else between the check and the use."""
    row = Row("external data swapped behind the check")
    for name in SWAPS:
        with _folder(row) as folder:
            outcome = inspect_swapped(name, folder)
            row.add(name, outcome if outcome.code != RESULT else replace(outcome, clear=False))
    return row


def bombs() -> Row:
    """Models of a kilobyte that ask for terabytes or never end: inspected, and optimized as if they were good."""
    row = Row("bombs: a kilobyte that asks for a terabyte")
    models = {name: build().SerializeToString() for name, build in BOMBS.items()}
    uploads = [Upload(JobKind.INSPECT_MODEL, OCTETS, _writer(content)) for content in models.values()]
    for name, outcome in zip(models, _inspected(row, uploads), strict=True):
        row.add(f"{name}, inspected", outcome)
    with _folder(row) as folder:
        for name, outcome in zip(models, optimize_all(list(models.values()), folder), strict=True):
            row.add(f"{name}, optimized", outcome)
    return row


def mutations(count: int, seed: int) -> Iterator[Row]:
    """Good files spoilt, a row a kind of mutation."""
    rows: dict[str, Row] = {}
    generator = np.random.default_rng(seed)
    contents = {name: good.build() for name, good in GOOD.items()}
    names = list(GOOD)
    trouble = Row("files outside changed by mutations")
    for begun in range(0, count, BATCH):
        good = GOOD[names[begun // BATCH % len(names)]]
        content = contents[names[begun // BATCH % len(names)]]
        others = [contents[name] for name, one in GOOD.items() if one.kind is good.kind]
        drawn = [mutated(content, others, generator) for _ in range(min(BATCH, count - begun))]
        uploads = [Upload(good.kind, good.media_type, _writer(file)) for _, file in drawn]
        for (kind, _), outcome in zip(drawn, _inspected(trouble, uploads), strict=True):
            row = rows.setdefault(kind, Row(f"mutations: {kind}"))
            row.add(names[begun // BATCH % len(names)], outcome)
    yield from rows.values()
    if trouble.through:
        yield trouble


def escapes(title: str, prefix: tuple[str, ...] = (), unbounded: Iterable[str] = ()) -> Row:
    """Ways out, tried from within; `unbounded` names those that only namespaces bar."""
    row = Row(title)
    with tempfile.TemporaryDirectory() as folder:
        attempted = attempt(Path(folder), prefix)
    for name, outcome in attempted.outcomes.items():
        if name in unbounded:
            continue
        led_out = outcome == "led out"
        row.add(name, Outcome(RESULT if led_out else outcome.split(":")[0], not led_out))
    row.through += attempted.damage
    return row


def _writer(file: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(file)


def _inspected(row: Row, uploads: list[Upload]) -> list[Outcome]:
    with _folder(row) as folder:
        return inspect_all(uploads, folder)


@contextmanager
def _folder(row: Row) -> Iterator[Path]:
    """A work folder beside a canary; `row` is told of a canary that is not as it was."""
    with tempfile.TemporaryDirectory(prefix="lathe-hostile-") as home:
        work = Path(home) / "work"
        work.mkdir()
        with canary(Path(home)) as untouched:
            yield work
            if not untouched():
                row.through.append("a file outside was changed")


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=20)
    arguments = parser.parse_args()
    started = time.monotonic()
    held = confinement()
    print(f"Layers that hold here: {', '.join(name for name, holds in held.items() if holds)}.")
    print(f"Layers that do not: {', '.join(name for name, holds in held.items() if not holds) or 'none'}.\n")
    rows = [
        known("models", JobKind.INSPECT_MODEL, MODELS),
        known("tars of models", JobKind.INSPECT_MODEL, ARCHIVES),
        known("datasets", JobKind.INSPECT_DATASET, DATASETS),
        swapped(),
        bombs(),
        *mutations(arguments.mutations, arguments.seed),
        escapes("ways out, with every layer"),
    ]
    if namespaces_can_be_refused():
        title = "ways out, where namespaces are refused"
        rows.append(escapes(title, WITHOUT_NAMESPACES, ONLY_BY_NAMESPACES))
    print("| kind | tried | refused | a correct result | got through | refused by code |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(map(str, rows)))
    through = [what for row in rows for what in row.through]
    print(
        f"\n{sum(row.tried for row in rows):,} tried, {len(through)} got through; {time.monotonic() - started:.0f} s."
    )
    print("\n".join(through))
    return int(bool(through))


if __name__ == "__main__":
    sys.exit(main())
