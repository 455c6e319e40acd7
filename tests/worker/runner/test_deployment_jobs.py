"""Jobs that ask for the deployment check, end to end."""

from pathlib import Path

import numpy as np
import pytest

from tests.worker import networks
from tests.worker.runner.optimizing import optimize

IMAGES = np.random.default_rng(0).random((64, 3, 16, 16), np.float32)
DATA = {"calibration": {"image": IMAGES[:32]}, "evaluation": {"image": IMAGES[32:]}}
# The passes stop long before; the checks take some eight seconds of what is left.
BUDGET_SECONDS = 60.0


def test_an_int8_file_passes_and_the_report_has_its_figures(tmp_path: Path) -> None:
    result = optimize(
        tmp_path / "job",
        networks.convnet(),
        DATA,
        BUDGET_SECONDS,
        recipe=[{"pass": "quantize_static"}],
        deployment_check=True,
        objective="size",
    )
    assert result.report is not None
    deployment = result.report.deployment
    assert deployment is not None
    assert {check.name: check.outcome for check in deployment.checks} == dict.fromkeys(
        ("loads", "same_answers", "memory", "extreme_values", "extreme_shapes", "threads", "without_vnni"), "passed"
    )
    figures = {check.name: check.figures for check in deployment.checks}
    assert figures["without_vnni"]["int8_nodes"] >= 4
    assert figures["same_answers"]["concurrent_runs"] == 1000
    assert deployment.modules == ["numpy", "onnxruntime"]
    assert not any("Deployment" in cause for cause in result.report.verdict.causes)


@pytest.mark.long
def test_a_check_that_failed_leads_the_causes(tmp_path: Path) -> None:
    """Ranges were set on images of 0 to 1; one pixel of the last image that quality is measured on is 100."""
    images = IMAGES[32:].copy()
    images[-1, 0, 0, 0] = 100
    result = optimize(
        tmp_path / "job",
        networks.convnet(),
        DATA | {"evaluation": {"image": images}},
        BUDGET_SECONDS,
        recipe=[{"pass": "quantize_static"}],
        deployment_check=True,
        objective="size",
    )
    assert result.outcome == "succeeded"
    assert result.report is not None
    assert result.report.deployment is not None
    (failed,) = result.report.deployment.failed()
    assert failed.name == "extreme_values"
    assert [one.name for one in result.report.deployment.edge_inputs if one.outcome == "failed"] == ["highest"]
    assert result.report.verdict.causes[0] == f"Deployment check failed, `extreme_values`: {failed.words}"


def test_nothing_is_checked_unasked(tmp_path: Path) -> None:
    result = optimize(tmp_path / "job", networks.perceptron(), {}, recipe=[{"pass": "optimize_graph"}])
    assert result.report is not None
    assert result.report.deployment is None
