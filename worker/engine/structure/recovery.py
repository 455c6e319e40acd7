"""Making up for what was cut, without labels and without training.

Layer by layer, from the inputs on: every product behind a cut gets the weight, and the bias where there is room for
one, with which it comes closest to what the original computes in the channels that stayed, from what the smaller model
feeds it (`worker.engine.moments.fitting`). Room for a bias is its own, that of an Add right behind it, or the running
mean of a BatchNormalization. BatchNormalizations behind anything else get their statistics estimated anew: what they
are fed in the smaller model over what they were fed in the original, times what stands in the file. Reconstruction by
layers: Y. He et al., Channel Pruning for Accelerating Very Deep Neural Networks (https://arxiv.org/abs/1707.06168).
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.engine.calibration.observing import FLOAT, exposed_calls
from worker.engine.fidelity import measure_fidelity
from worker.engine.graph_file import read_graph
from worker.engine.model_file import ModelFile
from worker.engine.moments.fitting import fit_rows
from worker.engine.moments.products import as_rows, from_rows
from worker.engine.moments.reading import cross_moments
from worker.engine.overwriting import overwrite
from worker.engine.pass_contract import PassContext
from worker.engine.structure.recovery_sites import Linear, Normalization, Sites, Statistics, estimated, find_sites

MOST_SAMPLES = 256
# A pass over the data of both models for each: layers of one wave do not see what the others make up for.
MOST_WAVES = 24
JUDGED_SAMPLES = 128
Arrays = dict[str, np.ndarray]
Kept = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Recovery:
    """`model` is the cut one itself where nothing was gained."""

    model: ModelFile
    notes: list[str]


def recovered(original: ModelFile, pruned: ModelFile, kept: Kept, context: PassContext, folder: Path) -> Recovery:
    """The `pruned` model with new values for its constants, in the empty `folder`.

    `kept` holds, by the name of the output of a product, which of the original's channels are left there; all where it
    has none. Judged by outputs, on samples of which none was fitted to where there are that many.

    Raises:
        ModelFails: a call fails.

    """
    started = time.monotonic()
    samples = fitted_samples(context)
    fitting = _Fitting(original, kept, context, samples)
    fitted, current = fitting.waves(find_sites(read_graph(original), read_graph(pruned)), pruned)
    if not fitted:
        return Recovery(pruned, ["No layer behind a cut could be fitted to the original's."])
    before, after = (measure_fidelity(original, one, context, judged_samples(context)) for one in (pruned, current))
    if after.sqnr_db <= before.sqnr_db:
        shutil.rmtree(current.path.parent)
        return Recovery(pruned, [f"Least squares gained nothing on {before.in_words()}: left out."])
    folder.mkdir(parents=True, exist_ok=True)
    for file in current.files():
        file.replace(folder / file.name)
    return Recovery(
        ModelFile(folder / current.path.name),
        [
            f"{fitted} layers behind cuts were fitted to the original's by least squares on {samples} samples in "
            f"{time.monotonic() - started:.1f} s: {after.in_words()} at the outputs, {before.in_words()} as cut."
        ],
    )


def judged_samples(context: PassContext) -> np.ndarray:
    """What outputs are judged on; nothing was fitted to them, unless there is but one sample."""
    first = fitted_samples(context)
    judged = np.arange(first, min(first + JUDGED_SAMPLES, context.feeds.sample_count))
    return judged if len(judged) else np.arange(first)


def fitted_samples(context: PassContext) -> int:
    """How many samples, from the first on, layers are fitted to."""
    return max(1, min(MOST_SAMPLES, context.feeds.sample_count * 3 // 4))


@dataclass(frozen=True)
class _Fitting:
    """One recovery; see `recovered`."""

    original: ModelFile
    kept: Kept
    context: PassContext
    samples: int

    def waves(self, sites: Sites, pruned: ModelFile) -> tuple[int, ModelFile]:
        """How many layers were fitted, and the model with them; ends early where time does."""
        current, fitted, started = pruned, 0, time.monotonic()
        depths = sites.depths
        share = max(1, -(-len(depths) // MOST_WAVES))
        for number, start in enumerate(range(0, len(depths), share)):
            wave = sites.between(depths[start], depths[min(start + share, len(depths)) - 1])
            arrays = self._products(current, wave.linear) | self._statistics(current, wave.normalizations)
            if arrays:
                made = overwrite(current, arrays, self.context.scratch / f"wave-{number}")
                if current is not pruned:
                    shutil.rmtree(current.path.parent)
                current, fitted = made, fitted + len(wave.linear) + len(wave.normalizations)
            if self.context.lacks(2 * (time.monotonic() - started) / (number + 1)):
                break
        return fitted, current

    def _products(self, current: ModelFile, linear: list[Linear]) -> Arrays:
        by_name = {site.output: site for site in linear}
        pairs = [(site.product, site.output) for site in linear]
        arrays: Arrays = {}
        for product, moments in cross_moments(current, pairs, self.original, self.context, self.samples):
            site = by_name[product.node.outputs[0].name or ""]
            rows = as_rows(site.weight, product.channel_axis).astype(np.float64)
            channels = self.kept.get(site.output, np.arange(len(rows)))
            if len(channels) != len(rows) or (len(channels) and channels.max() >= len(moments.total)):
                continue
            fit = fit_rows(rows, moments, channels, shifts=site.room is not None)
            if fit is not None:
                arrays[site.weight_name] = from_rows(fit.rows, site.weight.shape, product.channel_axis)
                if site.room is not None:
                    arrays[site.room.name] = site.room.taking(fit.shift)
        return arrays

    def _statistics(self, current: ModelFile, normalizations: list[Normalization]) -> Arrays:
        if not normalizations:
            return {}
        names = dict.fromkeys((site.source for site in normalizations), FLOAT)
        found = []
        for side, model in (("now", current), ("then", self.original)):
            statistics = {name: Statistics() for name in names}
            for arrays in exposed_calls(model, names, self.context, np.arange(self.samples), f"normalized-{side}"):
                for name, array in arrays.items():
                    statistics[name].add(array)
            found.append(statistics)
        now, then = found
        made: Arrays = {}
        for site in normalizations:
            made |= dict(estimated(site, now[site.source], then[site.source], self.kept.get(site.source)))
        return made
