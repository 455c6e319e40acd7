"""Probe: inputs at the edge of what a model may be fed, on the original and on the file made of it."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worker.engine.deployment.requests import Case, EdgeAnswer, EdgeOutput, Edges, EdgesAnswer, Variant
from worker.engine.evaluation.child import serve_probe
from worker.engine.evaluation.metrics import agreement
from worker.engine.evaluation.pair import Pair
from worker.engine.faults import UserFault
from worker.engine.fidelity import LARGEST_DB
from worker.engine.sessions import Feed, as_taken_by, open_session, run_session


@dataclass
class Usual:
    """The ordinary input: what a call takes, of how many elements, and the mean square of every output."""

    seconds: float = 0.0
    elements: int = 1
    powers: dict[str, float] = field(default_factory=dict)


def measure(request: Edges) -> EdgesAnswer:
    """What became of each case in turn, noise in dB where it could be compared; those that time left out say so.

    Raises:
        ModelFails: a file does not load.

    """
    deadline = time.perf_counter() + request.seconds
    original = open_session(Path(request.original), request.threads, device=request.device)
    pair = Pair(original, open_session(Path(request.candidate), request.threads, device=request.device))
    usual = Usual()
    return EdgesAnswer(cases=[_case(pair, case, usual, deadline) for case in request.cases])


def _case(pair: Pair, case: Case, usual: Usual, deadline: float) -> EdgeAnswer:
    """The first variant that is not refused and for which there is time; else what became of the last one tried."""
    refused: EdgeAnswer | None = None
    for variant in case.variants:
        feed = next(variant.feed.open().calls(1)).feed
        elements = sum(array.size for array in feed.values())
        if time.perf_counter() + usual.seconds * elements / usual.elements > deadline:
            answer = EdgeAnswer(name=case.name, outcome="no_time", words=f"No time was left for {variant.words}.")
        else:
            answer = _compare(pair, case.name, variant, feed, usual)
        if answer.outcome in ("compared", "failed"):
            return answer
        refused = refused or answer
    return refused or EdgeAnswer(name=case.name, outcome="refused", words="There is nothing to feed.")


def _compare(pair: Pair, name: str, variant: Variant, feed: Feed, usual: Usual) -> EdgeAnswer:
    shapes = {key: list(array.shape) for key, array in feed.items()}
    started = time.perf_counter()
    try:
        exact = run_session(pair.original, feed)
    except UserFault as fault:
        return EdgeAnswer(name=name, outcome="refused", words=f"{variant.words}: {fault.detail}", shapes=shapes)
    try:
        made = run_session(pair.candidate, as_taken_by(pair.candidate, feed), pair.names())
    except UserFault as fault:
        return EdgeAnswer(name=name, outcome="failed", words=f"{variant.words}: {fault.detail}", shapes=shapes)
    outputs = dict(zip(pair.names(), zip(exact, made, strict=True), strict=True))
    if not usual.powers:
        usual.seconds = time.perf_counter() - started
        usual.elements = max(1, sum(array.size for array in feed.values()))
        usual.powers = {key: mean_square(left) for key, (left, _) in outputs.items() if _is_float(left)}
    answer = EdgeAnswer(name=name, outcome="compared", words=variant.words, shapes=shapes)
    _judge(answer, outputs, usual)
    return answer


def _judge(answer: EdgeAnswer, outputs: dict[str, tuple[Any, Any]], usual: Usual) -> None:
    for name, (left, right) in outputs.items():
        if not isinstance(left, np.ndarray) or not isinstance(right, np.ndarray):
            continue
        if left.shape != right.shape or left.dtype.kind != right.dtype.kind:
            answer.reshaped.append(name)
        elif not left.size:
            ratio = LARGEST_DB if _is_float(left) else None
            answer.outputs[name] = EdgeOutput(agreement=1.0, sqnr_db=ratio, is_empty=True)
        elif _is_float(left) and not np.isfinite(left).any():
            answer.not_finite.append(name)
        elif _is_float(left) and bool((np.isfinite(left) & ~np.isfinite(right)).any()):
            answer.broken.append(name)
        else:
            rows = (left.reshape(1), right.reshape(1)) if left.ndim == 0 else (left, right)
            ratio = ratio_db(left, right, usual.powers.get(name, 0.0)) if _is_float(left) else None
            answer.outputs[name] = EdgeOutput(agreement=float(agreement(*rows).mean()), sqnr_db=ratio)


def ratio_db(exact: np.ndarray, made: np.ndarray, usual_power: float) -> float:
    """Signal to noise, dB, over elements finite in both, of which there is one at least; the signal is at least as
    strong as on ordinary input.

    Zeros may make an original answer next to nothing: an error that nobody would notice on ordinary input is none then.
    """
    finite = np.isfinite(exact) & np.isfinite(made)
    left, right = exact[finite].astype(np.float64), made[finite].astype(np.float64)
    noise = mean_square(right - left)
    signal = max(mean_square(left), usual_power)
    if noise == 0 or signal == 0:
        return LARGEST_DB if noise == 0 else -LARGEST_DB
    return float(np.clip(10 * np.log10(signal / noise), -LARGEST_DB, LARGEST_DB))


def mean_square(values: np.ndarray) -> float:
    """Over the finite elements; 0 where there are none."""
    found = values[np.isfinite(values)].astype(np.float64)
    return float(np.square(found).mean()) if found.size else 0.0


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def main() -> None:
    serve_probe(Edges, measure)


if __name__ == "__main__":
    main()
