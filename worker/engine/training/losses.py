"""What the distance between two answers is."""

import torch
from torch.nn import functional

from worker.engine.faults import UserFault

# Of a probability that rounded to zero there is no logarithm.
LEAST_PROBABILITY = 1e-30
# float32 tells no probability from 1 that is closer to it.
CLOSEST_TO_CERTAIN = 1e-7


class AnswersDiffer(UserFault):
    code, title = "answers_differ", "Teacher and student do not answer in the same shape"


def soft_cross_entropy(
    teacher: torch.Tensor, student: torch.Tensor, temperature: float = 1.0, axis: int = 1
) -> torch.Tensor:
    """-sum_k p_k log q_k, the mean over all rows, where p = softmax(teacher / T) and q = softmax(student / T).

    Scores of classes lie along `axis`: (N, C) or (N, C, ...). Logarithms of probabilities are scores as well. It is
    never less than the entropy of p, and that only where both answer alike. Hinton et al.,
    https://arxiv.org/abs/1503.02531. Classes that both mask with minus infinity have no part in it.

    Raises:
        AnswersDiffer: not of one shape.

    """
    same_shape(teacher, student)
    probabilities = torch.softmax(teacher / temperature, dim=axis)
    logs = torch.log_softmax(student / temperature, dim=axis)
    # 0 log 0 is 0; as a product it would be no number.
    return -(probabilities * logs.masked_fill(probabilities == 0, 0.0)).sum(dim=axis).mean()


def entropy(scores: torch.Tensor, temperature: float = 1.0, axis: int = 1) -> torch.Tensor:
    """-sum_k p_k log p_k of p = softmax(scores / T), the mean over all rows."""
    return torch.special.entr(torch.softmax(scores / temperature, dim=axis)).sum(dim=axis).mean()


def divergence(teacher: torch.Tensor, student: torch.Tensor, temperature: float, axis: int = 1) -> torch.Tensor:
    """T^2 KL(p || q): the cross-entropy less what no student can take off it, so that it ends at zero.

    The square keeps gradients as large as those of labels. Raises as `soft_cross_entropy`.
    """
    least = entropy(teacher, temperature, axis)
    return temperature**2 * (soft_cross_entropy(teacher, student, temperature, axis) - least)


def normalized_error(wanted: torch.Tensor, found: torch.Tensor, power: float) -> torch.Tensor:
    """Mean squared error as a share of `power`, the mean square of what is wanted of all samples: of those of one call
    it would give a sample that is near zero more weight than others, and no end of it to one that is zero. Where what
    is wanted is not finite, as masked scores are not, there is no error.

    Raises:
        AnswersDiffer: not of one shape.

    """
    same_shape(wanted, found)
    return torch.where(wanted.isfinite(), found - wanted, 0.0).square().mean() / power


def hard_cross_entropy(scores: torch.Tensor, labels: torch.Tensor, axis: int) -> torch.Tensor:
    """-log of the probability of the right class, the mean over labels; those below zero do not count.

    `labels` are int64 of the shape of `scores` without `axis`.
    """
    rows, known = scores.movedim(axis, -1).flatten(0, -2), labels.flatten()
    total = functional.cross_entropy(rows, known.clamp_min(-1), ignore_index=-1, reduction="sum")
    return total / (known >= 0).sum().clamp_min(1)


def binary_cross_entropy(found: torch.Tensor, labels: torch.Tensor, probabilities: bool) -> torch.Tensor:
    """-log of the probability of the right one of yes (1) and no (0), the mean over labels.

    Both are (N, ...) with as many elements; `found` are scores of a yes, or its `probabilities`.
    """
    scores = torch.logit(found, eps=CLOSEST_TO_CERTAIN) if probabilities else found
    return functional.binary_cross_entropy_with_logits(scores, labels.reshape(found.shape))


def squared_error(found: torch.Tensor, labels: torch.Tensor, variance: float) -> torch.Tensor:
    """Mean squared error over the variance of the labels; labels that are no number do not count.

    Both are (N, ...) with as many elements.
    """
    labels = labels.reshape(found.shape)
    known = labels.isfinite()
    error = torch.where(known, found - labels.nan_to_num(0.0, 0.0, 0.0), 0.0).square().sum()
    return error / known.sum().clamp_min(1) / variance


def log_probabilities(probabilities: torch.Tensor) -> torch.Tensor:
    """As scores: their softmax gives the probabilities back."""
    return probabilities.clamp_min(LEAST_PROBABILITY).log()


def log_probabilities_beside(student: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """A teacher's `log_probabilities`; minus infinity where they rounded to zero and the student's scores are masked.

    Raises:
        AnswersDiffer: not of one shape.

    """
    same_shape(probabilities, student)
    masked = student.isneginf() & (probabilities <= LEAST_PROBABILITY)
    return log_probabilities(probabilities).masked_fill(masked, -torch.inf)


def same_shape(teacher: torch.Tensor, student: torch.Tensor) -> None:
    """
    Raises:
        AnswersDiffer: not of one shape.

    """
    if teacher.shape != student.shape:
        raise AnswersDiffer(
            f"The teacher answers {list(teacher.shape)} where the student answers {list(student.shape)}.",
            "Choose a teacher and a student that answer the same question: as many classes, in the same shape.",
        )
