"""Whose fault it is that an attempt failed: what is ours is looked at again, and told to operators."""

import signal
from typing import get_type_hints

import pytest

from app.errors import OUR_FAULTS, Fault, OurFault, StorageFull, Unavailable
from app.jobs.lease import NOT_INSPECTED
from app.jobs.reaping import WORKER_LOST
from app.jobs.states import JobKind
from app.storage import ContentMissing
from worker.failures import death, not_stored, ours, out_of_memory, out_of_time, too_much_written
from worker.fetching import CorruptInput, MissingInput
from worker.runner.disk import disk_full, oversized_file

OURS = [
    WORKER_LOST,
    NOT_INSPECTED,
    not_stored(StorageFull("full")),
    not_stored(None),
    out_of_time(JobKind.INSPECT_MODEL, 1.0),
    out_of_memory(1),
    too_much_written(1, 1, 1),
    death(JobKind.OPTIMIZE, -signal.SIGSEGV)[0],
    death(JobKind.INSPECT_MODEL, -signal.SIGKILL)[0],
    disk_full(),
    oversized_file(),
]
THEIRS = [out_of_time(JobKind.OPTIMIZE, 1.0), death(JobKind.INSPECT_DATASET, -signal.SIGBUS)[0]]


@pytest.mark.parametrize("fault", OURS, ids=lambda fault: fault.code)
def test_what_is_ours_is_known_as_ours(fault: Fault) -> None:
    assert fault.code in OUR_FAULTS


@pytest.mark.parametrize("fault", THEIRS, ids=lambda fault: fault.code)
def test_what_is_the_users_is_not(fault: Fault) -> None:
    assert fault.code not in OUR_FAULTS


def test_what_storage_fails_with_is_ours() -> None:
    codes = {each.code for each in (StorageFull, Unavailable, ContentMissing, CorruptInput, MissingInput)}
    assert codes <= OUR_FAULTS
    assert ContentMissing.code == MissingInput.code


def test_a_fault_of_ours_can_have_no_other_code() -> None:
    assert get_type_hints(ours)["code"] is OurFault
    assert {ours(code, "It broke.").code for code in OurFault} == OUR_FAULTS
