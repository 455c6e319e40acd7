"""What taking units out should amount to: the same model with zeros where products read them."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, numpy_helper

from tests.worker import networks
from worker.engine.graph import inputs_of
from worker.engine.model_file import ModelFile
from worker.engine.overwriting import constants_of, overwrite
from worker.engine.random_input import integer_bounds, random_feeds, working_shapes
from worker.engine.sessions import Feed
from worker.engine.structure.cutting import cut
from worker.engine.structure.groups import Structure, find_structure
from worker.engine.structure.propagation import read_graph
from worker.engine.structure.sizes import measured_sizes


def saved(model: ModelProto, folder: Path) -> ModelFile:
    return ModelFile(networks.save(model, folder))


def feed_of(model: ModelFile, batch: int = 2) -> Feed:
    structure = model.structure()
    inputs = inputs_of(structure)
    shapes = working_shapes(model, inputs, {}, batch=batch, threads=1)
    feeds = random_feeds(inputs, integer_bounds(structure, inputs), shapes, 2, seed=0)
    return next(feeds.calls(batch)).feed


def structure_of(model: ModelFile, feed: Feed, folder: Path) -> Structure:
    return find_structure(read_graph(model), measured_sizes(model, feed, folder, threads=1))


def some_units(structure: Structure, seed: int = 0) -> np.ndarray:
    """Half of every group's, drawn at random."""
    generator = np.random.default_rng(seed)
    drawn = [generator.choice(group.roots, group.width // 2, replace=False) for group in structure.groups]
    return np.concatenate([np.zeros(0, np.int64), *drawn])


def masked(model: ModelFile, structure: Structure, gone: np.ndarray, folder: Path) -> ModelFile:
    """The model with zeros in the columns that read the units `gone`."""
    arrays = {name: numpy_helper.to_array(tensor).copy() for name, tensor in constants_of(model.load().graph)}
    names = set()
    for part in (part for group in structure.groups for part in group.consumers):
        slot = part.slot
        array = np.moveaxis(slot.weight.read(arrays[slot.weight.name]).copy(), slot.axis, 0)
        array[np.isin(structure.wiring.atoms.roots(slot.atoms), gone)] = 0
        arrays[slot.weight.name] = np.moveaxis(array, 0, slot.axis).transpose(np.argsort(slot.weight.order))
        names.add(slot.weight.name)
    return overwrite(model, {name: arrays[name] for name in names}, folder)


def cut_and_checked(model: ModelFile, folder: Path) -> ModelFile:
    """Half of the units of every group cut out, in a valid file that answers as one that does not read them."""
    feed = feed_of(model)
    structure = structure_of(model, feed, folder / "sizes")
    gone = some_units(structure)
    made = cut(model, structure, gone, folder / "cut")
    onnx.checker.check_model(str(made.path), full_check=True)
    unread = masked(model, structure, gone, folder / "masked")
    # Leaving out zeros only reorders sums.
    for left, right in zip(answers(unread, feed), answers(made, feed), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    return made


def answers(model: ModelFile, feed: Feed) -> list[np.ndarray]:
    return list(ort.InferenceSession(model.path, providers=["CPUExecutionProvider"]).run(None, feed))
