"""A short storm: jobs run while one fault of many a kind strikes. `python -m benchmarks.faults` is the long form."""

from pathlib import Path

import pytest

from tests.faults.storm.checker import check
from tests.faults.storm.evidence import files_in
from tests.faults.storm.plan import Mix
from tests.faults.storm.storm import Outcome, Plan, Storm
from tests.faults.storm.strikes import FAULTS

# Short leases, so that nobody need wait for the real ones.
SHORT = {
    "LATHE_JOBS_LEASE_SECONDS": "4",
    "LATHE_JOBS_HEARTBEAT_SECONDS": "1",
    "LATHE_JOBS_REPUBLISH_SECONDS": "3",
    "LATHE_JOBS_BACKOFF_SECONDS": "0.3",
}
QUICK = [
    "kill -9 of a runner",
    "kill -9 of a supervisor",
    "kill -9 of the API",
    "Redis killed and wiped",
    "Postgres restarted immediately",
    "answers to commits lost: accept",
    "answers to commits lost: claim",
    "answers to commits lost: finish",
    "a message delivered 100 times",
    "forged messages",
]


def storm(folder: Path, names: list[str], jobs: int, *, lean: bool = False) -> Outcome:
    mix = Mix(success=15, own_fault=45, cancel=40)
    plan = Plan(jobs, len(names), names=names, mix=mix, depth=2, settings=SHORT, lean=lean)
    return Storm(plan, folder).run()


@pytest.mark.timeout(400)
def test_nothing_that_must_hold_is_broken_by_any_of_these_faults(tmp_path: Path) -> None:
    outcome = storm(tmp_path, QUICK, jobs=8, lean=True)
    assert outcome.complaints == []
    assert outcome.struck == set(QUICK)
    # That the checker reads what is there, it shows on the disk that the storm left, and on the rows.
    assert {"models", "jobs.model_id"} <= {tie.what for tie in outcome.evidence.ties}
    storage = tmp_path / "data" / "storage"
    (storage / "blobs" / "stray").write_bytes(b"of nobody")
    outcome.evidence.files = files_in(storage, marks={})
    assert check(outcome.evidence) == ["files_are_what_rows_say: no row names the file blobs/stray"]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_nor_by_any_other(tmp_path: Path) -> None:
    names = [name for name in FAULTS if name not in QUICK]
    outcome = storm(tmp_path, names, jobs=40)
    assert outcome.complaints == []
    impossible = {strike.fault: strike.what for strike in outcome.strikes if strike.impossible}
    assert outcome.struck == set(names) - impossible.keys()
    if impossible:
        pytest.skip(f"all else held, and this machine does not allow {impossible}")
