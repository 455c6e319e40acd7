"""How long it took from each strike until all went on, read off the events of the jobs and the clients' journals."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

from tests.faults.storm.evidence import Evidence, Struck


@dataclass(frozen=True)
class Recoveries:
    """Of all strikes of one kind: from the harm until requests were answered, jobs claimed, and what ran went on."""

    fault: str
    strikes: int
    median_seconds: float
    longest_seconds: float


def recoveries(found: Evidence, strikes: Sequence[Struck]) -> list[Recoveries]:
    claims = sorted(
        event.created_at for events in found.events.values() for event in events if event.state == "running"
    )
    by_fault: dict[str, list[float]] = defaultdict(list)
    for strike in strikes:
        if not strike.skipped:
            waits = [_until(found.told.answered_at, strike.at), _until(claims, strike.at)]
            waits += [_until(found.signs[job_id], strike.at) for job_id in _running_at(found, strike.at)]
            by_fault[strike.fault].append(max((wait for wait in waits if wait is not None), default=0.0))
    return [Recoveries(fault, len(waits), median(waits), max(waits)) for fault, waits in sorted(by_fault.items())]


def longest_standstill(found: Evidence) -> float:
    """Seconds between two signs of life of one job, from its first claim to its end."""
    gaps = [(after - before).total_seconds() for signs in found.signs.values() for before, after in pairwise(signs)]
    return max(gaps, default=0.0)


def _running_at(found: Evidence, moment: datetime) -> list[object]:
    running = []
    for job_id, events in found.events.items():
        before = [event.state for event in events if event.created_at <= moment]
        if before and before[-1] == "running":
            running.append(job_id)
    return running


def _until(moments: Sequence[datetime], start: datetime) -> float | None:
    """Seconds until the first of them after `start`; None where there is none."""
    place = bisect_right(moments, start)
    return (moments[place] - start).total_seconds() if place < len(moments) else None
