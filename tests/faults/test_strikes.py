"""A strike that finds nothing to strike says so: it is no strike."""

from pathlib import Path
from typing import Any, cast

import pytest

from tests.faults.storm.installation import Installation
from tests.faults.storm.strikes import FAULTS, Missed, Site

OF_WHAT_MAY_BE_DOWN = [
    "kill -9 of the API",
    "kill -9 of a housekeeper",
    "kill -9 of every housekeeper",
    "SIGSTOP of the API, SIGCONT past the lease",
    "SIGSTOP of a housekeeper, SIGCONT past the lease",
    "Redis killed and wiped",
    "Postgres restarted immediately",
]


@pytest.mark.parametrize("name", OF_WHAT_MAY_BE_DOWN)
def test_what_is_down_is_not_struck(tmp_path: Path, name: str) -> None:
    nothing_runs = Installation(tmp_path, {})
    nobody = cast("Any", None)
    site = Site(nothing_runs, load=nobody, watch=nobody, journal=nobody, lease_seconds=1.0)
    with pytest.raises(Missed):
        FAULTS[name].strike(site)
