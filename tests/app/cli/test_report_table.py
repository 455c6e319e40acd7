"""A report of a chain as a person reads it, on a terminal of 80 columns."""

import re
from typing import Any

import pytest
from rich.console import Console

from app.cli.layers_table import print_layers
from app.cli.report_table import print_report
from app.cli.trials_table import print_trials
from app.jobs.report import Report, TrialReport

TERMINAL = 80


def _latency(p50_ms: float) -> dict[str, Any]:
    rounds = [p50_ms, p50_ms]
    return dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "mean_ms"), p50_ms) | {
        "call_count": 2,
        "round_medians_ms": rounds,
    }


def _quality(name: str, value: float, labels: str | None = None) -> dict[str, Any]:
    return {"name": name, "output": "logits", "labels": labels, "value": value, "sample_count": 100}


def _measurement(size: int, p50_ms: float, *quality: dict[str, Any]) -> dict[str, Any]:
    shares = ("int8_share", "float_share", "conversion_share", "other_share")
    return {
        "size_bytes": size,
        "compressed_size_bytes": size,
        "load_ms": 1.0,
        "peak_memory_bytes": 2 << 20,
        "baseline_memory_bytes": 1 << 20,
        "latency": _latency(p50_ms),
        "throughput_per_second": 1e3 / p50_ms,
        "quality": list(quality),
        "kernels": dict.fromkeys(shares, 0.25) | {"by_operator": []},
    }


def a_step(name: str, file: dict[str, Any] | None, modified: bool = True) -> dict[str, Any]:
    return {"pass": name, "parameters": {}, "modified": modified, "seconds": 1.0, "file": file}


def _file(size: int, p50_ms: float, ratio: float, top1: float, agreement: float) -> dict[str, Any]:
    return {
        "size_bytes": size,
        "latency": _latency(p50_ms),
        "original_latency_ms": 8.0,
        "latency_ratio": {"value": ratio, "low": ratio - 0.1, "high": ratio + 0.1},
        "quality": [_quality("top1", top1, "label"), _quality("agreement", agreement)],
    }


PRUNED = _file(3 << 20, 5.0, 1.6, 0.91, 0.95)
QUANTIZED = _file(1 << 20, 2.0, 4.0, 0.89, 0.92)
UNMEASURED = {
    "size_bytes": 3 << 20,
    "latency": None,
    "original_latency_ms": None,
    "latency_ratio": None,
    "quality": [],
    "unmeasured": ["Latency was not measured: no time was left for it."],
}


def a_report(steps: list[dict[str, Any]], **parts: Any) -> Report:
    """`parts` are those that not every report has: the check of a deployment, the search."""
    report = {
        "baseline": _measurement(4 << 20, 8.0, _quality("top1", 0.92, "label")),
        "candidates": [
            {
                "name": "a chain",
                "recipe": [step["pass"] for step in steps],
                "file_name": "m.onnx",
                "sha256": "0" * 64,
                "measurement": _measurement(1 << 20, 2.0, *QUANTIZED["quality"]),
                "latency_ratio": QUANTIZED["latency_ratio"],
            }
        ],
        "steps": steps,
        "verdict": {"outcome": "met", "reason": "It holds."},
        "environment": {
            "device": "cpu",
            "processor": "A processor",
            "instruction_sets": [],
            "threads": 1,
            "batch": 1,
            "shapes": {},
            "versions": {},
        },
        "data": {},
        "manifest": {"metric": {"name": "top1", "output": "logits", "labels": "label"}},
        **parts,
    }
    return Report.model_validate(report)


def _shown(steps: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], **parts: Any) -> list[str]:
    print_report(Console(width=TERMINAL), a_report(steps, **parts))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > TERMINAL] == []
    return [" ".join(line.split()) for line in lines]


def test_every_step_of_a_chain_is_a_row_beside_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [a_step("prune_structured", PRUNED), a_step("quantize_static", QUANTIZED)]
    lines = _shown(steps, capsys)
    start = lines.index("step by step")
    table = [line for line in lines[start:] if line and "─" not in line]
    assert table[1:7] == [
        "after size latency change top1 agreement",
        "the original 4.00 MiB 8.00 ms 92.00%",
        "1 prune_structured 3.00 MiB 5.00 ms 1.60 x faster 91.00% 95.00%",
        "95 % interval 1.50 to 1.70 x",
        "2 quantize_static 1.00 MiB 2.00 ms 4.00 x faster 89.00% 92.00%",
        "95 % interval 3.90 to 4.10 x",
    ]


def test_what_was_not_measured_is_said_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _shown([a_step("prune_structured", UNMEASURED), a_step("quantize_static", QUANTIZED)], capsys)
    row = lines.index("1 prune_structured 3.00 MiB - - -")
    assert lines[row + 1].startswith("2 quantize_static")  # no interval of what has no figure
    assert "1 prune_structured: Latency was not measured: no time was left for it." in lines


def test_a_single_pass_needs_no_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert "step by step" not in _shown([a_step("quantize_static", None)], capsys)


def test_every_check_of_a_deployment_is_a_row_with_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [
        {"name": "loads", "outcome": "passed", "words": "Loaded in 3 ms."},
        {"name": "extreme_values", "outcome": "failed", "words": "Not finite at zeros, " + "and more words " * 10},
    ]
    deployment = {"checks": checks, "modules": ["numpy", "onnxruntime"], "seconds": 12.0}
    lines = _shown([a_step("quantize_static", QUANTIZED)], capsys, deployment=deployment)
    start = lines.index("deployment check (12 s)")
    assert [line for line in lines[start:] if line][1:3] == [
        "loads passed Loaded in 3 ms.",
        "extreme values failed Not finite at zeros, and more words and more words",
    ]
    assert "modules of the fresh process: numpy, onnxruntime" in lines


def test_a_report_without_the_check_shows_nothing_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert not any("deployment" in line for line in _shown([a_step("quantize_static", QUANTIZED)], capsys))


def _trial(name: str, **figures: Any) -> dict[str, Any]:
    told = {"name": name, "recipe": ["quantize_static"], "outcome": "front", "explanation": "It is.", "seconds": 1.0}
    return told | {"latency_ratio": {"value": 1.6}, "size_ratio": 4.0, "drop": 0.0, "holds": True} | figures


@pytest.mark.parametrize(
    ("figures", "heading", "row"),
    [
        pytest.param({}, "candidate faster size top1 drop verdict", "* a chain 4.00 x 1.00 MiB 89.00%", id="not"),
        pytest.param(
            {"memory_ratio": 1.5},
            "candidate faster size memory top1 drop verdict",
            "* a chain 4.00 x 1.00 MiB 2.00 MiB 89.00%",
            id="counts",
        ),
    ],
)
def test_the_front_of_a_search_has_memory_where_that_counts(
    figures: dict[str, Any], heading: str, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    search = {"explanation": [], "trials": [_trial("a chain", **figures)], "front": ["a chain"], "ended": "It ended."}
    lines = _shown([a_step("quantize_static", None)], capsys, search=search | {"seconds": 1.0})
    assert heading in lines
    assert row in lines


def test_of_trials_memory_has_a_column_where_it_counts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    failed = TrialReport.model_validate(
        {"name": "float16", "recipe": [], "outcome": "failed", "explanation": "It could not.", "seconds": 1.0}
    )
    for figures, cells in (({}, ""), ({"memory_ratio": 1.5}, "1.50 x ")):
        print_trials([TrialReport.model_validate(_trial("static", **figures)), failed])
        head, *lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert head == f"candidate faster smaller {'less memory ' if cells else ''}drop contract why not"
        assert lines == [f"static 1.60 x 4.00 x {cells}0 kept", "float16 It could not."]


LAYERS = [
    {"name": "/stem/Conv", "operator": "Conv", "planned": "int8", "executed": "QLinearConv", "executed_ms": 0.25}
    | {"float_ms": 0.75, "int8_ms": 0.24, "sqnr_db": 38.04, "sensitivity_db": 31.5},
    {"name": "/head/Gemm", "operator": "Gemm", "planned": "float", "reason": "slower in int8 here"},
    {"name": "/body/Conv", "operator": "Conv", "planned": "int8", "executed": "QLinearConv", "executed_ms": 0.5}
    | {"float_ms": 1.5, "int8_ms": 0.5, "sqnr_db": 30.0, "sensitivity_db": 16.6},
]


def test_nodes_are_told_one_a_line_those_first_that_lose_most(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    steps = [a_step("optimize_graph", None), a_step("quantize_static", None) | {"layers": LAYERS}]
    print_layers(a_report(steps))
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title == "quantize_static:"
    columns = ["node", "operator", "planned", "ran", "ms", "in float", "in int8", "SQNR dB", "alone dB"]
    # What no node has anything to say in is left out: weights, zeros, ranks.
    assert re.split(r"  +", head.strip()) == [*columns, "left as it was because"]
    assert [line.split()[0] for line in lines] == ["/body/Conv", "/stem/Conv", "/head/Gemm"]
    assert lines[0].split() == ["/body/Conv", "Conv", "int8", "QLinearConv", "0.500", "1.500", "0.500", "30.0", "16.6"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        pytest.param(
            ["optimize_graph", "distill"], "comes from `optimize_graph`, `distill`", id="passes that have none"
        ),
        pytest.param([], "no pass ran", id="the original"),
    ],
)
def test_where_nothing_is_known_of_nodes_that_is_said(
    steps: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_layers(a_report([a_step(name, None) for name in steps]))
    shown = capsys.readouterr()
    assert (shown.out, words in shown.err) == ("", True)
