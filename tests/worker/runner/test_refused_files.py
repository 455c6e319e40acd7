"""Every file that is refused is refused with its own code, the reason and a remedy, and never tried again.

A runner in its sandbox goes through them all, and changes nothing outside.
"""

from pathlib import Path

import pytest

from app.jobs.states import JobKind
from tests.worker.runner.hostile.archives import ARCHIVES
from tests.worker.runner.hostile.case import Hostile
from tests.worker.runner.hostile.confined import Outcome, Upload, canary, inspect_all
from tests.worker.runner.hostile.datasets import DATASETS
from tests.worker.runner.hostile.models import MODELS
from tests.worker.runner.jobs import INPUT, run_here

KINDS = {JobKind.INSPECT_MODEL: [*MODELS, *ARCHIVES], JobKind.INSPECT_DATASET: DATASETS}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[Hostile, Outcome]:
    home = tmp_path_factory.mktemp("refused")
    folder = home / "work"
    folder.mkdir()
    cases = [case for cases in KINDS.values() for case in cases]
    uploads = [Upload(kind, case.media_type, case.write) for kind, cases in KINDS.items() for case in cases]
    with canary(home) as untouched:
        found = inspect_all(uploads, folder)
        assert untouched()
    return dict(zip(cases, found, strict=True))


@pytest.mark.parametrize("case", [case for cases in KINDS.values() for case in cases], ids=str)
def test_refused_with_code_reason_and_remedy(case: Hostile, outcomes: dict[Hostile, Outcome]) -> None:
    outcome = outcomes[case]
    assert (outcome.code, outcome.clear) == (case.code, True), outcome.detail
    assert case.names in outcome.detail


def test_messages_of_onnx_runtime_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    case = next(case for case in MODELS if case.name == "type-error")
    case.write(tmp_path / INPUT)
    fault = run_here(JobKind.INSPECT_MODEL, tmp_path, case.media_type).fault
    assert fault is not None
    assert str(tmp_path) not in fault.detail
    assert "/onnxruntime" not in fault.detail
