"""A session runs where it was meant to, or there is none: no figure of a CPU may pass for one of a GPU."""

from pathlib import Path

import onnxruntime as ort
import pytest

from tests.worker import networks
from worker.engine.sessions import DeviceUnavailable, open_session, require_placed

without_gpu = pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="there is a GPU here")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return networks.save(networks.perceptron(), tmp_path)


def test_a_session_on_the_cpu_is_there(path: Path) -> None:
    session = open_session(path, 1)
    require_placed(session, "cpu")
    assert session.get_providers() == ["CPUExecutionProvider"]


@without_gpu
def test_no_session_is_opened_on_a_device_that_the_runtime_does_not_know(path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="no provider"):
        open_session(path, 1, device="cuda")


def test_a_session_that_fell_back_to_the_cpu_is_refused(path: Path) -> None:
    """What ONNX Runtime answers where its CUDA provider does not start: a session, and it runs, on the CPU."""
    fallen_back = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with pytest.raises(DeviceUnavailable, match="could not use"):
        require_placed(fallen_back, "cuda")
