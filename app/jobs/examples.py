"""Jobs to begin with, as OpenAPI shows them."""

from fastapi.openapi.models import Example

_MODEL = "01939f3e-1c2a-7000-8000-000000000001"
_CALIBRATION, _EVALUATION = "01939f3e-1c2a-7000-8000-000000000002", "01939f3e-1c2a-7000-8000-000000000003"

SUBMISSIONS: dict[str, Example] = {
    "recipe": {
        "summary": "A pass that is named",
        "value": {
            "model_id": _MODEL,
            "recipe": [{"pass": "quantize_static"}],
            "data": {"calibration": _CALIBRATION, "evaluation": _EVALUATION},
            "metric": {"name": "top1", "labels": "label"},
            "contract": {"max_drop": 0.01},
        },
    },
    "auto": {
        "summary": "Passes that Lathe finds",
        "description": "By default the fastest file that loses at most 0.01 of the metric, at 0.95 confidence.",
        "value": {"model_id": _MODEL, "recipe": "auto", "data": {"evaluation": _EVALUATION}},
    },
    "auto_weighted": {
        "summary": "The same, within bounds",
        "description": "Latency and half as much size; eight candidates at most, made of two passes, none trained.",
        "value": {
            "model_id": _MODEL,
            "recipe": "auto",
            "data": {"evaluation": _EVALUATION},
            "contract": {"max_drop": 0.005, "confidence": 0.99},
            "objective": {"latency": 1, "size": 0.5},
            "search": {"training": False, "passes": ["quantize_static", "prune_structured"], "max_trials": 8},
            "budget_seconds": 1800,
        },
    },
}
