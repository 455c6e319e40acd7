"""What is drawn depends on its key alone, and torch is left as it was found."""

import os

import pytest
import torch

from worker.engine.training.randomness import CUBLAS_VARIABLE, repeatable, seed_torch


def _state() -> tuple[object, ...]:
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        os.environ.get(CUBLAS_VARIABLE),
        torch.get_rng_state().sum(),
    )


def test_torch_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS_VARIABLE, ":16:8")
    before = _state()
    with pytest.raises(RuntimeError, match="inside"), repeatable(threads=1):
        seed_torch(0, 1)
        torch.rand(3)
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("inside")
    assert _state() == before


def test_draws_follow_the_key() -> None:
    def drawn(*key: int) -> list[float]:
        seed_torch(*key)
        return [float(one) for one in torch.rand(4)]

    with repeatable(threads=1):
        first = drawn(0, 2, 5)
        assert drawn(0, 2, 6) != first
        assert drawn(0, 2, 5) == first
