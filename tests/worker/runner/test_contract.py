"""What the supervisor reads of a runner."""

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from worker.runner.contract import Event, RunnerResult, without_nul

TRIAL = {"name": "int8", "recipe": [], "outcome": "tried", "explanation": "-", "seconds": 1.5}
TRIAL |= {"latency_ratio": {"value": 2.5}, "metric": 0.5}
FIGURES = {"size_bytes": 1, "latency_ms": 1.5, "throughput_per_second": 2.5, "peak_memory_bytes": 1, "metric": None}
SUMMARY = {"metric": "top_1", "baseline": FIGURES, "optimized": FIGURES, "ratio": {"latency": 3.5}}


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a\0b", "a\ufffdb"),
        ("a\\u0000b", "a\\u0000b"),
        ("\\\0", "\\\ufffd"),
        ("\0\0", "\ufffd\ufffd"),
        ("plain", "plain"),
    ],
    ids=["NUL", "what looks like its escape", "NUL behind a backslash", "two", "none"],
)
def test_a_name_loses_its_nul_and_nothing_else(name: str, stored: str) -> None:
    assert json.loads(without_nul(json.dumps({"name": name}).encode())) == {"name": stored}


@pytest.mark.parametrize(
    ("said", "path"),
    [
        (Event, "eta_seconds"),
        (Event, "progress"),
        (Event, "trial.seconds"),
        (Event, "trial.latency_ratio.value"),
        (Event, "best.gain"),
        (Event, "best.trial.seconds"),
        (RunnerResult, "summary.baseline.latency_ms"),
        (RunnerResult, "summary.baseline.throughput_per_second"),
        (RunnerResult, "summary.ratio.latency"),
    ],
)
@pytest.mark.parametrize("number", ["1e999", "Infinity", "NaN"])
def test_a_number_that_the_api_answers_with_is_finite(
    said: type[Event] | type[RunnerResult], path: str, number: str
) -> None:
    event: dict[str, Any] = {"type": "progress", "progress": 0.5, "eta_seconds": 9.5, "trial": TRIAL}
    event["best"] = {"file": "0.onnx", "file_name": "a", "media_type": "a", "gain": 4.5, "trial": TRIAL}
    whole: dict[str, Any] = event if said is Event else {"outcome": "succeeded", "summary": SUMMARY}
    said.model_validate(whole)
    *folders, name = path.split(".")
    broken = json.loads(json.dumps(whole))
    place = broken
    for folder in folders:
        place = place[folder]
    place[name] = "HERE"
    with pytest.raises(ValidationError, match=re.escape(path)):
        said.model_validate_json(json.dumps(broken).replace('"HERE"', number))
