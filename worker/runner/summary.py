"""What a report says of the machine, and a job at a glance."""

from app.jobs.report import Candidate, Environment, Figures, Measurement, Summary
from app.recipes.request import Metric, OptimizeRequest
from worker.engine.evaluation.requests import ComparisonAnswer
from worker.engine.processor import instruction_sets, processor_name
from worker.engine.versions import versions
from worker.runner.job_data import JobData

PERFECT = {"agreement": 1.0, "cosine": 1.0}


def environment_of(request: OptimizeRequest, data: JobData) -> Environment:
    """The machine, and what latency was measured with."""
    return Environment(
        device=request.target.device,
        processor=processor_name(request.target.device),
        instruction_sets=instruction_sets(),
        threads=request.target.threads or 1,
        batch=data.batch,
        shapes={name: list(array.shape[1:]) for name, array in data.latency.arrays.items()},
        versions=versions(),
    )


def summary_of(before: Measurement, candidate: Candidate, metric: Metric, compared: ComparisonAnswer) -> Summary:
    """The original beside the delivered file."""
    after, name = candidate.measurement, str(metric.name)
    original = compared.metric_original if metric.labels else PERFECT.get(name)
    optimized = compared.metric_candidate
    ratio = {
        "size": before.size_bytes / max(after.size_bytes, 1),
        "latency": candidate.latency_ratio.value,
        "memory": before.peak_memory_bytes / max(after.peak_memory_bytes, 1),
    }
    if original is not None and optimized is not None:
        ratio["metric"] = optimized - original
    return Summary(
        metric=name,
        baseline=_figures(before, original),
        optimized=_figures(after, optimized),
        file_name=candidate.file_name,
        ratio=ratio,
    )


def _figures(measured: Measurement, metric: float | None) -> Figures:
    return Figures(
        size_bytes=measured.size_bytes,
        latency_ms=measured.latency.p50_ms,
        throughput_per_second=measured.throughput_per_second,
        peak_memory_bytes=measured.peak_memory_bytes,
        metric=metric,
    )
