"""Recurrent layers that are to lose some of what they read: what is left of it makes up for the rest.

With u what a layer reads in the original, of which u_k stays, the columns that stay become those with which W' u_k + b
comes closest to W u. All of it is known from second moments of u: what the smaller model will feed the layer is not,
before it runs in time steps of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.engine.model_file import ModelFile
from worker.engine.moments.fitting import Fit, fit_rows
from worker.engine.moments.moments import CrossMoments, Moments
from worker.engine.moments.products import RecurrentProduct
from worker.engine.moments.reading import input_moments
from worker.engine.nodes import constant_tensor, integer, is_operator, operand
from worker.engine.overwriting import overwrite
from worker.engine.pass_contract import PassContext
from worker.engine.structure.groups import Structure
from worker.engine.structure.recurrence import GATES, product_of

BIAS = 3
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Site:
    """The weight of some `directions`. `stays` `(K,)` bool: the columns that are left. `bias` can take a shift."""

    name: str
    product: RecurrentProduct
    directions: slice
    weight: np.ndarray
    stays: np.ndarray
    bias: ir.Value | None

    @property
    def reset_rows(self) -> np.ndarray:
        """`(C,)` bool: the candidate of a GRU that is fed what its reset gate leaves of u.

        Of one size throughout that would change no column, but what has to be added.
        """
        rows, node = np.arange(self.product.channel_count), self.product.node
        resets = self.product.fed_back and node.op_type == "GRU" and not integer(node, "linear_before_reset", 0)
        return (rows >= len(rows) * 2 // 3) & resets


def refitted(
    model: ModelFile, structure: Structure, gone: np.ndarray, context: PassContext, samples: int, folder: Path
) -> ModelFile | None:
    """The `model` as it was, but for the columns that stay once these sets of atoms are `gone`, in the empty `folder`.

    None where no recurrent layer reads what goes.

    Raises:
        ModelFails: a call fails.

    """
    sites = {site.product.name: site for site in _sites(structure, gone)}
    arrays: Arrays = {}
    products = [site.product for site in sites.values()]
    for product, moments in input_moments(model, products, context, samples, with_products=True):
        site = sites[product.name]
        rows = product.rows(site.weight)
        moved, reset = _cross(rows, moments, site.stays), site.reset_rows
        for chosen, shifts in ((~reset, site.bias is not None), (reset, False)):
            fit = fit_rows(rows[np.ix_(chosen, site.stays)], moved, np.flatnonzero(chosen), shifts=shifts)
            if fit is not None:
                _take(fit, chosen, site, structure, arrays)
    return overwrite(model, arrays, folder) if arrays else None


def _sites(structure: Structure, gone: np.ndarray) -> Iterator[_Site]:
    for slot in structure.wiring.consumers:
        if not is_operator(slot.node, *GATES):
            continue
        stays = ~np.isin(structure.wiring.atoms.roots(slot.atoms), gone)
        weight = _unshared(structure, slot.weight.name)
        if stays.all() or weight is None:
            continue
        bias = operand(slot.node, BIAS)
        bias = None if bias is None or _unshared(structure, bias.name) is None else bias
        product = product_of(slot, weight.shape)
        if product is None:
            continue
        if not product.fed_back:
            yield _Site(slot.weight.name, product, slice(None), weight, stays, bias)
            continue
        for number in range(len(weight)):
            own = slice(number, number + 1)
            product = product_of(slot, weight[own].shape, number)
            if product is not None:
                yield _Site(slot.weight.name, product, own, weight[own], stays, bias)


def _unshared(structure: Structure, name: str | None) -> np.ndarray | None:
    """A constant of float32 that nothing else reads."""
    value = structure.model.graph.initializers.get(name or "")
    tensor = None if value is None or len(value.uses()) != 1 else constant_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor.numpy()


def _cross(rows: np.ndarray, moments: Moments, stays: np.ndarray) -> CrossMoments:
    """Between what stays and all that the whole `rows` `(C, K)` make."""
    if moments.products is None or not moments.finite:
        return CrossMoments()
    inputs = Moments(
        moments.count, moments.total[:, stays], moments.squares[:, stays], moments.products[np.ix_(stays, stays)]
    )
    return CrossMoments(inputs, rows @ moments.products[:, stays], rows @ moments.total[0])


def _take(fit: Fit, chosen: np.ndarray, site: _Site, structure: Structure, arrays: Arrays) -> None:
    """The `chosen` rows `(C,)`, bool, of a site into copies of its constants."""

    def copied(name: str) -> np.ndarray:
        constant = _unshared(structure, name)
        if constant is None:
            raise ValueError(f"{name!r} is no constant")
        return constant.copy()

    weight = arrays.setdefault(site.name, copied(site.name))[site.directions]
    rows = site.product.rows(weight)  # of the same memory
    rows[np.ix_(chosen, site.stays)] = fit.rows
    if site.bias is not None and site.bias.name:
        # Those of W, then those of R, for each direction.
        values = arrays.setdefault(site.bias.name, copied(site.bias.name))[site.directions]
        half = values.shape[1] // 2
        part = slice(half, None) if site.product.fed_back else slice(half)
        shift = np.zeros(len(chosen))
        shift[chosen] = fit.shift
        values[:, part] += shift.reshape(len(values), half)
