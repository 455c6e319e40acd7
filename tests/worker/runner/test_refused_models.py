"""Every model that is refused is refused with its own code, the reason and a remedy, and never tried again."""

from pathlib import Path

import pytest

from app.jobs.states import JobKind
from tests.worker.runner.hostile.archives import ARCHIVES
from tests.worker.runner.hostile.case import Hostile
from tests.worker.runner.hostile.models import MODELS
from tests.worker.runner.jobs import INPUT, run_here


@pytest.mark.parametrize("case", [*MODELS, *ARCHIVES], ids=str)
def test_refused_with_code_reason_and_remedy(case: Hostile, tmp_path: Path) -> None:
    case.write(tmp_path / INPUT)
    result = run_here(JobKind.INSPECT_MODEL, tmp_path, case.media_type)
    assert result.outcome == "failed"
    assert result.fault is not None
    assert (result.fault.code, result.retryable) == (case.code, False), result.fault.detail
    assert case.names in result.fault.detail
    assert result.fault.remedy


def test_messages_of_onnx_runtime_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    case = next(case for case in MODELS if case.name == "type-error")
    case.write(tmp_path / INPUT)
    fault = run_here(JobKind.INSPECT_MODEL, tmp_path, case.media_type).fault
    assert fault is not None
    assert str(tmp_path) not in fault.detail
    assert "/onnxruntime" not in fault.detail
