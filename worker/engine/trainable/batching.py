"""Whether a module may be fed more samples a call than its file says."""

from collections.abc import Mapping

import torch

from worker.engine.trainable.module import TrainableGraph
from worker.engine.trainable.parity import RTOL, difference

Feed = Mapping[str, torch.Tensor]


def takes_larger_batches(module: TrainableGraph, first: Feed, second: Feed) -> bool:
    """Whether two calls in one give what they give one by one: samples in the first axis of every input and output.

    `first` and `second` are calls of the same sizes that hold different samples; `module` is in `eval()` mode. A file
    with an open batch axis is asked in the same way: its shapes may be fixed all the same. Where a call holds several,
    it may also be fed a number that is no multiple of that.
    """
    joined = {name: torch.cat([first[name], second[name]]) for name in first}
    size = min((len(one) for one in first.values()), default=1)
    with torch.no_grad():
        apart = [module(first), module(second)]
        try:
            wanted = {name: torch.cat([one[name] for one in apart]) for name in apart[0]}
            return all(_answers_alike(module, joined, wanted, count) for count in {1, size + 1, 2 * size})
        except (RuntimeError, IndexError, ValueError):  # torch raises any of them where shapes do not fit
            return False


def _answers_alike(module: TrainableGraph, joined: Feed, wanted: Feed, count: int) -> bool:
    """Whether the first `count` samples, in one call, are answered with their part of `wanted`."""
    whole = min((len(one) for one in joined.values()), default=1)
    found = module({name: one[:count] for name, one in joined.items()})
    parts = {name: one[: len(one) * count // whole] for name, one in wanted.items()}
    return all(
        difference(part.cpu().numpy(), found[name].cpu().numpy(), 10 * RTOL)[0] is None for name, part in parts.items()
    )
