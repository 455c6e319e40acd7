"""Reductions over axes. Axes are an attribute in old opsets and an input in new ones."""

from collections.abc import Callable

import torch

from worker.engine.trainable.operators.activations import first_extreme
from worker.engine.trainable.registry import Call, numbers, operator

Reduction = Callable[[torch.Tensor, list[int], bool], torch.Tensor]


def _product(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(dim=axis, keepdim=keep, dtype=x.dtype)
    return x


def _log_sum_exp(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return torch.logsumexp(x if x.is_floating_point() else x.to(torch.float32), axes, keep)


def _extreme(x: torch.Tensor, axes: list[int], keep: bool, *, largest: bool) -> torch.Tensor:
    if x.numel() == 0:
        return _sum(x, axes, keep) + _bound(x.dtype, lower=largest)
    return (torch.amax if largest else torch.amin)(x, axes, keep)


def _bound(dtype: torch.dtype, *, lower: bool) -> float | int | bool:
    """What the extreme of nothing is."""
    if dtype.is_floating_point:
        return float("-inf") if lower else float("inf")
    if dtype == torch.bool:
        return not lower
    return int(torch.iinfo(dtype).min if lower else torch.iinfo(dtype).max)


def _sum(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    return x.sum(dim=axes, keepdim=keep, dtype=x.dtype)


def _euclidean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    """Its gradient at zero is zero, where that of a root is infinite."""
    values = x if x.is_floating_point() else x.to(torch.float64)
    return torch.linalg.vector_norm(values, 2, dim=axes, keepdim=keep).to(x.dtype)


def _mean(x: torch.Tensor, axes: list[int], keep: bool) -> torch.Tensor:
    if x.is_floating_point():
        return x.mean(dim=axes, keepdim=keep)
    return (_sum(x, axes, keep) / torch.Size([x.shape[axis] for axis in axes]).numel()).to(x.dtype)


REDUCTIONS: dict[str, Reduction] = {
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": _euclidean,
    "ReduceLogSum": lambda x, axes, keep: _sum(x, axes, keep).log().to(x.dtype),
    "ReduceLogSumExp": lambda x, axes, keep: _log_sum_exp(x, axes, keep).to(x.dtype),
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, largest=True),
    "ReduceMean": _mean,
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, largest=False),
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}


@operator("ReduceSum", until=12)
@operator(*(name for name in REDUCTIONS if name != "ReduceSum"), until=17)
def reduce_by_attribute(call: Call, x: torch.Tensor) -> torch.Tensor:
    return _reduced(call, x, call.integers("axes"))


@operator("ReduceSum", since=13, host=(1,))
@operator(*(name for name in REDUCTIONS if name != "ReduceSum"), since=18, host=(1,))
def reduce(call: Call, x: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
    return _reduced(call, x, numbers(axes))


def _reduced(call: Call, x: torch.Tensor, axes: list[int] | None) -> torch.Tensor:
    """No axes at all means every one, or none where the node says so."""
    if not axes and call.get("noop_with_empty_axes", 0):
        # What is done to each element before and after is done all the same.
        return REDUCTIONS[call.operator](x.unsqueeze(0), [0], False)
    if x.dim() == 0:
        return REDUCTIONS[call.operator](x.reshape(1), [0], False)
    chosen = [axis % x.dim() for axis in axes] if axes else list(range(x.dim()))
    return REDUCTIONS[call.operator](x, chosen, bool(call.get("keepdims", 1)))


@operator("ArgMax", "ArgMin")
def arg_extreme(call: Call, x: torch.Tensor) -> torch.Tensor:
    """The first of equal elements, or the last where the node says so."""
    axis, largest = call.get("axis", 0) % max(1, x.dim()), call.operator == "ArgMax"
    if call.get("select_last_index", 0):
        found = x.shape[axis] - 1 - first_extreme(x.flip(axis), axis, largest=largest)
    else:
        found = first_extreme(x, axis, largest=largest)
    return found.unsqueeze(axis) if call.get("keepdims", 1) else found


@operator("CumSum", "CumProd", host=(1,))
def cumulative(call: Call, x: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    along = int(axis.item()) % x.dim()
    x = x.flip(along) if call.get("reverse", 0) else x
    first = 0 if call.operator == "CumSum" else 1
    if call.get("exclusive", 0):
        begin = torch.full_like(x.narrow(along, 0, 1), first)
        x = torch.cat([begin, x.narrow(along, 0, x.shape[along] - 1)], dim=along)
    made = (torch.cumsum if first == 0 else torch.cumprod)(x, along, dtype=x.dtype)
    return made.flip(along) if call.get("reverse", 0) else made
