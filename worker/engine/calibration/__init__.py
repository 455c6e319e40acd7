"""Ranges of activations from data, streamed: memory grows neither with the samples nor with the model's activations."""

from worker.engine.calibration.observing import activations
from worker.engine.calibration.ranges import Calibration, Range, Settings, calibrate

__all__ = ["Calibration", "Range", "Settings", "activations", "calibrate"]
