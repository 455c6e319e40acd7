"""Figures of jobs as the database has them: how many, of which passes, how old, how long they waited and ran, and what
memory that took.

A job that is over never changes and is never deleted, which a trigger sees to. So each process adds it up once: a look
costs what has happened since the one before, and not the whole history.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Select, and_, case, column, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.states import JobKind, JobState
from app.jobs.tables import JobRow

BOUNDS_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
BOUNDS_BYTES = tuple((128 << 20) << doubled for doubled in range(10))  # 128 MiB to 64 GiB
SEARCH = "auto"
# An end may be written down and be seen only later, with its commit: so long nothing is added for good.
LATE_COMMIT = timedelta(minutes=10)
# Added up by one statement, which has 30 s: of a long history, in a process that has just begun, one after another.
PIECE_JOBS = 50_000
JOBS, PASSES = "lathe_jobs", "lathe_job_passes"
SUM, ALL = "sum", "+Inf"

Totals = defaultdict[tuple[str, ...], float]
"""By metric, labels, and of histograms what it is: a bound, `+Inf` or `sum`."""


@dataclass(frozen=True)
class Distribution:
    """What becomes a histogram by kind, of jobs that have the value."""

    name: str
    words: str
    value: Any
    bounds: tuple[float, ...]

    @property
    def parts(self) -> dict[str, ColumnElement[Any]]:
        """What is asked of the database."""
        within = {f"{float(bound)}": func.count().filter(self.value <= bound) for bound in self.bounds}
        return within | {ALL: func.count(self.value), SUM: func.sum(self.value)}


DISTRIBUTIONS = (
    Distribution(
        "lathe_job_waiting_seconds",
        "From a job's submission until its first attempt began, in seconds.",
        func.extract("epoch", JobRow.started_at - JobRow.created_at),
        BOUNDS_SECONDS,
    ),
    Distribution(
        "lathe_job_running_seconds",
        "Of jobs that are over, from the beginning of their first attempt to the end of the last, in seconds.",
        func.extract("epoch", JobRow.finished_at - JobRow.started_at),
        BOUNDS_SECONDS,
    ),
    Distribution(
        "lathe_runner_peak_memory_bytes",
        "Of jobs that are over, the peak resident memory of the largest process that their runner was or had.",
        JobRow.peak_memory_bytes,
        BOUNDS_BYTES,
    ),
)


class JobTotals:
    """Sums over all jobs, of which those that ended some minutes ago are remembered. For one reader at a time."""

    def __init__(self) -> None:
        self._settled: Totals = defaultdict(float)
        self._settled_until = datetime.min.replace(tzinfo=UTC)

    async def read(self, session: AsyncSession) -> Totals:
        """What there is now. Where this is interrupted, the next one goes on."""
        await self._settle(session)
        totals = self._settled.copy()
        unsettled = or_(JobRow.finished_at >= self._settled_until, JobRow.finished_at.is_(None))
        _add(totals, await _sum_up(session, unsettled))
        return totals

    async def _settle(self, session: AsyncSession) -> None:
        """Remember what has ended since the last look, as far as no late commit can add to it."""
        until = (await session.execute(select(func.now() - LATE_COMMIT))).scalar_one()
        while self._settled_until < until:
            since = JobRow.finished_at >= self._settled_until
            following = select(JobRow.finished_at).where(since).order_by(JobRow.finished_at).offset(PIECE_JOBS).limit(1)
            end = (await session.execute(following)).scalar_one_or_none()
            if end is None or not self._settled_until < end < until:  # also where so many ended at one moment
                end = until
            _add(self._settled, await _sum_up(session, and_(since, JobRow.finished_at < end)))
            self._settled_until = end


class JobFigures(Collector):
    """What was read in one transaction."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def read_job_figures(session: AsyncSession, job_totals: JobTotals) -> JobFigures:
    """Everything at once."""
    totals = await job_totals.read(session)
    gauges = [
        _gauge(totals, JOBS, "Jobs by state.", ("state", "queue", "kind")),
        _gauge(totals, PASSES, "Jobs by the passes of their recipes.", ("pass", "state")),
    ]
    histograms = [_histogram(totals, distribution) for distribution in DISTRIBUTIONS]
    return JobFigures([*gauges, await _oldest_queued(session), await _past_lease(session), *histograms])


def _add(totals: Totals, more: Totals) -> None:
    for key, value in more.items():
        totals[key] += value


async def _sum_up(session: AsyncSession, which: ColumnElement[bool]) -> Totals:
    """Of the jobs that fulfil the condition."""
    totals: Totals = defaultdict(float)
    labels = JobRow.state, JobRow.queue, JobRow.kind
    parts = {(known.name, name): part for known in DISTRIBUTIONS for name, part in known.parts.items()}
    counts = select(*labels, func.count(), *parts.values()).where(which).group_by(*labels)
    for state, queue, kind, count, *values in await session.execute(counts):
        totals[JOBS, state, queue, kind] = count
        for (metric, name), value in zip(parts, values, strict=True):
            totals[metric, kind, name] += float(value or 0)
    for found, state, count in await session.execute(_by_pass().where(which)):
        totals[PASSES, found, state] = count
    return totals


def _by_pass() -> Select[Any]:
    """A chain counts for each of its passes, and a search as `auto`."""
    recipe = JobRow.request["recipe"]
    steps = case((func.jsonb_typeof(recipe) == "array", recipe), else_=func.jsonb_build_array(recipe))
    step = func.jsonb_array_elements(steps).table_valued(column("value", JSONB), name="step")
    name = func.coalesce(step.c.value["pass"].astext, literal_column(f"'{SEARCH}'"))
    return (
        select(name, JobRow.state, func.count())
        .select_from(JobRow)
        .join(step, JobRow.request.is_not(None))
        .where(JobRow.kind == JobKind.OPTIMIZE)
        .group_by(name, JobRow.state)
    )


def _gauge(totals: Totals, name: str, words: str, labels: tuple[str, ...]) -> Metric:
    gauge = GaugeMetricFamily(name, words, labels=labels)
    for (metric, *values), count in totals.items():
        if metric == name:
            gauge.add_metric(values, count)
    return gauge


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


def _histogram(totals: Totals, distribution: Distribution) -> Metric:
    histogram = HistogramMetricFamily(distribution.name, distribution.words, labels=("kind",))
    for kind in JobKind:
        if totals.get((distribution.name, kind, ALL)):
            total = totals[distribution.name, kind, SUM]
            histogram.add_metric((kind,), list(_buckets(totals, distribution, kind)), total)
    return histogram


def _buckets(totals: Totals, distribution: Distribution, kind: str) -> Iterator[tuple[str, float]]:
    for bound in (*(f"{float(bound)}" for bound in distribution.bounds), ALL):
        yield bound, totals[distribution.name, kind, bound]
