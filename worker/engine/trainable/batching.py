"""Whether a module may be fed more samples a call than its file says."""

from collections.abc import Mapping

import torch

from worker.engine.trainable.module import TrainableGraph
from worker.engine.trainable.parity import RTOL, difference

Feed = Mapping[str, torch.Tensor]


def takes_larger_batches(module: TrainableGraph, first: Feed, second: Feed) -> bool:
    """Whether two calls in one give what they give one by one: samples in the first axis of every input and output.

    `first` and `second` are calls of the same sizes that hold different samples; `module` is in `eval()` mode. A file
    with an open batch axis is asked in the same way: its shapes may be fixed all the same.
    """
    joined = {name: torch.cat([first[name], second[name]]) for name in first}
    with torch.no_grad():
        apart = [module(first), module(second)]
        try:
            together = module(joined)
        except (RuntimeError, IndexError, ValueError):  # torch raises any of them where shapes do not fit
            return False
    for name, found in together.items():
        if any(one[name].dim() == 0 for one in apart):
            return False
        wanted = torch.cat([one[name] for one in apart])
        if difference(wanted.cpu().numpy(), found.cpu().numpy(), 10 * RTOL)[0] is not None:
            return False
    return True
