"""Ranges of activations, streamed: memory does not grow with the number of samples.

Two passes over the data. The first adds ReduceMin, ReduceMax and Size to every tensor, so that nothing large leaves the
runtime. The second, for `percentile` and `entropy`, fetches the tensors themselves, in groups of bounded size, into
histograms whose edges the first pass fixed; so the result does not depend on how samples are batched.

Entropy: S. Migacz, 8-bit Inference with TensorRT, GTC 2017.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import opset_of
from worker.engine.model_file import ModelFile, save_model
from worker.engine.pass_contract import PassContext
from worker.engine.sessions import BASIC, open_session, run_session, session_options

HISTOGRAM_BINS = 2048
# The bins of one 8-bit code and its neighbours: below this many a shrunken range tells nothing.
LEAST_BINS = 128
THRESHOLDS_TRIED = 100
GROUP_ELEMENTS = 64 << 20
AXES_AS_INPUT_SINCE = 18
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass
class Range:
    """Smallest and largest value of one tensor, and its elements in one call."""

    low: float
    high: float
    elements: int
    element_type: int

    def finite(self) -> bool:
        return bool(np.isfinite(self.low) and np.isfinite(self.high))


@dataclass(frozen=True)
class Settings:
    """`percentile` (of 100) is the share of values kept, split evenly between the two ends."""

    method: Literal["minmax", "percentile", "entropy"] = "minmax"
    percentile: float = 100.0
    samples: int = 256


@dataclass(frozen=True)
class Calibration:
    """Ranges by tensor name, in the order of the graph, from `sample_count` samples."""

    ranges: dict[str, Range]
    sample_count: int
    not_finite: list[str]


def calibrate(
    model: ModelFile, settings: Settings, context: PassContext, progress: Callable[[float], None]
) -> Calibration:
    """The range of every float tensor that nodes exchange.

    Stops early, with what it has, when the context's time is used up; at least one call is always made.

    Raises:
        ModelFails: a call fails.

    """
    chosen = np.arange(min(settings.samples, context.feeds.sample_count))
    share = 1.0 if settings.method == "minmax" else 0.5
    ranges, read = _ranges(model, context, chosen, lambda done: progress(done * share))
    not_finite = [name for name, range_ in ranges.items() if not range_.finite()]
    ranges = {name: range_ for name, range_ in ranges.items() if range_.finite()}
    if settings.method != "minmax":
        choose = _percentile_range if settings.method == "percentile" else _entropy_range
        for name, counts in _histograms(model, context, ranges, chosen[:read], progress):
            full = ranges[name]
            edges = np.linspace(full.low, full.high, HISTOGRAM_BINS + 1)
            low, high = choose(counts, edges, settings.percentile)
            ranges[name] = Range(max(low, full.low), min(high, full.high), full.elements, full.element_type)
    return Calibration(ranges, read, not_finite)


def activations(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by name of every float tensor that enters or leaves a node of the main graph."""
    constants = {tensor.name for tensor in model.graph.initializer}
    known = {value.name: value for value in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
    found: dict[str, int] = {}
    for node in model.graph.node:
        for name in [*node.input, *node.output]:
            value = known.get(name)
            if value is not None and name not in constants and value.type.tensor_type.elem_type in FLOATS:
                found[name] = value.type.tensor_type.elem_type
    return found


def write_ranges(calibration: Calibration, path: Path) -> None:
    """As the calibration cache of `onnxruntime.quantization.quantize_static`, method MinMax."""
    data = {
        name: {
            "CLS": "TensorData",
            **{
                key: {"data": float(value), "dtype": "float32", "CLS": "numpy.array"}
                for key, value in (("lowest", range_.low), ("highest", range_.high))
            },
        }
        for name, range_ in calibration.ranges.items()
    }
    method = {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"}
    path.write_text(
        json.dumps({"CLS": "TensorsData", "data": data, "calibration_method": method, "smooth_quant": False})
    )


def _ranges(
    model: ModelFile, context: PassContext, chosen: np.ndarray, progress: Callable[[float], None]
) -> tuple[dict[str, Range], int]:
    """Smallest and largest value of every tensor, and how many samples were read."""
    probed = model.load()
    tensors = activations(probed)
    _add_probes(probed, tensors)
    file = save_model(probed, context.scratch / "ranges")
    del probed
    session = open_session(file.path, context.threads, session_options(context.threads, BASIC))
    first = len(session.get_outputs()) - 3 * len(tensors)
    ranges: dict[str, Range] = {}
    read = 0
    for call in context.feeds.calls(1, chosen):
        values = [float(np.asarray(value).flat[0]) for value in run_session(session, call.feed)[first:]]
        for position, (name, element_type) in enumerate(tensors.items()):
            low, high, elements = values[3 * position : 3 * position + 3]
            before = ranges.get(name, Range(low, high, 0, element_type))
            # np.minimum hands a NaN on, which min() may drop.
            low, high = float(np.minimum(low, before.low)), float(np.maximum(high, before.high))
            ranges[name] = Range(low, high, max(int(elements), before.elements), element_type)
        read += len(call.samples)
        progress(read / len(chosen))
        if context.seconds_left() <= 0:
            break
    return ranges, read


def _add_probes(model: onnx.ModelProto, tensors: dict[str, int]) -> None:
    """Three scalar outputs a tensor: smallest, largest, number of elements."""
    flat = "lathe_probe_flat"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), flat))
    axes_as_input = opset_of(model) >= AXES_AS_INPUT_SINCE
    axes = "lathe_probe_axes"
    if axes_as_input:
        model.graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), axes))
    for number, (name, element_type) in enumerate(tensors.items()):
        flattened = f"lathe_probe_{number}"
        model.graph.node.append(helper.make_node("Reshape", [name, flat], [flattened]))
        for kind in ("ReduceMin", "ReduceMax"):
            output = f"{flattened}_{kind}"
            if axes_as_input:
                node = helper.make_node(kind, [flattened, axes], [output], keepdims=1)
            else:
                node = helper.make_node(kind, [flattened], [output], axes=[0], keepdims=1)
            model.graph.node.append(node)
            model.graph.output.append(helper.make_tensor_value_info(output, element_type, None))
        model.graph.node.append(helper.make_node("Size", [name], [f"{flattened}_Size"]))
        model.graph.output.append(helper.make_tensor_value_info(f"{flattened}_Size", TensorProto.INT64, []))


def _histograms(
    model: ModelFile,
    context: PassContext,
    ranges: dict[str, Range],
    chosen: np.ndarray,
    progress: Callable[[float], None],
) -> Iterator[tuple[str, np.ndarray]]:
    """Counts (HISTOGRAM_BINS,) over the range of every tensor that varies."""
    groups = list(_groups(ranges))
    for index, group in enumerate(groups):
        exposed = model.load()
        declared = {value.name for value in exposed.graph.output}
        for name in group:
            if name not in declared:
                exposed.graph.output.append(helper.make_tensor_value_info(name, ranges[name].element_type, None))
        file = save_model(exposed, context.scratch / f"histogram-{index}")
        del exposed
        session = open_session(file.path, context.threads, session_options(context.threads, BASIC))
        counts = {name: np.zeros(HISTOGRAM_BINS, np.int64) for name in group}
        for call in context.feeds.calls(1, chosen):
            for name, array in zip(group, run_session(session, call.feed, group), strict=True):
                limits = (ranges[name].low, ranges[name].high)
                counts[name] += np.histogram(array.astype(np.float32), HISTOGRAM_BINS, limits)[0]
        progress(0.5 + 0.5 * (index + 1) / len(groups))
        yield from counts.items()


def _groups(ranges: dict[str, Range]) -> Iterator[list[str]]:
    """Tensors that vary, in groups of at most GROUP_ELEMENTS elements a call."""
    group: list[str] = []
    elements = 0
    for name, range_ in list(ranges.items()):
        if range_.low >= range_.high:
            continue
        if group and elements + range_.elements > GROUP_ELEMENTS:
            yield group
            group, elements = [], 0
        group.append(name)
        elements += range_.elements
    if group:
        yield group


def _percentile_range(counts: np.ndarray, edges: np.ndarray, percentile: float) -> tuple[float, float]:
    cut = (100.0 - percentile) / 200.0
    cumulative = np.cumsum(counts) / counts.sum()
    low = int(np.searchsorted(cumulative, cut, side="right"))
    high = int(np.searchsorted(cumulative, 1.0 - cut, side="left"))
    return float(edges[min(low, len(counts) - 1)]), float(edges[min(high, len(counts) - 1) + 1])


def _entropy_range(counts: np.ndarray, edges: np.ndarray, _percentile: float) -> tuple[float, float]:
    """The symmetric cut whose 8-bit version diverges least (KL) from the distribution with its tails folded in.

    P is the histogram cut at +-t with what lies outside added to the outermost bins; Q the same histogram, tails
    dropped, averaged over 255 codes and spread back over the bins that are not empty.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    largest = max(abs(float(edges[0])), abs(float(edges[-1])))
    best, best_divergence = largest, np.inf
    for threshold in np.linspace(largest * LEAST_BINS / HISTOGRAM_BINS, largest, THRESHOLDS_TRIED):
        inside = np.abs(centres) <= threshold
        if not inside.any():
            continue
        divergence = _divergence(counts, inside, threshold, centres)
        if divergence < best_divergence:
            best, best_divergence = float(threshold), divergence
    return max(-best, float(edges[0])), min(best, float(edges[-1]))


def _divergence(counts: np.ndarray, inside: np.ndarray, threshold: float, centres: np.ndarray) -> float:
    kept = counts[inside].astype(np.float64)
    reference = kept.copy()
    positions = np.flatnonzero(inside)
    reference[0] += counts[: positions[0]].sum()
    reference[-1] += counts[positions[-1] + 1 :].sum()
    low = max(-threshold, float(centres[0]))
    codes = np.clip(((centres[inside] - low) / max(threshold - low, 1e-30) * 254).astype(np.int64), 0, 254)
    occupied = kept > 0
    mass = np.bincount(codes, kept, 255)
    bins = np.bincount(codes, occupied, 255)
    spread = np.where(occupied, mass[codes] / np.maximum(bins[codes], 1), 0.0)
    # Bins that only the folded tails fill have no counterpart: a small mass keeps the divergence finite.
    smooth = 1e-4
    p = (reference + smooth) / (reference + smooth).sum()
    q = (spread + smooth) / (spread + smooth).sum()
    return float(np.sum(p * np.log(p / q)))
