"""What `lathe optimize` is told of a search and of its contract, as the API takes it."""

import math
from typing import Annotated, Any

import typer

from app.cli.exits import ExitCode, fail

OBJECTIVES = ("latency", "size", "memory")

AutoOption = Annotated[bool, typer.Option("--auto", help="Lathe finds the passes, in place of --pass and --recipe.")]
TrainOption = Annotated[
    bool | None,
    typer.Option(
        "--train/--no-train",
        help="With --auto: whether candidates may be trained. By default where there is --training data for it, and "
        "what trains is allowed; --no-train where no worker can, which refuses the job otherwise.",
    ),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="PASS",
        help="With --auto: a pass that may be tried; repeat it. By default all that a search ever tries.",
    ),
]
MaxTrialsOption = Annotated[
    int | None, typer.Option(min=1, max=1_000, help="With --auto: how many candidates are built at most.")
]
ReuseOption = Annotated[
    bool | None,
    typer.Option(
        "--reuse/--no-reuse", help="With --auto: whether it goes on from what earlier searches finished. It does."
    ),
]
MaxDropOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Contract: largest loss of the metric; 0.01 is a point.")
]
FloorOption = Annotated[
    float | None,
    typer.Option(
        help="Contract, in place of --max-drop: least agreement or cosine, at most 1; with --metric sqnr_db least dB."
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        help="How sure the contract must hold beyond these samples, above 0.5 and at most 0.999; with --auto 0.95."
    ),
]
ObjectiveOption = Annotated[
    str | None,
    typer.Option(help="What to make small: latency, size or memory, or weights of them, as latency=1,size=0.5."),
]


def search_of(
    *,
    auto: bool,
    train: bool | None,
    allow: list[str] | None,
    max_trials: int | None,
    reuse: bool | None,
) -> dict[str, Any] | None:
    """The `search` of a request; None where nothing is said of it.

    Raises typer.Exit where it is told of a search that there will not be.
    """
    given = {"training": train, "passes": allow or None, "max_trials": max_trials, "reuse": reuse}
    stated = {name: value for name, value in given.items() if value is not None}
    if stated and not auto:
        fail("--train, --allow, --max-trials and --reuse say what --auto may do: give it as well", ExitCode.USAGE)
    return stated or None


def contract_of(max_drop: float | None, floor: float | None, confidence: float | None) -> dict[str, Any] | None:
    """The `contract` of a request; None where there is to be none. Raises typer.Exit where that is no contract."""
    if max_drop is not None and floor is not None:
        fail("give either --max-drop or --floor", ExitCode.USAGE)
    given = {"max_drop": max_drop, "floor": floor, "confidence": confidence}
    stated = {name: value for name, value in given.items() if value is not None}
    for name, value in stated.items():
        if not math.isfinite(value):
            fail(f"--{name.replace('_', '-')} must be a finite number, not {value}", ExitCode.USAGE)
    if list(stated) == ["confidence"]:
        fail("--confidence says how sure a contract must be: give --max-drop or --floor as well", ExitCode.USAGE)
    return stated or None


def objective_of(text: str | None) -> str | dict[str, float] | None:
    """`size`, or `latency=1,size=0.5`. Raises typer.Exit where it is neither."""
    if text is None or text in OBJECTIVES:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if name not in OBJECTIVES or name in weights or not 0 <= weight < float("inf"):
            fail(
                f"--objective is {', '.join(OBJECTIVES)}, or weights of them as latency=1,size=0.5; not `{text}`",
                ExitCode.USAGE,
            )
        weights[name] = weight
    return weights
