"""A plan: the places of a model, their factors fitted to data, and files in which some of them are factored."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.graph_file import read_graph, whole_proto
from worker.engine.low_rank.factoring import Factoring, factor
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.places import Place
from worker.engine.low_rank.writing import write_factors
from worker.engine.model_file import ModelFile, save_model
from worker.engine.moments.moments import Moments
from worker.engine.moments.reading import ROWS_A_TERM, input_moments
from worker.engine.nodes import integers
from worker.engine.pass_contract import PassContext
from worker.engine.random_input import RANDOM_SOURCE

# Of the calibration samples that share, and no more than so many, are held out to judge the factors by; of few, none.
HELD_OUT_SHARE, MOST_HELD_OUT, FEW_SAMPLES = 4, 256, 32
LEAST_SAMPLES = 64


@dataclass(frozen=True)
class Samples:
    """How many calibration samples factors are fitted to, the first ones, and which they are judged by."""

    fitted: int
    judged: np.ndarray

    @classmethod
    def of(cls, context: PassContext) -> "Samples":
        count = context.feeds.sample_count
        if count < FEW_SAMPLES:
            return cls(count, np.arange(count))
        held_out = min(MOST_HELD_OUT, count // HELD_OUT_SHARE)
        return cls(count - held_out, np.arange(count - held_out, count))


@dataclass(frozen=True)
class Plan:
    """`model` is the user's own, its nodes named; `factorings` by node, in the order of the graph."""

    model: ModelFile
    factorings: dict[str, Factoring]

    def write(
        self, chosen: Mapping[str, Shape], folder: Path, last: Mapping[str, np.ndarray] | None = None
    ) -> ModelFile:
        """The model with these nodes factored; `last` holds last factors that were fitted anew, by node."""
        graph = read_graph(self.model)
        made = {}
        for name, shape in chosen.items():
            factors = self.factorings[name].factors(shape)
            made[name] = (shape.form, (*factors[:-1], last[name]) if last and name in last else factors)
        write_factors(graph, made)
        return save_model(whole_proto(graph), folder)


def read_inputs(
    model: ModelFile, places: list[Place], context: PassContext, samples: int
) -> Iterator[tuple[Place, Moments | None]]:
    """Of each place the moments of what it is fed; none where the data is made up, and says nothing of inputs.

    Raises:
        ModelFails: a call fails.

    """
    if context.feeds.source == RANDOM_SOURCE:
        yield from ((place, None) for place in places)
        return
    found = input_moments(model, [place.product for place in places], context, samples, with_products=True)
    yield from ((place, moments) for place, (_, moments) in zip(places, found, strict=True))


def fit(reading: Iterable[tuple[Place, Moments | None]], shapes: Mapping[str, list[Shape]]) -> dict[str, Factoring]:
    """Every place that has shapes, with all of them; none that NaN or infinity reaches."""
    return {
        place.name: factor(place, shapes[place.name], moments)
        for place, moments in reading
        if shapes.get(place.name) and (moments is None or moments.finite)
    }


def samples_needed(model: ModelFile, places: list[Place], context: PassContext, most: int) -> int:
    """How many samples hold twice as many rows as the place that needs most has terms; `most` at most.

    Raises:
        ModelFails: the call fails.

    """
    names = {place.product.source: FLOAT for place in places}
    first = next(exposed_calls(model, names, context, np.arange(1), "first"))
    needed = LEAST_SAMPLES
    for place in places:
        fed = first[place.product.source]
        rows, columns = integers(place.product.node, "strides", (1, 1))
        count = fed.size / max(1, fed.shape[1] * rows * columns if fed.ndim > 2 and place.is_conv else fed.shape[-1])
        needed = max(needed, int(np.ceil(ROWS_A_TERM * place.product.terms / max(1.0, count))))
    return min(most, needed)
