"""What a teacher says to a student: which of its outputs and inner tensors, and through which projections."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
import torch

from app.recipes.training import TeachingOptions
from worker.engine.feeds import Feeds
from worker.engine.model_file import ModelFile
from worker.engine.pass_contract import PassContext, TrainingData
from worker.engine.sessions import open_session, run_session, session_options
from worker.engine.trainable.exposing import expose
from worker.engine.trainable.importing import plain_graph
from worker.engine.training.batches import Batches
from worker.engine.training.features import Inner, Pair, candidates, convolved, fit_projection, match_features
from worker.engine.training.losses import AnswersDiffer
from worker.engine.training.objective import Feature, Soft
from worker.engine.training.readings import Reading, squashed_by
from worker.engine.training.student import Student, as_rows, feeds_for
from worker.engine.training.teacher import Teacher

# Samples that the size of a teacher's answers is told by; and a mean square that is rounding in float32, and no size.
POWER_SAMPLES, LEAST_POWER = 64, 1e-30


@dataclass(frozen=True)
class Taught:
    """A teacher ready to answer, and what of it is learned."""

    teacher: Teacher
    soft: list[Soft]
    features: list[Feature]
    notes: list[str]


def teach(
    model: ModelFile,
    student: Student,
    readings: Mapping[str, Reading],
    samples: np.ndarray,
    options: TeachingOptions,
    data: TrainingData,
    context: PassContext,
) -> Taught:
    """`samples` are those that are trained on: projections are fitted on a step's worth of them. The teacher is asked
    about the student's samples alone.

    Raises:
        AnswersDiffer: teacher and student have no output in common.
        NoSuchFeature: a feature that is asked for is not there.
        DataMismatch: an input of the teacher has no array.
        BudgetExhausted: time is over while the teacher is asked.

    """
    feeds, graph, notes = feeds_for(model, data), plain_graph(model), []
    soft = match_outputs(graph, readings) if options.alpha else []
    pairs: list[Pair] = []
    if options.beta:
        pairs = match_features(_own(student), _look(model, graph, feeds, student.samples, context), options.features)
        if not pairs:
            notes.append("Teacher and student have no inner tensors of one name or place: no features were learned.")
    names = [one.teacher for one in soft] + [pair.teacher for pair in pairs]
    teacher = Teacher(model, feeds, names, context, context.scratch / "teacher")
    if names:
        kept = options.epochs > 1 and teacher.keep_answers(student.samples, options.batch_size, context)
        notes.append(
            f"The teacher was asked {'once, before training' if kept else 'in every epoch'}: {len(soft)} outputs, "
            f"{len(pairs)} features."
        )
    features = _features(pairs, student, teacher, samples[: options.batch_size]) if pairs else []
    if features or any(one.as_numbers for one in soft):
        powers = _powers(teacher, samples, 1 if feeds.whole else options.batch_size, context)
        soft = [replace(one, power=powers[one.teacher]) for one in soft]
        features = [replace(one, power=powers[one.pair.teacher]) for one in features]
    return Taught(teacher, soft, features, notes)


def match_outputs(teacher: ir.Model, readings: Mapping[str, Reading]) -> list[Soft]:
    """Outputs of one name; by their place where there are as many and no name is shared.

    Raises:
        AnswersDiffer: none fits.

    """
    theirs = [value.name or "" for value in teacher.graph.outputs]
    names = {name: name for name in readings if name in theirs}
    if not names and len(theirs) == len(readings):
        names = dict(zip(readings, theirs, strict=True))
    if not names:
        raise AnswersDiffer(
            f"The teacher's outputs are {', '.join(theirs)}; those of the student that hold floats, a row a sample, "
            f"are {', '.join(readings) or 'none'}: no name is shared, and their numbers differ.",
            "Give outputs that mean the same the same name.",
        )
    found = []
    for name, other in names.items():
        squashed = squashed_by(teacher, other)
        alike = squashed is not None and readings[name].probabilities
        found.append(Soft(readings[name], other, squashed == "Softmax" or alike))
    return found


def _powers(teacher: Teacher, samples: np.ndarray, batch: int, context: PassContext) -> dict[str, float]:
    """By name the mean square of what the teacher says of samples spread over these; 1 where it says nothing but 0.

    Raises:
        BudgetExhausted: time is over meanwhile.

    """
    chosen = samples[:: -(-len(samples) // POWER_SAMPLES)]
    squares, counts = dict.fromkeys(teacher.names, 0.0), dict.fromkeys(teacher.names, 0)
    for start in range(0, len(chosen), batch):
        context.check_time("what the teacher says of the training data")
        for name, rows in teacher.answers(chosen[start : start + batch]).items():
            known = rows[np.isfinite(rows)].astype(np.float64)
            squares[name], counts[name] = squares[name] + float(np.square(known).sum()), counts[name] + known.size
    return {
        name: squares[name] / counts[name] if squares[name] > LEAST_POWER * counts[name] else 1.0 for name in squares
    }


def _features(pairs: Sequence[Pair], student: Student, teacher: Teacher, samples: np.ndarray) -> list[Feature]:
    batches = Batches(student.feeds, samples, len(samples), 0, student.module.device, (), teacher)
    batch = next(batches.calls(samples))
    with torch.no_grad():
        made = student.module.eval()(batch.feed, [pair.student for pair in pairs])
    found = []
    for pair in pairs:
        projection = None
        if pair.axis is not None:
            projection = fit_projection(batch.rows(made[pair.student]), batch.answers[pair.teacher], pair.axis)
        found.append(Feature(pair, projection))
    return found


def _own(student: Student) -> Inner:
    """Inner values of the student on a few samples."""
    graph, whole = plain_graph(student.file), bool(student.feeds.whole)
    return Inner(_floats(student.look(candidates(graph))), convolved(graph), whole)


def _look(model: ModelFile, graph: ir.Model, feeds: Feeds, samples: np.ndarray, context: PassContext) -> Inner:
    """Inner values of the teacher on a few of these samples."""
    names = candidates(graph)
    if not names:
        return Inner({})
    exposed = expose(model, names, context.scratch / "features")
    session = open_session(exposed.path, context.threads, session_options(context.threads))
    call = next(feeds.calls(2, samples))
    made = dict(zip(names, run_session(session, call.feed, names), strict=True))
    fed = len(next(iter(call.feed.values()))) if call.feed else 0
    return Inner(_floats(as_rows(made, feeds, fed, len(call.samples))), convolved(graph), bool(feeds.whole))


def _floats(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: rows for name, rows in values.items() if rows.dtype.kind == "f" and rows.ndim > 1}
