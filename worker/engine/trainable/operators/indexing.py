"""Picking elements by place or by value, and putting elements into places."""

import torch
from torch.nn import functional

from worker.engine.trainable.operators.shapes import repeated
from worker.engine.trainable.registry import Call, numbers, operator

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
END = 2**62


@operator("Gather")
def gather(call: Call, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = call.get("axis", 0) % max(1, x.dim())
    flat = _counted(indices, x.shape[axis]).reshape(-1)
    # An embedding's gradient is summed by rows; index_select's is a scatter over the whole table.
    made = functional.embedding(flat, x) if axis == 0 and x.dim() == 2 else x.index_select(axis, flat)
    return made.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _counted(indices: torch.Tensor, size: int) -> torch.Tensor:
    """int64, those below zero counted from the end."""
    indices = indices.to(torch.int64)
    return torch.where(indices < 0, indices + size, indices)


@operator("GatherElements")
def gather_elements(call: Call, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = call.get("axis", 0)
    if call.growth != 1 and axis % x.dim() and x.shape[0] * call.growth == indices.shape[0]:
        x = repeated(x, indices.shape[0])  # a table that was written for the batch of the file
    return torch.gather(x, axis, _counted(indices, x.shape[axis]))


@operator("GatherND")
def gather_nd(call: Call, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The last axis of `indices` is a place in `x` behind its batch axes."""
    shared = call.get("batch_dims", 0)
    return x[_places(x, indices, shared)]


def _places(x: torch.Tensor, indices: torch.Tensor, shared: int = 0) -> tuple[torch.Tensor, ...]:
    """One index tensor an axis; those of shared batch axes count up."""
    depth = indices.dim() - 1
    counting = [
        torch.arange(x.shape[axis], device=indices.device).reshape([-1 if one == axis else 1 for one in range(depth)])
        for axis in range(shared)
    ]
    chosen = [_counted(indices[..., one], x.shape[shared + one]) for one in range(indices.shape[-1])]
    return (*counting, *chosen)


@operator("Scatter", "ScatterElements")
def scatter_elements(call: Call, x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    axis, kind = call.get("axis", 0), call.get("reduction", "none")
    places = _counted(indices, x.shape[axis])
    if kind == "none":
        return torch.scatter(x, axis, places, updates)
    return torch.scatter_reduce(x, axis, places, updates, REDUCTIONS[kind])


@operator("ScatterND")
def scatter_nd(call: Call, x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """`updates` (places, rest of an element) go where the last axis of `indices` says."""
    kind, depth = call.get("reduction", "none"), indices.shape[-1]
    if kind == "none":
        return x.index_put(_places(x, indices), updates) if depth else updates.reshape(x.shape).clone()
    rows, width = x.shape[:depth].numel(), x.shape[depth:].numel()
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=x.device)
    for axis, places in enumerate(_places(x, indices)):
        flat = flat * x.shape[axis] + places
    index = flat.reshape(-1, 1).expand(-1, width)
    made = x.reshape(rows, width).scatter_reduce(0, index, updates.reshape(-1, width), REDUCTIONS[kind])
    return made.reshape(x.shape)


@operator("TensorScatter")
def tensor_scatter(
    call: Call, past: torch.Tensor, update: torch.Tensor, starts: torch.Tensor | None = None
) -> torch.Tensor:
    """`update` into the cache of each sample, from its `starts` on along `axis`, round the end where circular."""
    axis = call.get("axis", -2) % past.dim()
    steps = torch.arange(update.shape[axis], device=past.device)
    begin = torch.zeros(past.shape[0], dtype=torch.int64, device=past.device) if starts is None else starts
    places = begin.unsqueeze(1) + steps
    places = places % past.shape[axis] if call.get("mode", "linear") == "circular" else places
    shape = [1] * past.dim()
    shape[0], shape[axis] = places.shape
    return past.scatter(axis, places.reshape(shape).expand(update.shape), update)


@operator("Slice", until=9)
def slice_by_attributes(call: Call, x: torch.Tensor) -> torch.Tensor:
    starts = call.integers("starts") or []
    return _sliced(x, starts, call.integers("ends") or [], call.integers("axes"), None)


@operator("Slice", since=10, host=(1, 2, 3, 4))
def slice_(
    _call: Call,
    x: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    axes: torch.Tensor | None = None,
    steps: torch.Tensor | None = None,
) -> torch.Tensor:
    return _sliced(x, numbers(starts) or [], numbers(ends) or [], numbers(axes), numbers(steps))


def _sliced(
    x: torch.Tensor, starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None
) -> torch.Tensor:
    """As Python slices, which clip what lies outside in the same way; negative steps pick in reverse."""
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        # -size - 1 and below mean "before the first", which Python's own slices cannot say of a negative step.
        chosen = range(size)[slice(start, None if step < 0 and end < -size else end, step)]
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(chosen.start, chosen.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


@operator("TopK", until=9)
def top_k_by_attribute(call: Call, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _top(call, x, call.get("k", 1))


@operator("TopK", since=10, host=(1,))
def top_k(call: Call, x: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _top(call, x, int(k.item()))


def _top(call: Call, x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """In order, whether that is asked for or not; of equal elements the first."""
    axis = call.get("axis", -1)
    values, indices = torch.sort(x, dim=axis, descending=bool(call.get("largest", 1)), stable=True)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


@operator("OneHot", host=(1,))
def one_hot(call: Call, indices: torch.Tensor, depth: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """An index that is out of range leaves all off."""
    count = int(depth.reshape(()).item())
    axis = call.get("axis", -1)
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    indices = indices.to(torch.int64)
    indices = torch.where(indices < 0, indices + count, indices).unsqueeze(axis)
    shape = [-1 if one == axis else 1 for one in range(indices.dim())]
    places = torch.arange(count, device=indices.device).reshape(shape)
    return torch.where(indices == places, values[1], values[0])


@operator("NonZero")
def non_zero(_call: Call, x: torch.Tensor) -> torch.Tensor:
    """(rank, count)."""
    return torch.nonzero(x).T.contiguous() if x.dim() else torch.nonzero(x.reshape(1)).T[:0]


@operator("Compress")
def compress(call: Call, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    axis = call.get("axis", None)
    x = x.reshape(-1) if axis is None else x
    return x.index_select(axis or 0, torch.nonzero(condition).reshape(-1))
