"""A search in words: what each candidate came to, and why the winner is the winner."""

from collections.abc import Sequence

from app.recipes.auto import ObjectiveWeights
from worker.engine.search.front import PLAIN, SAME
from worker.engine.search.proposals import Trial


def figures(trial: Trial, weights: ObjectiveWeights, samples: str = "choosing") -> str:
    """`2.31 times as fast (2.20 - 2.44), 3.9 times as small, a drop of 0.002`; of memory where it counts. `samples`
    says what those are for that the drop is of.
    """
    speed = f"{trial.speed:.3g} times as fast"
    if trial.latency is not None and trial.latency.low is not None and trial.latency.high is not None:
        speed += f" ({trial.latency.low:.3g} - {trial.latency.high:.3g})"
    drop = "a difference that is no number" if trial.drop is None else f"a drop of {_number(trial.drop)}"
    memory = f", {trial.ratios.memory:.3g} times as little memory" if weights.memory else ""
    return f"{speed}, {trial.ratios.size:.3g} times as small{memory}, {drop} on the samples for {samples}"


def verdict_on(
    trial: Trial,
    winner: Trial | None,
    allowed: float,
    weights: ObjectiveWeights,
    *,
    of_front: bool,
    again: bool,
    of_last_front: bool,
) -> str:
    """Why it won, or lost, in one sentence. `of_front`: nothing that was tried is better in all at once; `again`: it
    was measured once more, and `of_last_front`: nothing else that was is better then.
    """
    if trial.failure is not None:
        return trial.failure
    if of_last_front:
        front = f"nothing is better in {_respects(weights)} at once"
    elif of_front:
        front = f"nothing that was tried is better in {_respects(weights)} at once"
        if not again:
            front += ", and others, which gain more or lose less, were measured once more in its place"
    else:
        front = f"beaten{_better(trial, winner)}"
    return f"{_capital(figures(trial, weights))}: {_place(trial, winner, _number(allowed), front)}."


def fallen(last: Trial, weights: ObjectiveWeights, beaten_by: str | None) -> str:
    """What the last measurement says of one that is not on its front, in a sentence. `beaten_by`: what is as good."""
    other = f": {beaten_by} is as good or better in {_respects(weights)}" if beaten_by else ""
    return f"Measured once more it is {figures(last, weights, 'accepting')}{other}."


def lacking_samples(trial: Trial, weights: ObjectiveWeights, decided: str) -> str:
    """Of one that gains more than what is delivered; `decided` says how many would do."""
    return f"`{trial.name}` ({_counted(trial, weights)}) was not accepted for want of samples. {decided}"


def _respects(weights: ObjectiveWeights) -> str:
    return "speed, size, memory and quality" if weights.memory else "speed, size and quality"


def _place(trial: Trial, winner: Trial | None, allowed: str, front: str) -> str:
    """`front` says where it stands among those that hold."""
    if winner is not None and trial.name == winner.name:
        return "it gains most of those that were accepted"
    if not trial.holds:
        return f"beyond the {allowed} allowed"
    if not trial.likely:
        return (
            f"within the {allowed} allowed, and so near to it that the samples for accepting are not likely to show it"
        )
    return front


def why(winner: Trial | None, trials: Sequence[Trial], weights: ObjectiveWeights, allowed: float) -> list[str]:
    """The answer to: why this one?"""
    if winner is None:
        promising = [one for one in trials if one.measured and one.holds and one.ratios.gain(weights) > 0]
        contract = f"the contract (a drop of at most {_number(allowed)})"
        if promising:
            best = max(promising, key=lambda one: one.ratios.gain(weights))
            return [
                f"{len(promising)} of {len(trials)} candidates, `{best.name}` the best of them, keep {contract} and "
                "gain something on the samples for choosing. When they were measured once more, none that gained was "
                "accepted: the original is delivered."
            ]
        tried = f"of {len(trials)} that {'was' if len(trials) == 1 else 'were'} tried"
        return [
            f"No candidate keeps {contract} and gains by {_objective(weights)}, {tried}: the original is delivered."
        ]
    others = [one for one in trials if one.name != winner.name]
    words = [f"`{winner.name}` was chosen by {_objective(weights)}: {figures(winner, weights)}."]
    words += [f"What was done: {' '.join(winner.notes[:3])}"] if winner.notes else []
    words += _by_method(others, weights)
    gain = winner.ratios.gain(weights)
    broken = [one for one in others if one.measured and not one.holds and one.ratios.gain(weights) > gain]
    if broken:
        best = max(broken, key=lambda one: one.ratios.gain(weights))
        lost = "differs from the original by what is no number"
        if best.drop is not None:
            lost = f"loses {_number(best.drop)} of the metric where {_number(allowed)} is allowed"
        words.append(f"`{best.name}` would gain more ({_counted(best, weights)}), and {lost}.")
    return words


def _by_method(others: Sequence[Trial], weights: ObjectiveWeights) -> list[str]:
    """One sentence on the plain methods beside the winner: what most people would have tried first."""
    plain = [one for one in others if one.proposal.family in PLAIN]
    said = [
        f"{one.name} {_counted(one, weights)}{'' if one.holds else ', and beyond the contract'}"
        for one in plain
        if one.measured
    ]
    failed = [f"{one.name}: {(one.failure or '').rstrip('.')}" for one in plain if not one.measured]
    words = [f"Beside it: {'; '.join(said)}."] if said else []
    return words + ([f"Without a result: {'; '.join(failed)}."] if failed else [])


def _counted(trial: Trial, weights: ObjectiveWeights) -> str:
    """Its ratios to the original, those that the objective counts."""
    ratios = (
        (weights.latency, trial.speed, "as fast"),
        (weights.size, trial.ratios.size, "as small"),
        (weights.memory, trial.ratios.memory, "as little memory"),
    )
    return ", ".join(f"{ratio:.3g} times {what}" for weight, ratio, what in ratios if weight)


def _better(trial: Trial, winner: Trial | None) -> str:
    if winner is None:
        return ""
    mine, its = winner.ratios, trial.ratios
    # Memory that does not count was not measured, and is the same of both.
    speed, size, memory = mine.latency / its.latency, mine.size / its.size, mine.memory / its.memory
    parts = [f"{speed:.3g} times its speed"] if speed > SAME else []
    parts += [f"{1 / size:.3g} of its size"] if size > SAME else []
    parts += [f"{1 / memory:.3g} of its memory"] if memory > SAME else []
    return f"; `{winner.name}` has {' and '.join(parts)}" if parts else ""


def _objective(weights: ObjectiveWeights) -> str:
    counted = {name: weight for name, weight in weights.model_dump().items() if weight}
    if len(counted) == 1:
        return next(iter(counted))
    return " and ".join(f"{name} (weight {weight:g})" for name, weight in counted.items())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.3g}"
