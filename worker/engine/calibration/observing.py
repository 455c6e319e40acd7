"""Watching the tensors of a model while data runs through it."""

import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from worker.engine.calibration.ahead import ahead
from worker.engine.calibration.as_executed import expose
from worker.engine.calibration.histogram import Histogram
from worker.engine.calibration.sizes import Sizes
from worker.engine.calibration.summaries import Summarizer, Summary, UnusualValues
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import as_taken_by, open_session, run_session

FLOAT = TensorProto.FLOAT
FLOATS = (FLOAT, TensorProto.FLOAT16)
# The same however many samples there are: a run that stopped early is repeated with as many as it read.
SAMPLED_ELEMENTS = 4096
# Two calls at a time go through sooner than one after the other: much of a call keeps one thread busy and no more. More
# at a time would hold more activations.
MOST_AT_ONCE = 2
LARGEST_SHARE_OF_TIME = 1 / 3
UNKNOWN_ELEMENTS = 1 << 20
# Of so many calls together samples are counted in half the time.
CALLS_A_HISTOGRAM = 8


@dataclass
class Observation:
    """What was seen of one tensor. Where NaN or infinity passed, `finite` is false and the histogram lacks them."""

    histogram: Histogram = field(default_factory=Histogram)
    finite: bool = True

    def add(self, summaries: Sequence[Summary]) -> None:
        """Those of consecutive calls."""
        counted = [one for one in summaries if one.is_finite and one.low <= one.high]
        self.finite &= all(one.is_finite for one in summaries)
        if counted:
            sample = np.concatenate([one.sample for one in counted])
            self.histogram.add(sample, min(one.low for one in counted), max(one.high for one in counted))


def activations(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by name of every float tensor that enters or leaves a node of the main graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    known = {value.name: value for value in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
    found: dict[str, int] = {}
    for node in model.graph.node:
        for name in [*node.input, *node.output]:
            value = known.get(name)
            if value is not None and name not in constants and value.type.tensor_type.elem_type in FLOATS:
                found[name] = value.type.tensor_type.elem_type
    return found


def observe(
    model: ModelFile,
    tensors: dict[str, int],
    context: PassContext,
    samples: int,
    with_histograms: bool,
    progress: Callable[[float], None],
) -> tuple[dict[str, Observation], int]:
    """Each of `tensors` (element type by name) over the first `samples`, one a call; and how many were read.

    Without histograms only extremes are kept. Stops early when a share of the context's time is over, as what comes
    after needs the rest; after one call at least.

    Raises:
        ModelFails: a call fails.

    """
    chosen = np.arange(min(samples, context.feeds.sample_count))
    if not tensors:
        return {}, len(chosen)
    at_once = min(MOST_AT_ONCE, context.threads)
    reserve = (1 - LARGEST_SHARE_OF_TIME) * context.seconds_left()
    sampled = SAMPLED_ELEMENTS if with_histograms else 0

    def observed(thorough: bool) -> tuple[dict[str, Observation], int]:
        # Whoever asks for a call computes as well, beside the pool that all calls share.
        threads = context.threads - at_once + 1
        summarizer = Summarizer(model, tensors, context, sampled, threads, thorough)
        return _observed(summarizer, list(tensors), context, chosen, at_once, reserve, progress)

    try:
        return observed(thorough=False)
    except UnusualValues:
        return observed(thorough=True)


def _observed(
    summarizer: Summarizer,
    tensors: Sequence[str],
    context: PassContext,
    chosen: np.ndarray,
    at_once: int,
    reserve: float,
    progress: Callable[[float], None],
) -> tuple[dict[str, Observation], int]:
    seen = {name: Observation() for name in tensors}
    read, found = 0, list[dict[str, Summary]]()
    calls = context.feeds.calls(1, chosen)
    with closing(ahead(lambda call: (call, summarizer.summaries(call.feed)), calls, at_once)) as summarized:
        for call, summaries in summarized:
            found.append(summaries)
            read += len(call.samples)
            over = read == len(chosen) or context.lacks(reserve)
            if over or len(found) == CALLS_A_HISTOGRAM:
                for name, one in seen.items():
                    one.add([summaries[name] for summaries in found])
                found.clear()
            progress(read / len(chosen))
            if over:
                break
    return seen, read


def element_counts(model: ModelFile, names: Iterable[str], context: PassContext) -> dict[str, int]:
    """How many numbers each of these tensors holds in the first call; a guess where shapes do not say."""
    structure, tensors = model.structure(), dict.fromkeys(names, FLOAT)
    known = Sizes(structure, tensors).of(next(context.feeds.calls(1)).feed)
    return {name: known.get(name, UNKNOWN_ELEMENTS) for name in tensors}


def exposed_calls(
    model: ModelFile, tensors: dict[str, int], context: PassContext, samples: np.ndarray, folder: str
) -> Generator[dict[str, np.ndarray], None, None]:
    """The named tensors of every call, by name; but for these the model runs as its user would run it.

    A copy of the model lies in `folder` until the last call, or until it is closed.
    """
    place = context.scratch / folder
    try:
        exposed = model.load()
        expose(exposed, tensors)
        file = save_model(exposed, place)
        del exposed
        inputs = {value.name for value in model.structure().graph.input}
        names = [name for name in tensors if name not in inputs]
        session = open_session(file.path, context.threads)
        for call in context.feeds.calls(1, samples):
            feed = as_taken_by(session, call.feed)
            made = dict(zip(names, run_session(session, feed, names), strict=True)) if names else {}
            yield {name: made[name] if name in made else call.feed[name] for name in tensors}
    finally:
        # Weights that do not fit into the model's own file would be appended to those of the next copy.
        shutil.rmtree(place, ignore_errors=True)
