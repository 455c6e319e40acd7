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
from worker.engine.nodes import is_operator, operand
from worker.engine.overwriting import overwrite
from worker.engine.pass_contract import PassContext
from worker.engine.structure.groups import Structure
from worker.engine.structure.recurrence import GATES, product_of
from worker.engine.structure.wiring import Slot
from worker.engine.trainable.weights import constant_tensor

BIAS = 3
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class _Site:
    """`stays` `(K,)` bool: the columns of the weight that are left. `bias` can take a shift."""

    slot: Slot
    product: RecurrentProduct
    weight: np.ndarray
    stays: np.ndarray
    bias: ir.Value | None


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
        moved = _cross(rows, moments, site.stays)
        fit = fit_rows(rows[:, site.stays], moved, np.arange(len(rows)), shifts=site.bias is not None)
        if fit is not None:
            _take(fit, site, arrays)
    return overwrite(model, arrays, folder) if arrays else None


def _sites(structure: Structure, gone: np.ndarray) -> Iterator[_Site]:
    for slot in structure.wiring.consumers:
        if not is_operator(slot.node, *GATES):
            continue
        stays = ~np.isin(structure.wiring.atoms.roots(slot.atoms), gone)
        weight = _unshared(structure.model.graph.initializers.get(slot.weight.name))
        if stays.all() or weight is None:
            continue
        product, bias = product_of(slot, weight.shape), operand(slot.node, BIAS)
        if product is not None:
            yield _Site(slot, product, weight, stays, None if _unshared(bias) is None else bias)


def _unshared(value: ir.Value | None) -> np.ndarray | None:
    """A constant of float32 that nothing else reads."""
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


def _take(fit: Fit, site: _Site, arrays: Arrays) -> None:
    made = site.weight.copy()
    made[..., site.stays] = fit.rows.reshape(*made.shape[:-1], -1)
    arrays[site.slot.weight.name] = made
    if site.bias is not None and (constant := _unshared(site.bias)) is not None:
        # Those of W, then those of R, for each direction.
        name, half = site.bias.name or "", constant.shape[1] // 2
        part = slice(half, None) if site.product.fed_back else slice(half)
        values = arrays.setdefault(name, constant.copy())
        values[:, part] += fit.shift.reshape(len(values), half)
