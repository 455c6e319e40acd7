"""Figures of a report in words."""

from collections.abc import Iterable

from app.jobs.report import Interval, Quality, Report

SHARES = frozenset({"top1", "top5", "f1", "accuracy", "agreement"})


MetricKey = tuple[str, str | None, str | None]


def metric_key(quality: Quality) -> MetricKey:
    """By which metrics of two files are told to be the same."""
    return quality.name, quality.output, quality.labels


def job_metric_key(report: Report) -> MetricKey:
    """Of the metric that the job was judged by; not as a request's shape, in which a newer service may say more."""
    metric = report.manifest["metric"]
    return metric["name"], metric.get("output"), metric.get("labels")


def same_metric(measured: Iterable[Quality], wanted: Quality) -> Quality | None:
    """That metric among those of another file."""
    return next((one for one in measured if metric_key(one) == metric_key(wanted)), None)


def milliseconds_text(value: float) -> str:
    """Three significant digits: 0.0412 ms, 41.2 ms, 4120 ms."""
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{decimals}f} ms"


def quality_text(quality: Quality) -> str:
    """The estimate, as a share where the metric is one."""
    if quality.value is None:
        return "exact" if quality.name == "sqnr_db" else "not finite"
    return _quality_number(quality, quality.value) + (" dB" if quality.name == "sqnr_db" else "")


def interval_text(quality: Quality) -> str:
    """Its 95 % interval, where there is one."""
    if quality.low is None or quality.high is None:
        return ""
    return f"{_quality_number(quality, quality.low)} to {_quality_number(quality, quality.high)}"


def ratio_interval_text(ratio: Interval) -> str:
    """The 95 % interval of a ratio, where there is one."""
    return "" if ratio.low is None or ratio.high is None else f"{ratio.low:.2f} to {ratio.high:.2f} x"


def _quality_number(quality: Quality, value: float) -> str:
    return f"{value:.2%}" if quality.name in SHARES else f"{value:.4g}"
