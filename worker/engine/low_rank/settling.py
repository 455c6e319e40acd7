"""From options to the file that is kept: the floor is held first, then time decides."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.engine.fidelity import Floor
from worker.engine.low_rank.choosing import Bid
from worker.engine.low_rank.factoring import Option
from worker.engine.low_rank.offers import Costs, bids_of, measure_felt
from worker.engine.low_rank.searching import EVERYTHING, Trial, Workbench, search
from worker.engine.low_rank.timing import MEASURING_SECONDS, ROUNDS, TURNS_SECONDS, factor_times
from worker.engine.timing import profiled, times_as_fast
from worker.engine.turns import is_faster

NOTHING_PAID = "No choice of ranks keeps {floor:g} dB at the outputs, and what the contract asks for, with a gain."
SHORT = "The search for ranks ended early: the job's time ran short."
NO_TIME = "No time was left to time files by turns: nothing is factored, as nothing is known to be faster."


@dataclass(frozen=True)
class Settled:
    """`trial` is kept, None where nothing pays. `ratios`: how many times as fast each file that was timed is, by round;
    `times_ms`: of the kernels of the factors, by node.
    """

    trial: Trial | None
    notes: list[str] = field(default_factory=list)
    ratios: list[list[float]] = field(default_factory=list)
    felt: Mapping[str, float] = field(default_factory=dict)
    times_ms: Mapping[str, float] = field(default_factory=dict)


def settle(options: Mapping[str, list[Option]], costs: Costs, floor: Floor, bench: Workbench, by_rule: bool) -> Settled:
    """`by_rule`: options are what a rule picked, and all of them are wanted that the floor and time allow.

    Raises:
        ModelFails: a file does not run.

    """
    reserve = 0.0 if costs.times_ms is None else MEASURING_SECONDS
    felt: Mapping[str, float] = {}
    trial = _everything(options, costs, floor, bench) if by_rule else None
    budget = EVERYTHING if by_rule else 10 ** (-floor.sqnr_db / 10)
    if trial is None:
        felt = measure_felt(bench.plan, options, bench.answers.samples, bench.context)
        trial = search(_bids(options, felt, costs, bench), floor, bench, budget, reserve)
    short = [SHORT] if bench.context.lacks(reserve) else []
    if trial is None:
        return Settled(None, [*short, NOTHING_PAID.format(floor=floor.sqnr_db)], felt=felt)
    if costs.times_ms is None:
        return Settled(trial, short, felt=felt)
    if bench.context.lacks(MEASURING_SECONDS):
        return Settled(None, [NO_TIME], felt=felt)
    times = factor_times(trial.model, trial.chosen, profiled(trial.model, bench.context))
    candidates = [(trial, times)]
    slower = costs.learn(trial.chosen, times, bench.plan.factorings)
    if slower:
        bids = _bids(options, felt, costs, bench)
        second = search(bids, floor, bench, EVERYTHING if by_rule else budget, TURNS_SECONDS)
        if second is not None and second.chosen != trial.chosen:
            shown = factor_times(second.model, second.chosen, profiled(second.model, bench.context))
            candidates.append((second, shown))
    files = [bench.plan.model, *(one.model for one, _ in candidates)]
    measured = times_as_fast(files, bench.context, ROUNDS, TURNS_SECONDS)
    return _fastest(candidates, measured[1:], felt)


def _everything(options: Mapping[str, list[Option]], costs: Costs, floor: Floor, bench: Workbench) -> Trial | None:
    """What a rule picked, all of it; None where that loses too much."""
    trial = bench.build({name: offered[0].shape for name, offered in options.items()})
    if trial.fidelity.holds(floor):
        return trial
    trial.remove()
    return None


def _bids(
    options: Mapping[str, list[Option]], felt: Mapping[str, float], costs: Costs, bench: Workbench
) -> dict[str, Bid]:
    return bids_of(bench.plan.factorings, options, felt, costs)


def _fastest(
    candidates: list[tuple[Trial, dict[str, float]]], measured: list[list[float]], felt: Mapping[str, float]
) -> Settled:
    medians = [statistics.median(ratios) for ratios in measured]
    best = max(range(len(candidates)), key=lambda number: medians[number])
    trial, times = candidates[best]
    speed = f"{medians[best]:.2f} times as fast with {len(trial.chosen)} nodes factored"
    if is_faster(measured[best]):
        return Settled(trial, [f"Measured here, by turns, the file is {speed}."], measured, felt, times)
    note = f"Measured here, by turns, the file was {speed}: that is no gain beyond noise, and nothing is factored."
    return Settled(None, [note], measured, felt, times)
