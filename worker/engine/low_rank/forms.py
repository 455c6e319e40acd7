"""Forms: the ways in which a weight may be written as factors, and what each costs.

`matrix`: K -> r -> N, of MatMul and Gemm. Of convolutions `channels`: k x k from C to r, then 1 x 1 (X. Zhang et al.,
arXiv:1505.06798); `spatial`: k x 1, then 1 x k (M. Jaderberg et al., arXiv:1405.3866); `tucker`: 1 x 1, k x k, 1 x 1
(Y.-D. Kim et al., arXiv:1511.06530).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from worker.engine.low_rank.places import Place
from worker.engine.nodes import integers

Form = Literal["matrix", "channels", "spatial", "tucker"]
# Factors with more than this share of the original's weights and multiplications are not worth a second kernel.
WORTHWHILE = 0.7
# Forms whose error is not known without trying are tried at so many ranks.
RANKS_TRIED = 5
# Of the channels that a convolution reads: as many mixtures of them are tried.
MIXED_SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)


@dataclass(frozen=True)
class Shape:
    """`ranks` are the widths between the factors, in their order; `products` the multiplications that one place of the
    output takes.
    """

    form: Form
    ranks: tuple[int, ...]
    parameters: int
    products: int

    def in_words(self) -> str:
        """`tucker 64, 96`."""
        return f"{self.form} {', '.join(str(rank) for rank in self.ranks)}"


def shapes_of(place: Place, step: int) -> list[Shape]:
    """Every shape that is worth while, ranks multiples of `step`; of those with one rank all, from the least on."""
    if not place.is_conv:
        return list(_rising(place, "matrix", step))
    found = list(_rising(place, "channels", step))
    height, width = place.shape[2:]
    if height * width > 1:
        found += _mixtures(place, step)
    if height > 1 and width > 1:
        found += _thinned(list(_rising(place, "spatial", step)))
    return found


def fits(place: Place, form: Form, ranks: tuple[int, ...]) -> bool:
    """Whether a node can be written in this form, at ranks that are no larger than what they stand between."""
    if not place.is_conv:
        return form == "matrix" and ranks[0] <= min(place.shape)
    outputs, inputs, height, width = place.shape
    widest = {
        "channels": (min(outputs, place.product.terms),),
        "spatial": (min(outputs * width, inputs * height),),
        "tucker": (inputs, min(outputs, ranks[0] * height * width)),
    }
    return form in widest and all(rank <= most for rank, most in zip(ranks, widest[form], strict=True))


def shape_of(place: Place, form: Form, ranks: tuple[int, ...]) -> Shape:
    """What a form costs at these ranks."""
    if form == "matrix":
        cost = ranks[0] * (place.product.terms + place.product.channel_count)
        return Shape(form, ranks, cost, cost)
    outputs, inputs, height, width = place.shape
    rows, columns = integers(place.product.node, "strides", (1, 1))
    if form == "channels":
        cost = ranks[0] * (inputs * height * width + outputs)
        return Shape(form, ranks, cost, cost)
    if form == "spatial":
        first, second = ranks[0] * inputs * height, ranks[0] * outputs * width
        # The first sees every column, of which the second leaves some out.
        return Shape(form, ranks, first + second, first * columns + second)
    first, core, last = ranks[0] * inputs, ranks[0] * ranks[1] * height * width, ranks[1] * outputs
    return Shape(form, ranks, first + core + last, first * rows * columns + core + last)


def _rising(place: Place, form: Form, step: int) -> Iterator[Shape]:
    """Those with one rank, as long as they are worth while."""
    for number in itertools.count(1):
        shape = shape_of(place, form, (number * step,))
        if not _pays(place, shape):
            return
        yield shape


def _mixtures(place: Place, step: int) -> Iterator[Shape]:
    """Of a convolution between mixtures of its channels: a few numbers of those before, and for each a few behind."""
    outputs, inputs = place.shape[:2]
    for first in dict.fromkeys(max(1, round(share * inputs / step)) * step for share in MIXED_SHARES):
        pairs = ((first, second) for second in range(step, outputs, step))
        shapes = [shape_of(place, "tucker", pair) for pair in pairs if first < inputs and fits(place, "tucker", pair)]
        yield from _thinned([shape for shape in shapes if _pays(place, shape)])


def _pays(place: Place, shape: Shape) -> bool:
    return max(shape.parameters, shape.products) < WORTHWHILE * place.parameters


def _thinned(shapes: list[Shape]) -> list[Shape]:
    """At most `RANKS_TRIED` of them, each about the same share larger than the one before."""
    if len(shapes) <= RANKS_TRIED:
        return shapes
    ratio = len(shapes) ** (1 / (RANKS_TRIED - 1))
    numbers = {round(ratio**power) - 1 for power in range(RANKS_TRIED)}
    return [shapes[min(number, len(shapes) - 1)] for number in sorted(numbers)]
