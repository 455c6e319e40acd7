"""Factors of a weight in every shape that is considered, fitted to what it is fed, and what each loses."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.engine.low_rank.decomposition import Spectrum, best_behind, input_directions, second_moments, spectrum
from worker.engine.low_rank.forms import Shape
from worker.engine.low_rank.places import Place
from worker.engine.moments.moments import Moments

Factors = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Option:
    """`lost` is the share of the power of the node's output that goes, 0 to 1, on the inputs that were read."""

    shape: Shape
    lost: float


@dataclass
class Factoring:
    """One place with its options. `fitted` holds the factors of those that the spectrum alone does not give."""

    place: Place
    spectrum: Spectrum
    options: list[Option] = field(default_factory=list)
    fitted: dict[Shape, Factors] = field(default_factory=dict)

    def factors(self, shape: Shape) -> Factors:
        """float32, first to last, as the nodes hold them: matrices `(K, r)` and `(r, N)`, the latter `(N, r)` of a Gemm
        with `transB`; of a convolution filters.
        """
        if shape in self.fitted:
            return self.fitted[shape]
        # In one piece: a product then has the same last bits whatever else was considered.
        basis = np.ascontiguousarray(self.spectrum.vectors[:, : shape.ranks[0]])
        first = (basis.T @ self.place.rows()).astype(np.float32)
        last = basis.astype(np.float32)
        if shape.form == "matrix":
            return first.T.copy(), last if self.place.product.channel_axis == 0 else last.T.copy()
        return first.reshape(len(first), *self.place.shape[1:]), last[:, :, None, None]


def factor(place: Place, shapes: Sequence[Shape], moments: Moments | None) -> Factoring:
    """Every one of `shapes` fitted to the rows that `moments` are of; to any input alike where there are none."""
    weight, power = place.rows(), second_moments(moments, place.product.terms)
    found = spectrum(weight, power)
    total = float(found.energies.sum())
    most = max((shape.ranks[0] for shape in shapes if shape.form in ("matrix", "channels")), default=0)
    made = Factoring(place, found.cut(most))
    wide: dict[int, _Wide] = {}
    for shape in shapes:
        if shape.form in ("matrix", "channels"):
            lost = found.lost(shape.ranks[0])
        elif shape.form == "spatial":
            made.fitted[shape], kept = _spatial(place, weight, power, shape.ranks[0])
            lost = _share_lost(kept, total)
        else:
            mixed, rank = shape.ranks
            wide[mixed] = wide[mixed] if mixed in wide else _mixed(place, weight, power, mixed)
            made.fitted[shape], kept = _tucker(place, wide[mixed], rank)
            lost = _share_lost(kept, total)
        made.options.append(Option(shape, lost))
    return made


def _share_lost(kept: float, total: float) -> float:
    return min(1.0, max(0.0, 1 - kept / total)) if total > 0 else 0.0


def _spatial(place: Place, weight: np.ndarray, power: np.ndarray, rank: int) -> tuple[Factors, float]:
    """Columns `(r, C, h, 1)`, then rows `(N, r, 1, w)` fitted behind them; and the power that is kept."""
    outputs, inputs, height, width = place.shape
    by_column = power.reshape(inputs * height, width, inputs * height, width)
    columns = np.einsum("ajbj->ab", by_column) / width
    unfolded = weight.reshape(outputs, inputs * height, width).transpose(1, 0, 2).reshape(inputs * height, -1)
    first = input_directions(unfolded, columns, rank)
    behind, inner = _behind(weight, by_column, first)
    kept = float(np.sum((behind @ inner) * behind))
    made = (first.reshape(rank, inputs, height, 1), behind.reshape(outputs, rank, 1, width))
    return tuple(one.astype(np.float32) for one in made), kept


def _tucker(place: Place, wide: "_Wide", rank: int) -> tuple[Factors, float]:
    """`(r, C, 1, 1)`, a core `(s, r, h, w)` and `(N, s, 1, 1)`, s the `rank`; and the power that is kept."""
    basis = wide.spectrum.vectors[:, :rank]
    core = (basis.T @ wide.behind).reshape(rank, len(wide.mixtures), *place.shape[2:])
    made = (wide.mixtures[:, :, None, None], core, basis[:, :, None, None])
    return tuple(one.astype(np.float32) for one in made), float(wide.spectrum.energies[:rank].sum())


@dataclass(frozen=True)
class _Wide:
    """A convolution `behind` `(N, r h w)` fitted to r `mixtures` `(r, C)` of the channels, and its spectrum there."""

    mixtures: np.ndarray
    behind: np.ndarray
    spectrum: Spectrum


def _mixed(place: Place, weight: np.ndarray, power: np.ndarray, rank: int) -> _Wide:
    outputs, inputs, height, width = place.shape
    window = height * width
    by_place = power.reshape(inputs, window, inputs, window)
    channels = np.einsum("aibi->ab", by_place) / window
    unfolded = weight.reshape(outputs, inputs, window).transpose(1, 0, 2).reshape(inputs, -1)
    mixtures = input_directions(unfolded, channels, rank)
    behind, inner = _behind(weight, by_place, mixtures)
    return _Wide(mixtures, behind, spectrum(behind, inner))


def _behind(weight: np.ndarray, power: np.ndarray, mixtures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best factor behind `mixtures` `(r, A)` of the first of two input axes, moments `power` `(A, B, A, B)`.

    And the second moments of what it is fed, `(r B, r B)`.
    """
    rank, inputs = mixtures.shape
    others = power.shape[1]
    reached = np.tensordot(mixtures, power, (1, 0)).reshape(rank * others, -1)
    inner = np.tensordot(reached.reshape(-1, inputs, others), mixtures, (1, 1))
    inner = inner.transpose(0, 2, 1).reshape(rank * others, rank * others)
    return best_behind(weight, reached, inner), inner
