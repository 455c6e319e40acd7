"""A data file that is swapped for a link behind the check is not followed out of the work folder."""

from pathlib import Path

import pytest

from tests.worker.runner.hostile.confined import canary
from tests.worker.runner.hostile.swaps import SWAPS, inspect_swapped
from worker.sandbox import confinement

# The first is shown in every run.
EACH = [pytest.param(name, marks=[pytest.mark.long] if number else []) for number, name in enumerate(SWAPS)]


@pytest.mark.parametrize("name", EACH)
def test_what_takes_the_place_of_data_behind_the_check_leads_nowhere(name: str, tmp_path: Path) -> None:
    if not confinement()["filesystem"]:
        pytest.skip("this machine does not confine files")
    folder = tmp_path / "work"
    folder.mkdir()
    with canary(tmp_path) as untouched:
        outcome = inspect_swapped(name, folder)
        assert untouched()
    assert outcome.clear
    assert outcome.code in {"model_not_loadable", "external_data_missing"}, outcome
