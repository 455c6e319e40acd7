"""Ranges of activations from data, streamed: memory grows neither with the samples nor with the model's activations."""

from worker.engine.calibration.observing import activations
from worker.engine.calibration.ranges import (
    Calibration,
    Range,
    Settings,
    calibrate,
    calibrate_by,
    from_numbers,
    in_numbers,
)
from worker.engine.calibration.thresholds import Method

__all__ = [
    "Calibration",
    "Method",
    "Range",
    "Settings",
    "activations",
    "calibrate",
    "calibrate_by",
    "from_numbers",
    "in_numbers",
]
