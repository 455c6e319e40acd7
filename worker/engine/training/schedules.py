"""How the learning rate and the share of zeros go over the steps."""

import math


def learning_rate_share(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at `step` of `steps`, counted from 0.

    It rises in a straight line over the share `warmup` of the steps and falls to zero along a half cosine (Loshchilov
    & Hutter, https://arxiv.org/abs/1608.03983, without restarts).
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def cubic_sparsity(step: int, steps: int, first: float, last: float) -> float:
    """Share of zeros at `step` of a ramp of `steps`: fast at first, slow towards the end, `last` from its end on.

    Zhu & Gupta, To prune, or not to prune (https://arxiv.org/abs/1710.01878), equation 1.
    """
    left = 1 - min(1.0, step / max(1, steps))
    return last + (first - last) * left**3
