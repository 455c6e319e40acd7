"""Outcomes of the deployment check, from what its children answered."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.jobs.report import CheckName, CheckOutcome, DeploymentCheck, EdgeInput, ThreadLatency
from worker.engine.deployment.requests import AloneAnswer, EdgeAnswer, EdgesAnswer, Repeated
from worker.engine.deployment.saturation_risk import Risk

ALLOWED_MODULES = frozenset({"onnxruntime", "numpy"})
MEBIBYTE = 1 << 20
# ONNX Runtime's arena takes in the first calls what it needs, and then keeps it. What still moves are pages of malloc's
# and of Python's: 0.01 MiB over 500 calls of small models. What leaks a row of 1,000 floats a call takes 2 MiB by then.
FLAT_BYTES = MEBIBYTE
# The least that has a second half worth the name.
LEAST_MEMORY_RUNS = 20
# Ranges are chosen for ordinary input, and one number everywhere is none: a small CNN whose int8 form keeps 45 dB of
# images keeps 20 of zeros, and 4 of their lowest value. At 3 dB half of an answer's power is error.
EDGE_LOSS_DB, ENOUGH_DB = 10.0, 3.0
# Numbers of classes and texts are the same or not, and of a single row the least noise turns what is nearly a tie: so
# they are judged over all edges of a check together.
EDGE_LOSS_SHARE = 0.5
NAMED = 3


def skipped(name: CheckName, words: str) -> DeploymentCheck:
    """A check that could not be made, and why."""
    return DeploymentCheck(name=name, outcome="skipped", words=words)


def judge_loading(answer: AloneAnswer) -> DeploymentCheck:
    """Whether a fresh process loads the file and runs it, with nothing but ONNX Runtime and numpy in it."""
    figures = {} if answer.load_ms is None else {"load_ms": answer.load_ms}
    if answer.error is not None and answer.alone is None:
        return _check("loads", "failed", f"A fresh process could not use it: {answer.error}", figures)
    foreign = sorted(set(answer.modules) - ALLOWED_MODULES)
    if foreign:
        return _check("loads", "failed", f"The process needed more than ONNX Runtime: {', '.join(foreign)}.", figures)
    versions = ", ".join(f"{name} {version}" for name, version in answer.versions.items())
    words = f"Loaded in {answer.load_ms or 0:.1f} ms by a fresh process with nothing but {versions}, and ran."
    return _check("loads", "passed", words, figures)


def judge_answers(answer: AloneAnswer, original: AloneAnswer | None, draws: list[str]) -> DeploymentCheck:
    """Whether the same input got the same bits each time.

    `original` is the same of the untouched model, needed where answers differ; `draws` are its operators that draw
    random numbers.
    """
    found = [one for one in (answer.alone, answer.together) if one is not None]
    figures = {_figure(one): float(one.runs) for one in found}
    figures |= {f"different_{_figure(one)}": float(one.different_runs) for one in found}
    asked = " and ".join(_runs(one) for one in found)
    broken = next((one for one in found if one.error), None)
    error = broken.error if broken else answer.error
    if error is not None:
        return _check("same_answers", "failed", f"A call failed when it was repeated: {error}", figures)
    if sum(one.runs for one in found) == 0:
        return skipped("same_answers", "No time was left to repeat a call.")
    different = [one for one in found if one.different_runs]
    if not different:
        return _check("same_answers", "passed", f"The same bits in {asked}.", figures)
    outputs = sorted({name for one in different for name in one.different_outputs})
    words = f"{', '.join(outputs)} differed in {' and '.join(_differences(one) for one in different)}."
    if original is not None and _differs(original):
        drawn = f" It draws random numbers: {', '.join(draws)}." if draws else ""
        return _check("same_answers", "skipped", f"{words} So do the original's own answers.{drawn}", figures)
    told = " The original's answers do not." if original is not None else ""
    return _check("same_answers", "failed", words + told, figures)


def judge_memory(points: list[tuple[int, int]]) -> DeploymentCheck:
    """Whether resident memory stays where it is over the second half of the runs; `points` are (run, bytes)."""
    runs = points[-1][0] if points else 0
    if runs < LEAST_MEMORY_RUNS:
        return skipped("memory", f"{runs} calls are too few to see memory grow; {LEAST_MEMORY_RUNS} are the least.")
    half = next(bytes_ for run, bytes_ in points if run >= runs / 2)
    growth = points[-1][1] - half
    figures = {
        "runs": float(runs),
        "before_bytes": float(points[0][1]),
        "half_bytes": float(half),
        "after_bytes": float(points[-1][1]),
        "growth_bytes": float(growth),
        "bound_bytes": float(FLAT_BYTES),
    }
    words = (
        f"{points[0][1] / MEBIBYTE:.1f} MiB before {runs:,} calls, {half / MEBIBYTE:.1f} half way, "
        f"{points[-1][1] / MEBIBYTE:.1f} after; {growth / MEBIBYTE:+.2f} over the second half, of "
        f"{FLAT_BYTES / MEBIBYTE:.0f} MiB allowed."
    )
    return _check("memory", "failed" if growth > FLAT_BYTES else "passed", words, figures)


def judge_edges(name: CheckName, answer: EdgesAnswer) -> tuple[DeploymentCheck, list[EdgeInput]]:
    """Whether the file answers as the original does at the edges; the first case is the ordinary one."""
    ordinary, *edges = answer.cases
    floors = _floors(ordinary, edges)
    inputs = [_edge(one, floors) for one in edges]
    failed = [one for one in inputs if one.outcome == "failed"]
    passed = [case for case, one in zip(edges, inputs, strict=True) if one.outcome == "passed"]
    judged = [one.sqnr_db for one in passed if one.sqnr_db is not None]
    figures = {"passed": float(len(passed)), "failed": float(len(failed)), "all": float(len(inputs))}
    figures |= {"least_sqnr_db": min(judged)} if judged else {}
    if failed:
        some = "; ".join(f"{one.name}: {one.words}" for one in failed[:NAMED])
        return _check(name, "failed", f"{len(failed)} of {len(inputs)} failed. {some}", figures), inputs
    left_out = [one for one in inputs if one.outcome == "skipped"]
    if not passed:
        reason = f" {left_out[0].words}" if left_out else " There is nothing that could be other than it is."
        return _check(name, "skipped", f"None was compared.{reason}", figures), inputs
    words = f"Compared with the original in {', '.join(one.name for one in passed)}: {_kept(passed)}."
    unjudged = {output for one in passed for output in one.outputs} - floors.judged - {*ordinary.not_finite}
    if unjudged:
        words += (
            f" How much of {', '.join(sorted(unjudged))} stays was not judged: on ordinary input little of it does, or "
            "it holds nothing there."
        )
    silent = [f"{output} in {one.name}" for one in (ordinary, *edges) for output in one.not_finite]
    words += f" Not finite anywhere in the original: {', '.join(silent)}." if silent else ""
    words += f" Skipped: {', '.join(one.name for one in left_out)}." if left_out else ""
    return _check(name, "passed", words, figures), inputs


def judge_threads(
    latencies: list[ThreadLatency], slower: list[int], slower_fails: bool, left_out: list[str]
) -> DeploymentCheck:
    """Whether the file is nowhere slower than the original, where being fast is what it is for.

    `slower` are the numbers of threads at which it is, beyond the noise; `left_out` says what was not timed.
    """
    if not latencies:
        return skipped("threads", " ".join(left_out) or "Nothing was timed.")
    figures = {}
    for one in latencies:
        figures[f"p50_at_{one.threads}_ms"] = one.optimized.p50_ms
        figures[f"p99_at_{one.threads}_ms"] = one.optimized.p99_ms
    parts = [
        f"{one.threads}: p50 {one.optimized.p50_ms:.3g} and p99 {one.optimized.p99_ms:.3g} ms, the original "
        f"{one.original.p50_ms:.3g} and {one.original.p99_ms:.3g} ({one.ratio.value:.2f} x)"
        for one in latencies
    ]
    words = f"With threads {'; '.join(parts)}."
    if slower:
        words += f" Slower than the original with {', '.join(map(str, slower))}."
    words = " ".join([words, *left_out])
    return _check("threads", "failed" if slower and slower_fails else "passed", words, figures)


def judge_saturation(risk: Risk, saturates: bool) -> DeploymentCheck:
    """Whether 8-bit products keep their sums where the model will run, and in words on a processor without VNNI."""
    if not risk.node_count:
        return _check("without_vnni", "passed", "No int8 kernels with this risk: nothing would saturate.", {})
    figures = {"int8_nodes": float(risk.node_count), "nodes_at_risk": float(len(risk.at_risk))}
    if not risk.at_risk:
        words = f"None of {risk.node_count} int8 products can saturate on a processor without VNNI."
        if risk.beyond_seen:
            words = (
                f"None of {risk.node_count} int8 products saturates on a processor without VNNI at the activations "
                f"seen here; {risk.beyond_seen} could at larger ones."
            )
        return _check("without_vnni", "passed", words, figures)
    worst = risk.at_risk[0]
    figures["worst_excess"] = worst.excess
    words = (
        f"{len(risk.at_risk)} of {risk.node_count} int8 products may saturate on a processor without VNNI, where two "
        f"products are summed in 16 bits. Worst is {worst.name} ({worst.operator}): up to {worst.excess:.2f} times "
        f"what fits, in {worst.pair_share:.1%} of its pairs of weights, at the largest activation seen "
        f"({worst.largest_code} of 255)."
    )
    if saturates:
        return _check("without_vnni", "failed", f"{words} It is to run on such a processor.", figures)
    words += " With VNNI nothing is lost. For other processors name them as `target.instruction_set`."
    return _check("without_vnni", "passed", words, figures)


def _check(name: CheckName, outcome: CheckOutcome, words: str, figures: dict[str, float]) -> DeploymentCheck:
    return DeploymentCheck(name=name, outcome=outcome, words=words, figures=figures)


def _figure(one: Repeated) -> str:
    return "runs" if one.callers == 1 else "concurrent_runs"


def _runs(one: Repeated) -> str:
    who = "from one thread" if one.callers == 1 else f"from {one.callers} threads at once"
    return f"{one.runs:,} runs {who}"


def _differences(one: Repeated) -> str:
    return f"{one.different_runs:,} of {_runs(one)}"


def _differs(answer: AloneAnswer) -> bool:
    return any(one is not None and one.different_runs > 0 for one in (answer.alone, answer.together))


@dataclass(frozen=True)
class _Floors:
    """What is asked of outputs at an edge, by name.

    Nothing of those of which little is kept on ordinary input, or which hold nothing there: files that were trained, or
    that draw random numbers, have their own answers where nobody said what is right.
    """

    sqnr_db: Mapping[str, float]
    """Of floats."""
    shares: Mapping[str, float]
    """Of others: the least share that is the same over all edges together."""
    changed: frozenset[str]
    """Those of the latter that keep less."""

    @property
    def judged(self) -> set[str]:
        return {*self.sqnr_db, *self.shares}


def _floors(ordinary: EdgeAnswer, edges: list[EdgeAnswer]) -> _Floors:
    ratios, shares, changed = {}, {}, set()
    for name, usual in ordinary.outputs.items():
        if usual.is_empty:
            continue
        exact = [one.outputs[name] for one in edges if name in one.outputs and one.outputs[name].sqnr_db is None]
        if usual.sqnr_db is not None and usual.sqnr_db >= EDGE_LOSS_DB:
            ratios[name] = min(ENOUGH_DB, usual.sqnr_db - EDGE_LOSS_DB)
        elif usual.sqnr_db is None and usual.agreement > EDGE_LOSS_SHARE and exact:
            shares[name] = usual.agreement - EDGE_LOSS_SHARE
            if sum(one.agreement for one in exact) / len(exact) < shares[name]:
                changed.add(name)
    return _Floors(ratios, shares, frozenset(changed))


def _edge(answer: EdgeAnswer, floors: _Floors) -> EdgeInput:
    measured = _measured(answer)
    outcome: CheckOutcome = "passed"
    words = f"{answer.words}{measured}."
    if answer.outcome == "failed":
        outcome, words = "failed", f"The original runs it and this file does not: {answer.words}"
    elif answer.outcome == "refused":
        outcome, words = "skipped", f"The original does not run it either: {answer.words}"
    elif answer.outcome == "no_time":
        outcome, words = "skipped", answer.words
    elif answer.reshaped:
        outcome, words = "failed", f"{answer.words}: another shape or type of {', '.join(answer.reshaped)}."
    elif answer.broken:
        outcome, words = "failed", f"{answer.words}: not finite where the original is: {', '.join(answer.broken)}."
    elif far := _far(answer, floors):
        outcome, words = "failed", f"{answer.words}: far from the original{measured}: {', '.join(far)}."
    elif not answer.outputs:
        what = "the original is not finite anywhere" if answer.not_finite else "no output is a tensor"
        outcome, words = "skipped", f"{answer.words}: there is nothing to compare, as {what}."
    return EdgeInput(
        name=answer.name,
        outcome=outcome,
        words=words,
        shapes=answer.shapes,
        agreement=answer.agreement,
        sqnr_db=answer.sqnr_db,
    )


def _measured(answer: EdgeAnswer) -> str:
    """` (31.2 dB, 100.0% agreement)`, or what of it there is."""
    found = [] if answer.sqnr_db is None else [f"{answer.sqnr_db:.1f} dB"]
    found += [] if answer.agreement is None else [f"{answer.agreement:.1%} agreement"]
    return f" ({', '.join(found)})" if found else ""


def _far(answer: EdgeAnswer, floors: _Floors) -> list[str]:
    """Outputs that keep less than is asked of them, with how much."""
    found = []
    for name, kept in answer.outputs.items():
        floor = floors.sqnr_db.get(name)
        if kept.sqnr_db is not None and floor is not None and kept.sqnr_db < floor:
            found.append(f"{name} keeps {kept.sqnr_db:.1f} dB, {floor:.1f} are the least")
        elif kept.sqnr_db is None and name in floors.changed and kept.agreement < floors.shares[name]:
            found.append(f"{kept.agreement:.1%} of {name} is the same, and over all such inputs too little")
    return found


def _kept(passed: list[EdgeAnswer]) -> str:
    """The least that is kept in any of them: of floats, and of what is the same or is not."""
    ratios = [one.sqnr_db for one in passed if one.sqnr_db is not None]
    shares = [kept.agreement for one in passed for kept in one.outputs.values() if kept.sqnr_db is None]
    found = [f"finite where it is, {min(ratios):.1f} dB or more"] if ratios else []
    found += [f"{min(shares):.1%} or more of whole numbers and text the same"] if shares else []
    return ", ".join(found)
