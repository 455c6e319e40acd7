"""The distances that training goes down."""

import numpy as np
import pytest
import torch

from worker.engine.training.losses import (
    AnswersDiffer,
    binary_cross_entropy,
    divergence,
    entropy,
    hard_cross_entropy,
    log_probabilities,
    log_probabilities_beside,
    normalized_error,
    soft_cross_entropy,
    squared_error,
)

# A teacher that is fairly sure of the third of ten classes, and a student that is less so.
TEACHER = [0.01, 0.02, 0.78, 0.05, 0.02, 0.03, 0.02, 0.04, 0.02, 0.01]
STUDENT = [0.05, 0.05, 0.45, 0.10, 0.05, 0.08, 0.05, 0.07, 0.06, 0.04]


def _scores(probabilities: list[float]) -> torch.Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_the_soft_loss_is_the_cross_entropy_with_its_minus() -> None:
    loss = float(soft_cross_entropy(_scores(TEACHER), _scores(STUDENT)))
    assert loss == pytest.approx(-sum(p * np.log(q) for p, q in zip(TEACHER, STUDENT, strict=True)))
    assert loss > 0


def test_the_soft_loss_is_least_where_the_student_answers_as_the_teacher() -> None:
    own = float(entropy(_scores(TEACHER)))
    assert own == pytest.approx(-sum(p * np.log(p) for p in TEACHER))
    assert float(soft_cross_entropy(_scores(TEACHER), _scores(TEACHER))) == pytest.approx(own)
    assert float(soft_cross_entropy(_scores(TEACHER), _scores(STUDENT))) > own + 0.1
    assert float(divergence(_scores(TEACHER), _scores(TEACHER), 4.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [soft_cross_entropy, normalized_error], ids=["soft", "numbers"])
def test_answers_of_another_length_are_refused(loss: object) -> None:
    with pytest.raises(AnswersDiffer, match=r"\[1, 10\] where the student answers \[1, 9\]"):
        loss(_scores(TEACHER), _scores(STUDENT[:9]), 1.0)  # type: ignore[operator]


def test_the_gradient_keeps_its_size_at_every_temperature() -> None:
    """Of scores that lie close together it is that of half their squared distance over the classes."""
    teacher = torch.linspace(-0.1, 0.1, 10, dtype=torch.float64)[None]
    gradients = []
    for temperature in (4.0, 20.0):
        student = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
        divergence(teacher, student, temperature).backward()
        gradients.append(student.grad)
    assert torch.allclose(gradients[0], -teacher / 10, rtol=0.05, atol=1e-5)
    assert torch.allclose(gradients[0], gradients[1], rtol=0.05, atol=1e-5)


def test_probabilities_are_as_good_as_scores() -> None:
    scores = torch.tensor([[1.0, -2.0, 0.5]])
    found = soft_cross_entropy(log_probabilities(scores.softmax(1)), scores, 3.0)
    assert float(found) == pytest.approx(float(entropy(scores, 3.0)), rel=1e-5)
    assert torch.isfinite(log_probabilities(torch.tensor([[1.0, 0.0]]))).all()


MASKED = [[1.0, 2.0, -torch.inf], [0.5, -torch.inf, 3.0]]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_what_both_mask_has_no_part_in_the_loss(temperature: float) -> None:
    teacher = torch.tensor(MASKED, dtype=torch.float64)
    student = (teacher + torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 1.0]])).requires_grad_()
    loss = divergence(teacher, student, temperature)
    loss.backward()
    known = [
        divergence(teacher[row][None, places], student.detach()[row][None, places], temperature)
        for row, places in enumerate(([0, 1], [0, 2]))
    ]
    assert float(loss.detach()) == pytest.approx(float(sum(known)) / 2, rel=1e-5)
    assert torch.isfinite(student.grad).all()
    assert (student.grad != 0).equal(teacher.isfinite())
    # Probabilities say the same: what is masked rounds to zero there, or in ONNX Runtime to next to it.
    for least in (0.0, 4e-39):
        given = log_probabilities_beside(student.detach(), teacher.softmax(1).clamp_min(least))
        assert float(divergence(given, student.detach(), temperature)) == pytest.approx(float(loss.detach()), rel=1e-4)


def test_numbers_that_are_not_finite_are_not_wanted() -> None:
    wanted = torch.tensor(MASKED)
    found = (wanted + 1.0).requires_grad_()
    loss = normalized_error(wanted, found, power=2.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(4 / 6 / 2)
    assert torch.isfinite(found.grad).all()
    # What the student alone makes infinite is wrong without end.
    assert float(normalized_error(torch.zeros(1, 3), wanted[:1], power=2.0)) == torch.inf


def test_labels_that_are_none_do_not_count() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    known = hard_cross_entropy(scores[:1], torch.tensor([0]), 1)
    assert float(hard_cross_entropy(scores, torch.tensor([0, -1]), 1)) == pytest.approx(float(known))
    assert float(hard_cross_entropy(scores, torch.tensor([-1, -7]), 1)) == 0
    found = squared_error(torch.tensor([[1.0], [9.0]]), torch.tensor([3.0, torch.nan]), variance=2.0)
    assert float(found) == pytest.approx(2.0)


def test_yes_and_no_are_learned_alike_from_scores_and_from_probabilities() -> None:
    scores, labels = torch.tensor([[2.0, -1.0], [0.5, 3.0]]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    p = scores.sigmoid().double()
    wanted = -(p[0, 0].log() + (1 - p[0, 1]).log() + (1 - p[1, 0]).log() + p[1, 1].log()) / 4
    assert float(binary_cross_entropy(scores, labels, probabilities=False)) == pytest.approx(float(wanted))
    assert float(binary_cross_entropy(scores.sigmoid(), labels, probabilities=True)) == pytest.approx(float(wanted))
    assert torch.isfinite(binary_cross_entropy(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), probabilities=True))


def test_classes_may_lie_before_the_places_they_are_scored_at() -> None:
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    moved = hard_cross_entropy(scores.movedim(1, -1), labels, 3)
    assert float(hard_cross_entropy(scores, labels, 1)) == pytest.approx(float(moved))


def test_an_error_is_a_share_of_what_was_wanted() -> None:
    wanted = torch.tensor([[3.0, 4.0]])
    assert float(normalized_error(wanted, wanted * 1.1, power=12.5)) == pytest.approx(0.01, rel=1e-4)
