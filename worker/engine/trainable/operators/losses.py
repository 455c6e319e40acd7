"""Losses that are part of a graph."""

import torch
from torch.nn import functional

from worker.engine.trainable.registry import Call, operator


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood_loss(
    call: Call, scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """`scores` (N, C, ...) are log-probabilities, `target` (N, ...) classes."""
    return _loss(call, scores, target, weight)


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy_loss(
    call: Call, scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and the log-probabilities."""
    logarithms = torch.log_softmax(scores, dim=1)
    return _loss(call, logarithms, target, weight), logarithms


def _loss(call: Call, scores: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    ignored = call.get("ignore_index", None)
    target = target.to(torch.int64)
    if ignored is None:
        return functional.nll_loss(scores, target, weight, reduction=call.get("reduction", "mean"))
    return functional.nll_loss(scores, target, weight, ignore_index=ignored, reduction=call.get("reduction", "mean"))
