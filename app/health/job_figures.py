"""Figures of jobs as the database has them: how many, of which passes, how old, how long they waited and ran, and what
memory that took.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import case, column, func, literal_column, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow

BOUNDS_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
BOUNDS_BYTES = tuple((128 << 20) << doubled for doubled in range(10))  # 128 MiB to 64 GiB
SEARCH = "auto"


class JobFigures(Collector):
    """What was read in one transaction."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def read_job_figures(session: AsyncSession) -> JobFigures:
    """Everything at once."""
    return JobFigures(
        [
            await _by_state(session),
            await _by_pass(session),
            await _oldest_queued(session),
            await _past_lease(session),
            await _histogram(
                session,
                "lathe_job_waiting_seconds",
                "From a job's submission until its first attempt began, in seconds.",
                func.extract("epoch", JobRow.started_at - JobRow.created_at),
                BOUNDS_SECONDS,
            ),
            await _histogram(
                session,
                "lathe_job_running_seconds",
                "Of jobs that are over, from the beginning of their first attempt to the end of the last, in seconds.",
                func.extract("epoch", JobRow.finished_at - JobRow.started_at),
                BOUNDS_SECONDS,
            ),
            await _histogram(
                session,
                "lathe_runner_peak_memory_bytes",
                "Of jobs that are over, the peak resident memory of the largest process that their runner was or had.",
                JobRow.peak_memory_bytes,
                BOUNDS_BYTES,
            ),
        ]
    )


async def _by_state(session: AsyncSession) -> Metric:
    jobs = GaugeMetricFamily("lathe_jobs", "Jobs by state.", labels=("state", "queue", "kind"))
    columns = JobRow.state, JobRow.queue, JobRow.kind
    for *labels, count in await session.execute(select(*columns, func.count()).group_by(*columns)):
        jobs.add_metric(labels, count)
    return jobs


async def _by_pass(session: AsyncSession) -> Metric:
    """A chain counts for each of its passes, and a search as `auto`."""
    recipe = JobRow.request["recipe"]
    steps = case((func.jsonb_typeof(recipe) == "array", recipe), else_=func.jsonb_build_array(recipe))
    step = func.jsonb_array_elements(steps).table_valued(column("value", JSONB), name="step")
    name = func.coalesce(step.c.value["pass"].astext, literal_column(f"'{SEARCH}'"))
    counts = (
        select(name, JobRow.state, func.count())
        .select_from(JobRow)
        .join(step, JobRow.request.is_not(None))
        .where(JobRow.kind == JobKind.OPTIMIZE)
        .group_by(name, JobRow.state)
    )
    passes = GaugeMetricFamily("lathe_job_passes", "Jobs by the passes of their recipes.", labels=("pass", "state"))
    for found, state, count in await session.execute(counts):
        passes.add_metric((found, state), count)
    return passes


async def _oldest_queued(session: AsyncSession) -> Metric:
    age = GaugeMetricFamily(
        "lathe_oldest_queued_seconds", "Age of the oldest queued job, in seconds.", labels=("queue",)
    )
    ages = (
        select(JobRow.queue, func.extract("epoch", func.now() - func.min(JobRow.created_at)))
        .where(JobRow.state == JobState.QUEUED)
        .group_by(JobRow.queue)
    )
    for queue, seconds in await session.execute(ages):
        age.add_metric((queue,), float(seconds))
    return age


async def _past_lease(session: AsyncSession) -> Metric:
    over = JobRow.lease_expires_at < func.now()
    count = (await session.execute(select(func.count()).where(JobRow.state == JobState.RUNNING, over))).scalar_one()
    words = "Running jobs past their lease: more than a moment above 0, and housekeeping does not keep house."
    return GaugeMetricFamily("lathe_jobs_past_lease", words, value=count)


async def _histogram(session: AsyncSession, name: str, words: str, value: Any, bounds: Sequence[float]) -> Metric:
    """By kind, of jobs that have the value. Jobs that were deleted count no more."""
    within = [func.count().filter(value <= bound) for bound in bounds]
    figures = (
        select(JobRow.kind, func.count(), func.sum(value), *within).where(value.is_not(None)).group_by(JobRow.kind)
    )
    histogram = HistogramMetricFamily(name, words, labels=("kind",))
    for kind, count, total, *counts in await session.execute(figures):
        histogram.add_metric((kind,), list(_buckets(bounds, counts, count)), float(total))
    return histogram


def _buckets(bounds: Sequence[float], counts: Iterable[int], count: int) -> Iterator[tuple[str, float]]:
    for bound, below in zip(bounds, counts, strict=True):
        yield f"{float(bound)}", below
    yield "+Inf", count
