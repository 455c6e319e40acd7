"""Jobs measured in this process, as briefly as their figures allow."""

import pytest

from worker.runner import measuring


@pytest.fixture(autouse=True)
def _brief_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of kernels are told and decide nothing: a fifth of a second of them in place of one or two."""
    monkeypatch.setattr(measuring, "KERNEL_SECONDS", 0.2)
    monkeypatch.setattr(measuring, "LEAST_SECONDS", 0.2)
