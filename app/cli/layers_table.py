"""What a report knows of each node: what ran for it, how long, and what it lost."""

from collections.abc import Callable, Sequence

from app.cli.output import note, stdout, words
from app.cli.tables import Column, print_table
from app.jobs.report import Layer, Report

# Columns that no node has anything to say in are left out.
COLUMNS: tuple[tuple[Column, Callable[[Layer], str]], ...] = (
    (Column("node", flexible=True), lambda one: one.name),
    (Column("operator"), lambda one: one.operator),
    (Column("weight", flexible=True), lambda one: one.weight or ""),
    (Column("planned"), lambda one: one.planned or ""),
    (Column("ran", flexible=True), lambda one: one.executed or ""),
    (Column("ms", right=True), lambda one: _number(one.executed_ms, 3)),
    (Column("in float", right=True), lambda one: _number(one.float_ms, 3)),
    (Column("in int8", right=True), lambda one: _number(one.int8_ms, 3)),
    (Column("SQNR dB", right=True), lambda one: _number(one.sqnr_db, 1)),
    (Column("alone dB", right=True), lambda one: _number(one.sensitivity_db, 1)),
    (Column("weight dB", right=True), lambda one: _number(one.weight_sqnr_db, 1)),
    (Column("zeros", right=True), lambda one: "" if one.sparsity is None else f"{one.sparsity:.1%}"),
    (Column("ranks"), lambda one: "" if one.factors is None else " x ".join(map(str, one.factors.ranks))),
    (Column("left as it was because", flexible=True), lambda one: one.reason or ""),
)


def print_layers(report: Report) -> None:
    """A table for each pass that has something to say of nodes, those first that lose most alone.

    Where none has, that is said on stderr.
    """
    told = [step for step in report.steps if step.layers]
    for step in told:
        stdout().print(words(f"{step.pass_}:", style="bold"))
        _print(sorted(step.layers, key=_most_sensitive_first))
    if not told:
        ran = ", ".join(f"`{step.pass_}`" for step in report.steps)
        why = f"no account of single nodes comes from {ran}" if ran else "no pass ran for what was delivered"
        note(f"There is nothing to tell node by node: {why}. Without --layers the report says what was done.")


def _print(layers: Sequence[Layer]) -> None:
    lines = [[cell(layer) for _, cell in COLUMNS] for layer in layers]
    told = [number for number in range(len(COLUMNS)) if any(line[number] for line in lines)]
    print_table([COLUMNS[number][0] for number in told], [[line[number] for number in told] for line in lines])


def _most_sensitive_first(layer: Layer) -> float:
    return float("inf") if layer.sensitivity_db is None else layer.sensitivity_db


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
