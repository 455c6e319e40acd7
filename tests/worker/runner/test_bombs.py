"""Models of a kilobyte that ask for terabytes, or never end, are refused with a code by a runner in its sandbox.

`python -m benchmarks.hostile` inspects them as well.
"""

from pathlib import Path

import pytest

from tests.worker.runner.hostile.confined import RESULT, canary, optimize_all
from tests.worker.runner.hostile.programs import BOMBS

# One runner goes through all of these, the last of which ends it.
SHOWN = ("constant-of-shape", "tile", "resize", "endless-loop")
OTHERS = tuple(name for name in BOMBS if name not in SHOWN)
# Their largest tensor need not be made.
HARMLESS = {"unread", "shape-alone"}
SECONDS = 1.0
"""For each. Those that ask for too much are refused in a tenth of it."""
LONG_SECONDS = 30.0


@pytest.mark.parametrize(
    ("names", "seconds"),
    [
        pytest.param(SHOWN, SECONDS, id="one of each kind"),
        pytest.param(OTHERS, LONG_SECONDS, marks=pytest.mark.long, id="others"),
    ],
)
def test_a_bomb_ends_its_job_and_nothing_else(names: tuple[str, ...], seconds: float, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    with canary(tmp_path) as untouched:
        models = [BOMBS[name]().SerializeToString() for name in names]
        outcomes = dict(zip(names, optimize_all(models, folder, seconds), strict=True))
        assert untouched()
    assert {name: outcome for name, outcome in outcomes.items() if not outcome.clear} == {}
    # One that does not load is no bomb.
    assert {name for name, outcome in outcomes.items() if outcome.code in {RESULT, "model_fails"}} <= HARMLESS
    assert "endless-loop" not in outcomes or outcomes["endless-loop"].code == "time_limit"
