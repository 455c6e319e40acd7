"""A storm is drawn from its seed, so that it can be had again."""

from collections import Counter

from tests.faults.storm.plan import Mix, planned_job, planned_strikes

FAULTS = ["kill", "stop", "wipe"]


def test_the_same_seed_gives_the_same_storm_and_another_gives_another() -> None:
    storms = [
        (planned_strikes(seed, FAULTS, 30, 100), [planned_job(seed, number, Mix(), 2) for number in range(50)])
        for seed in (1, 1, 2)
    ]
    assert storms[0] == storms[1]
    assert storms[0][0] != storms[2][0] and storms[0][1] != storms[2][1]


def test_every_fault_strikes_equally_often_and_before_the_last_jobs_are_over() -> None:
    strikes = planned_strikes(0, FAULTS, 30, 100)
    assert Counter(strike.fault for strike in strikes) == dict.fromkeys(FAULTS, 10)
    assert [strike.after_jobs for strike in strikes] == sorted(strike.after_jobs for strike in strikes)
    assert strikes[-1].after_jobs < 90
